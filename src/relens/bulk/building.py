"""Building segments anew from the truth: of these objects, from wherever their vectors lie, checked before anybody
searches them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from relens.enrolment import name_blobs
from relens.errors import Broken, Conflict
from relens.gallery import places
from relens.gallery.places import Place
from relens.jobs import Hold, pins
from relens.recipes import Space
from relens.releases import add_segments
from relens.store import Blob, Blobs, Catalog, Tx
from relens.values import Floats
from relens.vectors import Check, Ids, Manifest, build_segment, check_vectors, open_segment, read_vectors

BATCH = 4096
SAMPLE = 32
"""Vectors of each segment that must find themselves."""


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds segments of one gallery as of one sequence, in one pack."""

    catalog: Catalog
    blobs: Blobs
    hold: Hold
    gallery: int
    as_of: int

    def build(
        self, category: str, day: str, space: Space, ids: Ids, fresh: Mapping[int, Place] = places.NOWHERE
    ) -> Manifest:
        """A segment of these objects, by increasing id. `fresh`: where those lie of which the catalog does not know.

        Conflict `gallery.changed` if one has no vector any more: then the pack runs again.
        """
        return build_segment(
            self.blobs,
            gallery=self.gallery,
            category=category,
            day=day,
            space=space.digest,
            as_of=self.as_of,
            parts=self._parts(space, ids, fresh),
            count=len(ids),
            dim=space.dim,
        )

    def check(self, built: Sequence[Manifest]) -> list[Check]:
        """What each segment was asked. Broken, naming the first that fails: then nothing is published."""
        checks: list[Check] = []
        for manifest in built:
            segment = open_segment(self.blobs, manifest.digest, verify=True)
            checks += check_vectors(segment, sample=SAMPLE, seed=self.hold.claim.plan)
        failed = next((check for check in checks if not check.ok), None)
        if failed is not None:
            raise Broken(
                "bulk.check-failed",
                f"a segment that was built does not pass its check: {failed.name}: {failed.detail}",
                hint="nothing was published; `relens doctor --deep` looks for damaged files of vectors",
            )
        return checks

    def pin(self, built: Sequence[Manifest], files: Sequence[Blob] = ()) -> None:
        """Keep what was stored until it is named."""
        stored = [digest for manifest in built for digest in (manifest.digest, manifest.data)]
        pins.pin(self.catalog, self.blobs, self.hold.claim, [*stored, *(file.digest for file in files)])

    def name(self, tx: Tx, built: Sequence[Manifest], now: float, files: Sequence[Blob] = ()) -> list[str]:
        """Write segments and files of vectors down, in the transaction that publishes. The segments' digests."""
        named = [(file, "vectors") for file in files]
        named += [(Blob(manifest.digest, self.blobs.size(manifest.digest)), "segment") for manifest in built]
        named += [(Blob(manifest.data, manifest.data_bytes), "segment-data") for manifest in built]
        name_blobs(tx, self.blobs, named, now)
        add_segments(tx, built, now)
        return [manifest.digest for manifest in built]

    def _parts(self, space: Space, ids: Ids, fresh: Mapping[int, Place]) -> Iterator[tuple[Ids, Floats]]:
        for start in range(0, len(ids), BATCH):
            self.hold.take_in_hand("segment")
            some = ids[start : start + BATCH]
            yield some, self._vectors(space, some, fresh)

    def _vectors(self, space: Space, ids: Ids, fresh: Mapping[int, Place]) -> Floats:
        old = [int(one) for one in ids if int(one) not in fresh]
        with self.catalog.read() as tx:
            placed = {**places.find(tx, old, space.digest), **fresh}
        if lost := [one for one in old if one not in placed]:
            raise Conflict("gallery.changed", f"{len(lost)} objects have lost their vectors meanwhile")
        files = np.array([placed[int(one)][0] for one in ids])
        rows = np.array([placed[int(one)][1] for one in ids], dtype=np.int64)
        found = np.empty((len(ids), space.dim), dtype=np.float32)
        for file in sorted(set(files)):
            of_file = files == file
            found[of_file] = read_vectors(self.blobs, file, rows[of_file], space=space.digest)
        return found
