"""Releases against the contract on SQLite and PostgreSQL."""

from relens.testing.releases import ReleaseContract, ViewContract


class TestReleases(ReleaseContract):
    pass


class TestViews(ViewContract):
    pass
