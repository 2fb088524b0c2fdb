"""Windows and approximate indexes: which days of a gallery answer, and what makes a large one quick to search.

An index per segment is built once and kept; the index of a window is those of its segments, joined, which copies rows
and computes nothing. Centroids are learnt once per gallery and space, and anew only when that is asked for. Segments
stay the truth: whatever an index says is looked up in them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog

from relens import gallery as galleries
from relens import ledger, releases
from relens.bulk.importing import add_blob
from relens.errors import BadInput, Conflict
from relens.jobs import Claim, Hold, leases, pins, plans
from relens.jobs.plans import Pack, Plan, Task
from relens.releases import View
from relens.store import Blob, Blobs, Catalog, Tx
from relens.values import Floats, digest_of
from relens.vectors import (
    Check,
    Ids,
    IndexManifest,
    Quantizer,
    Segment,
    build_index,
    choose_nlist,
    merge_indexes,
    open_index,
    open_quantizer,
    open_segment,
    train_quantizer,
)

KIND = "window"
STAGE = "index"
TASK = "index"
AS_BEFORE = "as before"
MOST_DAYS = 36_500
SAMPLE_PER_LIST = 64
FEW = "searched-exactly"
"""Why a segment has no index: its category has so few rows that exact search serves it well."""

log = structlog.get_logger(__name__)


def plan_window(
    catalog: Catalog, gallery: str, *, days: int | str | None = AS_BEFORE, retrain: bool = False, least_rows: int
) -> tuple[int, bool]:
    """Write the plan that chooses a gallery's window and indexes it: its id, and whether it was there already.

    days        the newest so many days answer; None: all; AS_BEFORE: as it is now
    retrain     learn new centroids and build every index anew
    least_rows  a category with fewer is searched exactly
    """
    if not isinstance(days, str) and days is not None and not 1 <= days <= MOST_DAYS:
        raise BadInput("bulk.bad-window", f"{days} days are no window", hint=f"1 to {MOST_DAYS}, or all of them")
    with catalog.begin() as tx:
        found = galleries.get(tx, gallery)
        galleries.lock(tx, found.id)
        lens = releases.live_lens(tx, found)
        spec = {"days": days, "retrain": retrain, "least_rows": least_rows}
        key = digest_of({"gallery": found.id, **spec})
        unfinished = plans.find_unfinished(tx, KIND, key)
        if unfinished is not None:
            plans.resume(tx, unfinished)
            return unfinished, True
        now = catalog.now(tx)
        view = releases.head_of(tx, found.id, lens.digest)
        plan = plans.create(
            tx,
            kind=KIND,
            key=key,
            gallery=found.id,
            lens=lens.digest,
            spec=spec,
            day=dt.datetime.fromtimestamp(now).astimezone().date().isoformat(),
            todo=[Task(TASK, STAGE, "segment")],
            work=[Pack(STAGE, 1, {}, len(view.segments))],
            now=now,
        )
    return plan, False


def rows_without_index(tx: Tx, gallery: int, lens: str) -> dict[str, int]:
    """By category, how many rows of the newest view are searched exactly."""
    view = releases.head_of(tx, gallery, lens)
    covered = releases.covered_by(tx, view.indexes)
    counts: dict[str, int] = {}
    for digest, category, rows in releases.segment_rows(tx, releases.chosen(tx, view)):
        if digest not in covered:
            counts[category] = counts.get(category, 0) + rows
    return counts


@dataclass(frozen=True, slots=True)
class _Work:
    """What a window is made of when its plan begins."""

    plan: Plan
    view: View
    segments: Mapping[str, Sequence[Segment]]
    dead: Mapping[str, Ids]


@dataclass(frozen=True, slots=True)
class _Built:
    """What was built: quantizers, all indexes that are new, and those that the view gets."""

    quantizers: Sequence[Quantizer]
    indexes: Sequence[IndexManifest]
    over: Sequence[str]
    lines: Sequence[ledger.Line]


class Windower:
    """Handles the packs of windows."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    def __call__(self, hold: Hold) -> None:
        """Index what the window shows, and publish the view with it."""
        work = self._work(hold.claim)
        built = self._build(hold, work)
        stored = [digest for manifest in built.indexes for digest in (manifest.digest, manifest.data)]
        stored += [d for one in built.quantizers for d in (one.digest, one.manifest.data)]
        pins.pin(self._catalog, self._blobs, hold.claim, stored)
        with self._catalog.begin() as tx:
            leases.fence(tx, hold.claim)
            self._commit(tx, hold.claim, work, built)

    def _work(self, claim: Claim) -> _Work:
        with self._catalog.read() as tx:
            plan = plans.get(tx, claim.plan)
            head = releases.head_of(tx, plan.need_gallery, plan.need_lens)
            view = head if plan.spec["days"] == AS_BEFORE else replace(head, window_days=plan.spec["days"])
            chosen = releases.chosen(tx, view)
            now = galleries.by_id(tx, plan.need_gallery).sequence
            opened = [open_segment(self._blobs, digest, verify=False) for digest in chosen]
            dead = {
                one.digest: galleries.dead_since(tx, plan.need_gallery, one.manifest.as_of, now)[0] for one in opened
            }
        categories = sorted({one.manifest.category for one in opened})
        by_category = {name: [one for one in opened if one.manifest.category == name] for name in categories}
        return _Work(plan, view, by_category, dead)

    def _build(self, hold: Hold, work: _Work) -> _Built:
        quantizers: dict[str, Quantizer] = {}
        made: list[IndexManifest] = []
        over: list[str] = []
        lines: list[ledger.Line] = []
        for category, segments in work.segments.items():
            rows = sum(len(segment.ids) for segment in segments)
            few = rows < work.plan.spec["least_rows"]
            if not few:
                space = segments[0].manifest.space
                if space not in quantizers:
                    quantizers[space] = self._quantizer(work, space)
                joined, new = self._index(hold, work, segments, quantizers[space])
                made += new
                over.append(joined)
            lines += _lines(category, segments, few=few)
        return _Built(list(quantizers.values()), made, over, lines)

    def _quantizer(self, work: _Work, space: str) -> Quantizer:
        """The one that the gallery has for a space, or a new one."""
        if not work.plan.spec["retrain"]:
            with self._catalog.read() as tx:
                known = releases.newest_quantizer(tx, work.plan.need_gallery, space)
            if known is not None:
                return open_quantizer(self._blobs, known)
        segments = [one for some in work.segments.values() for one in some if one.manifest.space == space]
        rows = sum(len(one.ids) for one in segments)
        nlist = choose_nlist(rows)
        log.info("learning centroids", gallery=work.plan.need_gallery, rows=rows, lists=nlist)
        sample = np.concatenate(list(_sampled(segments, nlist * SAMPLE_PER_LIST / max(rows, 1))))
        return train_quantizer(
            self._blobs,
            sample,
            gallery=work.plan.need_gallery,
            space=space,
            nlist=min(nlist, len(sample)),
            seed=work.plan.id,
        )

    def _index(
        self, hold: Hold, work: _Work, segments: Sequence[Segment], quantizer: Quantizer
    ) -> tuple[str, list[IndexManifest]]:
        """The index over all segments of a category, by digest, and what had to be built for it."""
        with self._catalog.read() as tx:
            known = releases.known_indexes(tx, work.plan.need_gallery, quantizer.digest)
        alone = {covers[0]: digest for digest, covers in known.items() if len(covers) == 1}
        new: list[IndexManifest] = []
        parts: list[str] = []
        for segment in segments:
            hold.take_in_hand(f"segment {segment.digest}")
            if segment.digest not in alone:
                new.append(build_index(self._blobs, quantizer, [segment], dead=work.dead))
                alone[segment.digest] = new[-1].digest
            parts.append(alone[segment.digest])
            hold.progress += 1
        if len(parts) == 1:
            return parts[0], new
        opened = [open_index(self._blobs, digest, verify=True) for digest in parts]
        joined = merge_indexes(self._blobs, opened, segments, dead=work.dead)
        return joined.digest, [*new, joined]

    def _commit(self, tx: Tx, claim: Claim, work: _Work, built: _Built) -> None:
        plan = work.plan
        galleries.lock(tx, plan.need_gallery)
        now = self._catalog.now(tx)
        if releases.head_of(tx, plan.need_gallery, plan.need_lens).id != work.view.id:
            raise Conflict("gallery.changed", "another view was published meanwhile; the window is made for that one")
        for quantizer in built.quantizers:
            manifest = quantizer.manifest
            add_blob(tx, Blob(quantizer.digest, self._blobs.size(quantizer.digest)), "quantizer", now)
            add_blob(tx, Blob(manifest.data, manifest.data_bytes), "quantizer-data", now)
            releases.add_quantizer(tx, manifest, now)
        for index in built.indexes:
            add_blob(tx, Blob(index.digest, self._blobs.size(index.digest)), "index", now)
            add_blob(tx, Blob(index.data, index.data_bytes), "index-data", now)
        releases.add_indexes(tx, built.indexes, now)
        sequence = galleries.take_sequence(tx, plan.need_gallery)
        view = releases.publish(
            tx,
            galleries.by_id(tx, plan.need_gallery),
            plan.need_lens,
            plan=plan.id,
            parent=work.view,
            sequence=sequence,
            adds=(),
            new_indexes=built.over,
            window_days=work.view.window_days,
            checks=_checks(built),
            now=now,
        )
        ledger.book(tx, plan.id, claim.pack, built.lines)
        plans.end(tx, plan.id, "done", now, sequence=sequence, view=view.id)
        leases.finish(tx, claim, now)


def _sampled(segments: Sequence[Segment], share: float) -> Iterator[Floats]:
    """Rows of all segments, evenly spread, about this share of them."""
    step = max(1, int(1 / max(share, 1e-9)))
    for number, segment in enumerate(segments):
        yield np.asarray(segment.vectors[number % step :: step])


def _checks(built: _Built) -> list[Check]:
    return [
        Check(
            "recall",
            True,
            f"{index.category}: {index.recall:.3f} of the ten nearest among {index.count} rows; "
            f"lists are {index.imbalance:.2f} times as costly as equal ones",
        )
        for index in built.indexes
        if index.digest in built.over
    ]


def _lines(category: str, segments: Sequence[Segment], *, few: bool) -> list[ledger.Line]:
    days: dict[str, int] = {}
    for segment in segments:
        days[segment.manifest.day] = days.get(segment.manifest.day, 0) + 1
    return [
        ledger.Line(
            TASK,
            count,
            0 if few else count,
            category=category,
            day=day,
            dropped={FEW: count} if few else {},
            made=0 if few else count,
        )
        for day, count in sorted(days.items())
    ]
