"""Releases against the contract on SQLite and PostgreSQL."""

import pytest

from relens.testing.releases import ReleaseContract, ViewContract

RACES = {
    "test_two_that_open_the_same_new_gallery_at_once_get_the_same",
    "test_two_that_open_the_same_new_recipe_at_once_get_the_same",
}


class TestReleases(ReleaseContract):
    @pytest.fixture(autouse=True)
    def _known(self, request, catalog):
        if request.node.originalname in RACES and not catalog.is_sqlite:
            reason = "select, then insert: on PostgreSQL the second one gets an IntegrityError of the driver"
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason))


class TestViews(ViewContract):
    pass
