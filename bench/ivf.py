"""Approximate search beside bare faiss: searching, joining day parts, and searching among few allowed rows.

The rows are made: 300 points drawn at random in 32 dimensions, a row near one of them (as far from it as the points are
from each other's middle), turned to the full length at random, a little noise added to every value, and brought to unit
length. Asked are rows drawn in the same way that are in no index; recall is of the ten nearest to them.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench.clock import in_turn
from bench.figures import Figure, Report, Setup, at_least, microseconds, milliseconds
from relens.store import LocalBlobs
from relens.values import Floats, Vector
from relens.vectors import (
    Hits,
    Ids,
    Index,
    Quantizer,
    Searchable,
    Segment,
    build_index,
    build_segment,
    choose_nlist,
    merge_indexes,
    open_index,
    open_segment,
    search,
    train_quantizer,
)

DIM, K, SPACE = 512, 10, "bench"
CENTRES, INNER, NOISE = 300, 32, 0.1
SAMPLE_PER_LIST = 64
ENOUGH = 0.95
SEARCH_LEAST, MERGE_LEAST, JOIN_LEAST = 0.9, 10, 0.8
SHARES = (0.5, 0.1, 0.01)


def measure(setup: Setup) -> Report:
    reports = []
    for part in (searching, merging, joining):
        with tempfile.TemporaryDirectory(dir=setup.folder) as folder:
            reports.append(part(setup, LocalBlobs(Path(folder))))
    return Report(
        tuple(figure for report in reports for figure in report.figures),
        {title: rows for report in reports for title, rows in report.parts.items()},
        tuple(remark for report in reports for remark in report.remarks),
    )


@dataclass(frozen=True)
class Rows:
    """Rows that can be drawn without end, all from one distribution."""

    dim: int
    rng: np.random.Generator
    centres: Floats
    turn: Floats

    @classmethod
    def of(cls, dim: int) -> Rows:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((CENTRES, INNER), dtype=np.float32)
        turn = rng.standard_normal((INNER, dim), dtype=np.float32) / np.float32(INNER**0.5)
        return cls(dim, rng, centres, turn)

    def draw(self, count: int) -> Floats:
        inner = self.centres[self.rng.integers(0, CENTRES, count)]
        inner += self.rng.standard_normal((count, INNER), dtype=np.float32)
        rows = inner @ self.turn + np.float32(NOISE) * self.rng.standard_normal((count, self.dim), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def searching(setup: Setup, blobs: LocalBlobs) -> Report:
    """One search after the other, at the same recall; and among few allowed rows."""
    count, queries, rounds = setup.choose(100_000, 30_000), setup.choose(500, 200), setup.choose(15, 5)
    rows = Rows.of(DIM)
    segment = stored(blobs, 0, rows.draw(count))
    quantizer = trained(blobs, [segment], count)
    index = open_index(blobs, build_index(blobs, quantizer, [segment]).digest, verify=True)
    asked = [Vector(SPACE, row) for row in rows.draw(queries)]
    truth = [search([segment], query, K).ids for query in asked]
    bare = in_memory(blobs, index)

    def theirs() -> list[Ids]:
        return [bare.search(query.values[None], K)[1][0] for query in asked]

    def ours(index: Index) -> Callable[[], list[Ids]]:
        searchable = Searchable([segment], indexes=[index])
        return lambda: [searchable.search(query, K).ids for query in asked]

    tight = reaching_less(index, lambda one: recall(ours(one)(), truth))
    spent, reached = {}, {}
    for name, one in (("tuned", tight), ("as measured", index)):
        reached[name] = recall(ours(one)(), truth)
        bare.nprobe = lists_for(bare, theirs, truth, reached[name] if one is index else ENOUGH)
        reached[f"bare, {name}"] = recall(theirs(), truth)
        spent |= in_turn({name: ours(one), f"bare, {name}": theirs}, rounds)
    ratio, usual = (spent[f"bare, {name}"] / spent[name] for name in ("tuned", "as measured"))
    figures = [
        Figure(
            f"approximate search, {count:,} x {DIM}, both tuned to recall {ENOUGH}",
            f"{queries / spent['tuned']:,.0f} queries/s of CPU",
            f"{queries / spent['bare, tuned']:,.0f} bare faiss",
            ratio,
            at_least(ratio, SEARCH_LEAST),
        ),
        Figure(
            f"the same untuned, recall {reached['as measured']:.3f}",
            f"{queries / spent['as measured']:,.0f} queries/s of CPU",
            f"{queries / spent['bare, as measured']:,.0f} bare faiss, recall {reached['bare, as measured']:.3f}",
            usual,
        ),
    ]
    searchable = Searchable([segment], indexes=[index])
    table = {f"{name}, recall {reached[name]:.3f}": microseconds(taken / queries) for name, taken in spent.items()}
    for share in SHARES:
        allowed = np.flatnonzero(rows.rng.random(count) < share)
        figure, row = narrowed(searchable, segment, asked, allowed, share=share)
        figures.append(figure)
        table |= row
    return Report(tuple(figures), {"Approximate search of one query, k = 10": table})


def narrowed(
    searchable: Searchable, segment: Segment, asked: Sequence[Vector], allowed: Ids, *, share: float
) -> tuple[Figure, dict[str, str]]:
    """Recall among allowed rows, and what it costs beside searching them exactly."""

    def found(find: Callable[[Vector], Hits]) -> tuple[list[Ids], float]:
        start = time.process_time()
        ids = [find(query).ids for query in asked]
        return ids, (time.process_time() - start) / len(asked)

    truth, exact_s = found(lambda query: search([segment], query, K, allowed=allowed))
    ours, ours_s = found(lambda query: searchable.search(query, K, allowed=allowed))
    reached = recall(ours, truth)
    what = f"recall of approximate search, {share * 100:g} % of the rows allowed"
    figure = Figure(what, f"{reached:.3f}", target=at_least(reached, ENOUGH))
    return figure, {f"{share * 100:g} % allowed (exact: {microseconds(exact_s)})": microseconds(ours_s)}


def merging(setup: Setup, blobs: LocalBlobs) -> Report:
    """Seven days joined, beside assigning and encoding their rows again with the same quantizer."""
    days, count, rounds = 7, setup.choose(50_000, 5_000), setup.choose(5, 3)
    rows = Rows.of(DIM)
    segments = [stored(blobs, day, rows.draw(count)) for day in range(days)]
    quantizer = trained(blobs, segments, days * count)
    parts = [open_index(blobs, build_index(blobs, quantizer, [one]).digest, verify=True) for one in segments]
    spent = in_turn(
        {
            "join": lambda: merge_indexes(blobs, parts, segments, remeasure=False),
            "join and measure": lambda: merge_indexes(blobs, parts, segments),
            "rebuild and measure": lambda: build_index(blobs, quantizer, segments),
        },
        rounds,
    )
    joined, rebuilt = merge_indexes(blobs, parts, segments), build_index(blobs, quantizer, segments)
    one, other = (Searchable(segments, indexes=[open_index(blobs, of.digest, verify=True)]) for of in (joined, rebuilt))
    asked = [Vector(SPACE, row) for row in rows.draw(100)]
    same = sum(one.search(query, K).ids.tolist() == other.search(query, K).ids.tolist() for query in asked)
    measuring_s = spent["join and measure"] - spent["join"]
    rebuild_s = spent["rebuild and measure"] - measuring_s
    ratio = rebuild_s / spent["join"]
    figure = Figure(
        f"{days} days of {count:,} x {DIM} joined to one index",
        milliseconds(spent["join"]),
        f"{milliseconds(rebuild_s)} to assign and encode them again",
        ratio,
        at_least(ratio, MERGE_LEAST),
    )
    measured = spent["rebuild and measure"] / spent["join and measure"]
    table = {name: milliseconds(seconds) for name, seconds in spent.items()}
    table |= {"rebuild / join, both with measuring": f"{measured:.1f}"}
    remark = (
        f"joined and rebuilt: {'the same' if joined == rebuilt else 'different'} bytes; {same} of 100 answers alike"
    )
    return Report((figure,), {"Joining day parts": table}, (remark,))


def joining(setup: Setup, blobs: LocalBlobs) -> Report:
    """A million short rows joined, beside faiss's own merge in memory and a digest of what it makes."""
    parts, count, dim, rounds = 4, setup.choose(250_000, 25_000), 128, setup.choose(9, 5)
    rows = Rows.of(dim)
    segments = [stored(blobs, part, rows.draw(count)) for part in range(parts)]
    quantizer = trained(blobs, segments, parts * count)
    indexes = [open_index(blobs, build_index(blobs, quantizer, [one]).digest, verify=True) for one in segments]
    written = blobs.location("bare")
    written.parent.mkdir(parents=True, exist_ok=True)
    spent: dict[str, list[float]] = {"join": [], "merge_into": [], "write": [], "hash": []}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.process_time()
        work()
        spent[name].append(time.process_time() - start)

    for _ in range(rounds):
        held = [in_memory(blobs, index) for index in indexes]
        into = faiss.clone_index(quantizer.empty)
        timed("merge_into", lambda into=into, held=held: [faiss.merge_into(into, one, False) for one in held])
        timed("write", lambda into=into: faiss.write_index(into, str(written)))
        timed("hash", lambda: digest(written))
        timed("join", lambda: merge_indexes(blobs, indexes, segments, remeasure=False))
    each = {name: float(np.median(times)) for name, times in spent.items()}
    bare_s = each["merge_into"] + each["hash"]
    ratio = bare_s / each["join"]
    figure = Figure(
        f"{parts * count:,} x {dim} joined, hashed and stored",
        milliseconds(each["join"]),
        f"{milliseconds(bare_s)} bare merge_into and hash, nothing stored",
        ratio,
        at_least(ratio, JOIN_LEAST),
    )
    return Report((figure,), {"Joining short rows": {name: milliseconds(seconds) for name, seconds in each.items()}})


def stored(blobs: LocalBlobs, day: int, rows: Floats) -> Segment:
    """A segment of a day, mapped."""
    ids = np.arange(len(rows)) + day * len(rows)
    manifest = build_segment(
        blobs,
        gallery=1,
        category="all",
        day=f"2025-01-{day + 1:02}",
        space=SPACE,
        as_of=1,
        parts=[(ids, rows)],
        count=len(rows),
        dim=rows.shape[1],
    )
    return open_segment(blobs, manifest.digest, verify=True)


def trained(blobs: LocalBlobs, segments: Sequence[Segment], count: int) -> Quantizer:
    nlist = choose_nlist(count)
    every = max(count // (nlist * SAMPLE_PER_LIST), 1)
    sample = np.concatenate([segment.vectors[::every] for segment in segments])
    return train_quantizer(blobs, sample, gallery=1, space=SPACE, nlist=nlist, seed=1)


def in_memory(blobs: LocalBlobs, index: Index) -> Any:
    """The same index as faiss reads it by itself."""
    bare = faiss.read_index(str(blobs.path(index.quantizer.manifest.data)))
    lists = faiss.read_InvertedLists(faiss.FileIOReader(str(blobs.path(index.manifest.data))))
    bare.replace_invlists(lists, True)
    bare.ntotal = index.manifest.count
    return bare


def lists_for(bare: Any, find: Callable[[], list[Ids]], truth: list[Ids], enough: float) -> int:
    """The fewest lists with which bare faiss reaches a recall, or all."""
    bare.nprobe = 1
    while recall(find(), truth) < enough and bare.nprobe < bare.nlist:
        bare.nprobe += 1
    return int(bare.nprobe)


def reaching_less(index: Index, recall_of: Callable[[Index], float]) -> Index:
    """The index with the least reach that has recall enough."""
    low, high, best = 0.0, index.manifest.reach[0], index
    for _ in range(10):
        middle = (low + high) / 2
        tried = replace(index, manifest=replace(index.manifest, reach=(middle, *index.manifest.reach[1:])))
        if recall_of(tried) >= ENOUGH:
            high, best = middle, tried
        else:
            low = middle
    return best


def recall(found: Sequence[Ids], truth: Sequence[Ids]) -> float:
    return sum(len(set(one) & set(other)) for one, other in zip(found, truth, strict=True)) / sum(map(len, truth))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
