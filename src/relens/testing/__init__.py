"""Conformance suites that any back-end must pass: subclass one, say how to make yours, and let pytest collect it.

Those of the catalog and of what lives in it ask for a fixture `catalog` instead; `rows` and `homes` are what they, and
tests of whole flows, start from.

    class TestMyBlobs(BlobsContract):
        def make(self, tmp_path): return MyBlobs(tmp_path)

They promise that what passes can stand in for what ships. They need pytest, which relens itself does not.
"""
