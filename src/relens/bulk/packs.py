"""What a pack of an import does: take its entries through the recipe, and stage what came out.

The stages run fused, picture by picture, and are counted apart. An error of a picture quarantines it with its cause; an
error of disk, catalog or engine puts the whole pack aside. Bytes first, then one short transaction.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.importing import CROP, DECODE, EMBED, FILTER, READ, add_blob, filters
from relens.bulk.listings import Entry, Slice, read_slice
from relens.bulk.reading import Reader, Reading
from relens.enrolment import Keeper, Kept, Place
from relens.errors import BadInput, Broken, Conflict
from relens.gallery import Item, NewObject, NewPicture
from relens.gallery.items import stage_items
from relens.jobs import MAX_LOSSES, Claim, Hold, leases, pins, plans
from relens.jobs.plans import Plan
from relens.recipes import Cropped, Described, Lens, Pipeline, attributes_of
from relens.store import Blob, Blobs, Catalog, Tx
from relens.store.schema import quarantine
from relens.values import Floats, digest_of
from relens.vectors import write_vectors

CHUNK = 64
CHUNK_BYTES = 64 * 1024 * 1024

KNOWN = "already-in-gallery"
WAITS = "waits-for-plan-"
"""Another plan brought the picture and has not published it yet."""

# Errors of a file system that say nothing about the picture.
ENVIRONMENT = frozenset({errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Sifted:
    """The objects of a picture: those that are kept, and category and reason of each that is not."""

    kept: tuple[Cropped, ...]
    dropped: tuple[tuple[str, str], ...]

    def without_bytes(self) -> Sifted:
        """What is left to be told when the crops lie in the shard: a pack of crowds would hold gigabytes of them."""
        return Sifted(tuple(replace(crop, jpeg=b"") for crop in self.kept), self.dropped)


@dataclass(frozen=True, slots=True)
class Failed:
    """An entry that goes to quarantine: in which task, why, and what had been found in it by then."""

    task: str
    code: str
    message: str
    sifted: Sifted | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """An entry whose picture the gallery holds already."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """An entry that its listing leaves out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """An entry whose picture was taken through the recipe."""

    sha256: str
    size: int
    width: int
    height: int
    objects: tuple[tuple[Cropped, Described, Place | None], ...]
    dropped: tuple[tuple[str, str], ...] = ()


Outcome = Failed | Held | Dropped | Made


class Importer:
    """Handles the packs of imports. One per worker process; keeps the pipelines that it has loaded."""

    def __init__(self, catalog: Catalog, blobs: Blobs, start: Callable[[Lens], Pipeline], reader: Reader) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._start = start
        self._reader = reader
        self._pipelines: dict[str, Pipeline] = {}

    def __call__(self, hold: Hold) -> None:
        """Run one pack and commit it."""
        with self._catalog.read() as tx:
            plan = plans.get(tx, hold.claim.plan)
            lens = releases.get_lens(tx, plan.need_lens)
            retention = galleries.by_id(tx, plan.need_gallery).retention
        self._reader.sweep(self._unfinished)
        pipeline = self._pipeline(lens)
        entries = _in_order(read_slice(self._blobs, Slice(**hold.claim.spec)), hold.claim)
        uris = [entry.uri for entry in entries if entry.drop is None and entry.problem is None]
        with self._reader.open(plan.id, hold.claim.pack, uris, keep=retention != "none") as reading:
            with Keeper(self._blobs, retention) as keeper:
                outcomes = _Pack(self, hold, plan, pipeline, keeper, reading).run(entries)
                files = self._store(outcomes, keeper)
            if files.digests:
                pins.pin(self._catalog, self._blobs, hold.claim, files.digests)
            with self._catalog.begin() as tx:
                leases.fence(tx, hold.claim)
                galleries.lock(tx, plan.need_gallery)
                _Commit(tx, self._catalog.now(tx), hold.claim, plan, lens).write(entries, outcomes, files)
        reading.forget()

    def _store(self, outcomes: dict[int, Outcome], keeper: Keeper) -> _Files:
        """The bytes of a pack, stored: what its gallery keeps, and vectors, in the order of the entries."""
        spaces: dict[str, list[Floats]] = {}
        for described in (described for one in _made(outcomes) for _, described, _ in one.objects):
            if described.vector is not None:
                spaces.setdefault(described.vector.space, []).append(described.vector.values)
        files = {space: write_vectors(self._blobs, np.stack(vectors), space=space) for space, vectors in spaces.items()}
        return _Files(keeper.finish(), files)

    def _pipeline(self, lens: Lens) -> Pipeline:
        if lens.digest not in self._pipelines:
            self._pipelines[lens.digest] = self._start(lens)
        return self._pipelines[lens.digest]

    def known(self, gallery: int, sha256s: Sequence[str]) -> set[str]:
        with self._catalog.read() as tx:
            return set(galleries.known_pictures(tx, gallery, sha256s))

    def _unfinished(self) -> list[int]:
        with self._catalog.read() as tx:
            return plans.unfinished(tx)


def _in_order(entries: Sequence[Entry], claim: Claim) -> list[Entry]:
    """What was in hand when a worker was lost comes last.

    A worker that is killed at random moments does not lose the same sound picture again and again.
    """
    return sorted(entries, key=lambda entry: claim.losses.get(str(entry.number), 0))


class _Pack:
    """One run of one pack: entries to outcomes, by number."""

    def __init__(  # noqa: PLR0917 - all that a run needs
        self, importer: Importer, hold: Hold, plan: Plan, pipeline: Pipeline, keeper: Keeper, reading: Reading
    ) -> None:
        self._importer = importer
        self._hold = hold
        self._plan = plan
        self._pipeline = pipeline
        self._keeper = keeper
        self._reading = reading
        self._root = bytes.fromhex(plan.spec["root"])
        self._seen: set[str] = set()
        self._outcomes: dict[int, Outcome] = {}

    def run(self, entries: Sequence[Entry]) -> dict[int, Outcome]:
        waiting = iter(entries)
        while read := self._read_some(waiting):
            self._run_some(read)
        _first_comes_first(self._outcomes)
        return self._outcomes

    def _read_some(self, waiting: Iterator[Entry]) -> dict[int, tuple[bytes, str]]:
        """The bytes and digests of the next readable entries, by number; those that cannot be read are settled here."""
        self._hold.put_down()
        read: dict[int, tuple[bytes, str]] = {}
        size = 0
        for entry in waiting:
            outcome = self._read(entry)
            if isinstance(outcome, bytes):
                read[entry.number] = (outcome, digest_of(outcome))
                size += len(outcome)
            else:
                self._outcomes[entry.number] = outcome
                self._hold.progress += 1
            if len(read) == CHUNK or size >= CHUNK_BYTES:
                break
        return read

    def _run_some(self, read: dict[int, tuple[bytes, str]]) -> None:
        known = self._importer.known(self._plan.need_gallery, [sha256 for _, sha256 in read.values()])
        for number, (data, sha256) in read.items():
            self._hold.take_in_hand(str(number))
            if sha256 in known or sha256 in self._seen:
                self._outcomes[number] = Held(sha256)
            else:
                self._outcomes[number] = self._make(data, sha256)
            self._hold.progress += 1

    def _read(self, entry: Entry) -> bytes | Failed | Dropped:
        if entry.drop is not None:
            return Dropped(entry.drop)
        if entry.problem is not None:
            return Failed(READ, "bulk.bad-line", entry.problem)
        if self._hold.claim.losses.get(str(entry.number), 0) >= MAX_LOSSES:
            return Failed(
                READ,
                "bulk.kills-workers",
                f"{MAX_LOSSES} workers were lost, one after the other, with this picture in hand",
            )
        try:
            return self._reading.read(entry.uri, self._hold.go_on)
        except BadInput as error:
            return Failed(READ, error.code, str(error))
        except OSError as error:
            self._require_source(error)
            return Failed(READ, "bulk.unreadable", f"{error.strerror}: {entry.uri}")

    def _require_source(self, error: OSError) -> None:
        """Broken if it is the source that cannot be read, not this picture."""
        if error.errno in ENVIRONMENT or not _has_something(self._root):
            raise Broken(
                "bulk.source-unavailable",
                f"{os.fsdecode(self._root)!r} cannot be read: {error.strerror}",
                hint="is the disk mounted and in order? the plan goes on by itself when it is back",
            ) from error

    def _make(self, data: bytes, sha256: str) -> Made | Failed:
        task = DECODE
        sifted: Sifted | None = None
        try:
            picture = self._pipeline.decode(data)
            task = CROP
            sifted = self._sift(self._pipeline.crop(picture))
            task = EMBED
            described = self._pipeline.describe_all(sifted.kept)
        except BadInput as error:
            return Failed(task, error.code, str(error), sifted and sifted.without_bytes())
        self._keeper.picture(data, sha256)
        places = [self._keeper.crop(sha256, number, crop) for number, crop in enumerate(sifted.kept)]
        self._seen.add(sha256)
        objects = tuple(zip(sifted.without_bytes().kept, described, places, strict=True))
        return Made(sha256, len(data), picture.width, picture.height, objects, sifted.dropped)

    def _sift(self, crops: Sequence[Cropped]) -> Sifted:
        reasons = [(crop, self._pipeline.reason(crop)) for crop in crops]
        return Sifted(
            tuple(crop for crop, reason in reasons if reason is None),
            tuple((crop.category or ledger.ALL, reason) for crop, reason in reasons if reason is not None),
        )


def _has_something(folder: bytes) -> bool:
    """Whether a folder can be read and holds anything: the mount point of a disk that is gone is empty."""
    try:
        with os.scandir(folder) as found:
            return next(found, None) is not None
    except OSError:
        return False


def _first_comes_first(outcomes: dict[int, Outcome]) -> None:
    """Of entries with the same picture the one with the least number brings it, in whatever order they ran."""
    makers = {one.sha256: number for number, one in outcomes.items() if isinstance(one, Made)}
    for number, one in sorted(outcomes.items()):
        if isinstance(one, Held) and number < (maker := makers.get(one.sha256, 0)):
            outcomes[number], outcomes[maker] = outcomes[maker], one
            makers[one.sha256] = number


# -- committing a pack ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Files:
    """What was kept of a pack's pictures, and its vectors by space."""

    kept: Kept
    vectors: Mapping[str, Blob]

    @property
    def digests(self) -> list[str]:
        return [*self.kept.digests, *(blob.digest for blob in self.vectors.values())]


@dataclass(frozen=True, slots=True)
class _Commit:
    """The one transaction of a pack. The pack is fenced and the gallery locked already, in this order."""

    tx: Tx
    now: float
    claim: Claim
    plan: Plan
    lens: Lens

    def write(self, entries: Sequence[Entry], outcomes: dict[int, Outcome], files: _Files) -> None:
        """Pictures, objects, items, quarantine, ledger and the end of the pack.

        Conflict `gallery.changed` if the gallery keeps other things of pictures than it did: the pack runs again.
        """
        if galleries.by_id(self.tx, self.plan.need_gallery).retention != files.kept.retention:
            raise Conflict("gallery.changed", "the gallery is to keep other things of its pictures now")
        places = _places(_made(outcomes), files, self.lens)
        final = _settle(self.tx, self.plan.need_gallery, outcomes)
        items = {entry.number: _item(entry, self.plan.day) for entry in entries}
        ids = self._stage(final, items, places)
        self._show(entries, final, items, ids)
        self._name(final, files)
        _write_quarantine(self.tx, self.claim, entries, final, self.now)
        held = [one.sha256 for one in final.values() if isinstance(one, Held)]
        elsewhere = galleries.staged_elsewhere(self.tx, self.plan.need_gallery, self.plan.id, held)
        lines = _lines(entries, final, self.plan.day, elsewhere, filtered=filters(self.lens))
        ledger.book(self.tx, self.plan.id, self.claim.pack, lines)
        leases.finish(self.tx, self.claim, self.now)

    def _name(self, final: dict[int, Outcome], files: _Files) -> None:
        """Write down what the pack has stored, as far as something made of it is left."""
        made = {one.sha256 for one in _made(final)}
        if not made:
            return
        for blob, kind in files.kept.named:
            if kind != "original" or blob.digest in made:
                add_blob(self.tx, blob, kind, self.now)
        for blob in files.vectors.values():
            add_blob(self.tx, blob, "vectors", self.now)

    def _stage(
        self, final: dict[int, Outcome], items: dict[int, Item], places: dict[str, tuple[NewObject, ...]]
    ) -> dict[str, int]:
        """SHA-256 to picture id of all that is made or held."""
        new = [
            NewPicture(one.sha256, one.size, one.width, one.height, items[number], places.get(one.sha256, ()))
            for number, one in sorted(final.items())
            if isinstance(one, Made)
        ]
        gallery = self.plan.need_gallery
        ids = galleries.stage(self.tx, gallery, self.plan.id, new, space=self.lens.space, model="")
        held = [one.sha256 for one in final.values() if isinstance(one, Held) and one.sha256 not in ids]
        return ids | galleries.known_pictures(self.tx, gallery, held)

    def _show(
        self, entries: Sequence[Entry], final: dict[int, Outcome], items: dict[int, Item], ids: dict[str, int]
    ) -> None:
        shown = [(items[n], ids[one.sha256]) for n, one in sorted(final.items()) if isinstance(one, Held | Made)]
        undated = {entry.id for entry in entries if entry.day is None}
        unflagged = {entry.id for entry in entries if entry.off_shelf is None}
        gallery, plan = self.plan.need_gallery, self.plan.id
        stage_items(self.tx, gallery, plan, shown, undated=undated, unflagged=unflagged)


def _made(outcomes: dict[int, Outcome]) -> list[Made]:
    return [one for _, one in sorted(outcomes.items()) if isinstance(one, Made)]


def _settle(tx: Tx, gallery: int, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
    """The outcomes under the gallery's lock: what another pack has staged meanwhile is held, not made.

    Conflict `gallery.changed` if a picture that the gallery held has been released since: the pack runs again.
    """
    sha256s = [one.sha256 for one in outcomes.values() if isinstance(one, Made | Held)]
    known = galleries.known_pictures(tx, gallery, sha256s)
    final = {
        number: Held(one.sha256) if isinstance(one, Made) and one.sha256 in known else one
        for number, one in outcomes.items()
    }
    made = {one.sha256 for one in final.values() if isinstance(one, Made)}
    if lost := {one.sha256 for one in final.values() if isinstance(one, Held)} - made - set(known):
        raise Conflict("gallery.changed", f"{len(lost)} pictures were released by another plan meanwhile")
    return final


def _places(made: Sequence[Made], files: _Files, lens: Lens) -> dict[str, tuple[NewObject, ...]]:
    """The objects of each picture, with where their crops and vectors lie."""
    rows = Counter[str]()
    return {
        one.sha256: tuple(_new_object(*found, files=files, lens=lens, rows=rows) for found in one.objects)
        for one in made
    }


def _new_object(
    crop: Cropped, described: Described, place: Place | None, *, files: _Files, lens: Lens, rows: Counter[str]
) -> NewObject:
    """`rows` counts how many vectors of each space came before this one."""
    vector = None
    if described.vector is not None:
        space = described.vector.space
        vector = (files.vectors[space].digest, rows[space])
        rows[space] += 1
    return NewObject(
        box=crop.box,
        score=crop.score,
        category=crop.category,
        labels=described.labels,
        crop=files.kept.crop(place),
        vector=vector,
        attributes=attributes_of(crop, described),
        cut=None if crop.cut == crop.box else crop.cut,
        landmarks=crop.landmarks,
        text=described.text,
        space=None if described.vector is None else described.vector.space,
        model=lens.labeller_of(crop.category),
    )


def _item(entry: Entry, day: str) -> Item:
    return Item(
        key=entry.id,
        uri=entry.uri,
        day=entry.day or day,
        title=entry.title,
        price=entry.price,
        shop=entry.shop,
        data=entry.data,
        off_shelf=bool(entry.off_shelf),
    )


def _lines(
    entries: Sequence[Entry],
    outcomes: dict[int, Outcome],
    plan_day: str,
    elsewhere: Mapping[str, int],
    *,
    filtered: bool,
) -> list[ledger.Line]:
    tally = ledger.Tally()
    for entry in entries:
        day = entry.day or plan_day
        match outcomes[entry.number]:
            case Dropped(reason):
                tally.dropped(READ, day, reason)
            case Held(sha256):
                tally.dropped(READ, day, f"{WAITS}{elsewhere[sha256]}" if sha256 in elsewhere else KNOWN)
            case Failed() as failed:
                _count_failed(tally, failed, day, filtered=filtered)
            case Made() as made:
                _count_made(tally, made, day, filtered=filtered)
    return tally.lines()


def _count_failed(tally: ledger.Tally, failed: Failed, day: str, *, filtered: bool) -> None:
    """A picture that failed in a task has passed those before it. Its objects fail with it."""
    sifted = failed.sifted or Sifted((), ())
    for task in (READ, DECODE, CROP):
        if task == failed.task:
            tally.failed(task, day)
            return
        tally.passed(task, day, made=len(sifted.kept) + len(sifted.dropped) if task == CROP else 0)
    _count_sifted(tally, sifted, day, filtered=filtered)
    for crop in sifted.kept:
        tally.failed(EMBED, day, category=crop.category)


def _count_made(tally: ledger.Tally, made: Made, day: str, *, filtered: bool) -> None:
    tally.passed(READ, day)
    tally.passed(DECODE, day)
    sifted = Sifted(tuple(crop for crop, _, _ in made.objects), made.dropped)
    tally.passed(CROP, day, made=len(sifted.kept) + len(sifted.dropped))
    _count_sifted(tally, sifted, day, filtered=filtered)
    for crop in sifted.kept:
        tally.passed(EMBED, day, made=1, category=crop.category)


def _count_sifted(tally: ledger.Tally, sifted: Sifted, day: str, *, filtered: bool) -> None:
    if not filtered:
        return
    for crop in sifted.kept:
        tally.passed(FILTER, day, category=crop.category)
    for category, reason in sifted.dropped:
        tally.dropped(FILTER, day, reason, category=category)


def _write_quarantine(tx: Tx, claim: Claim, entries: Sequence[Entry], outcomes: dict[int, Outcome], now: float) -> None:
    rows: list[dict[str, Any]] = [
        {
            "plan": claim.plan,
            "number": entry.number,
            "entry": entry.id,
            "pack": claim.pack,
            "uri": entry.uri,
            "task": failed.task,
            "code": failed.code,
            "message": failed.message,
            "at": now,
        }
        for entry in entries
        if isinstance(failed := outcomes[entry.number], Failed)
    ]
    if rows:
        tx.execute(sa.insert(quarantine), rows)
