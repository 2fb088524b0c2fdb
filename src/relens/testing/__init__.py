"""Conformance suites that any back-end must pass: subclass one, say how to make yours, and let pytest collect it.

    class TestMyBlobs(BlobsContract):
        def make(self, tmp_path): return MyBlobs(tmp_path)

They promise that what passes can stand in for what ships. They need pytest, which relens itself does not.
"""
