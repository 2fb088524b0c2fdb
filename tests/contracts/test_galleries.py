"""Galleries against the contract on SQLite and PostgreSQL."""

from relens.testing.galleries import GalleryContract, ItemContract, StagingContract


class TestGalleries(GalleryContract):
    pass


class TestStaging(StagingContract):
    pass


class TestItems(ItemContract):
    pass
