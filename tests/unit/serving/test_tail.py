"""An engine's copy of the tail: whatever came in whatever steps, a question sees what its sequence allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens import gallery as galleries
from relens.errors import Conflict
from relens.gallery import deleting
from relens.gallery import tail as rows
from relens.gallery.tail import TailRow
from relens.serving.tail import Tail
from relens.store import Catalog
from relens.testing.rows import SPACE, a_gallery, a_picture

DIM = 4
DAYS = ("2025-06-01", "2025-06-02")
RANDOM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture
def catalog(sqlite_files):
    catalog = Catalog(sqlite_files.ready())
    yield catalog
    catalog.close()


class Plain:
    """A gallery beside the catalog: what every sequence added and deleted."""

    def __init__(self, catalog):
        self._catalog = catalog
        with catalog.begin() as tx:
            self._names = len(galleries.every(tx))
            self.gallery = a_gallery(tx, f"album-{self._names}").id
        self.added = {}  # id -> (sequence, day, category, vector)
        self.deleted = {}  # id -> sequence

    def add(self, day, category):
        vector = np.random.default_rng(len(self.added)).normal(size=DIM).astype(np.float16)
        with self._catalog.begin() as tx:
            galleries.lock(tx, self.gallery)
            sequence = galleries.take_sequence(tx, self.gallery)
            picture = a_picture(f"{self.gallery} {len(self.added)}", day=day, category=category)
            _, (one,) = galleries.add(tx, self.gallery, sequence, picture)
            rows.append(tx, self.gallery, [TailRow(one, SPACE, sequence, category, day, vector.tobytes())])
        self.added[one] = (sequence, day, category, vector.astype(np.float32))

    def delete(self, number):
        alive = [one for one in self.added if one not in self.deleted]
        if not alive:
            return
        one = alive[number % len(alive)]
        with self._catalog.begin() as tx:
            galleries.lock(tx, self.gallery)
            sequence = galleries.take_sequence(tx, self.gallery)
            deleting.delete_objects(tx, self.gallery, [one], sequence)
        self.deleted[one] = sequence

    @property
    def sequence(self):
        return len(self.added) + len(self.deleted)

    def rows(self, after, upto):
        return {
            (one, day, category, tuple((vector / np.linalg.norm(vector)).round(3).tolist()))
            for one, (sequence, day, category, vector) in self.added.items()
            if after < sequence <= upto
        }

    def dead(self, after, upto):
        return {one for one, sequence in self.deleted.items() if after < sequence <= upto}


def rows_of(tail, after, upto):
    found = set()
    for segment in tail.segments(after, upto):
        about = segment.manifest
        assert (about.space, about.dim, about.count) == (SPACE, DIM, len(segment.ids))
        assert np.all(np.diff(segment.ids) > 0)
        for one, vector in zip(segment.ids, segment.vectors, strict=True):
            found.add((int(one), about.day, about.category, tuple(vector.round(3).tolist())))
    return found


STEP = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(DAYS), st.sampled_from(["shoes", "hats"])),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("read")),
    st.tuples(st.just("forget"), st.integers(0, 9)),
)


@settings(max_examples=25, **RANDOM)
@given(steps=st.lists(STEP, max_size=30))
def test_what_is_cut_out_by_sequence_is_what_was_there_then(catalog, steps):
    plain = Plain(catalog)
    tail = Tail(plain.gallery, {SPACE}, after=0, dead_after=0)
    for kind, *how in steps:
        if kind == "add":
            plain.add(*how)
        elif kind == "delete":
            plain.delete(*how)
        elif kind == "forget":
            after = min(tail.after + how[0], tail.seen)
            tail.forget(after=after, dead_after=after)
        else:
            with catalog.read() as tx:
                tail.read(tx, plain.sequence)
        for upto in range(tail.after, tail.seen + 1):
            for after in (tail.after, (tail.after + upto) // 2):
                assert rows_of(tail, after, upto) == plain.rows(after, upto)
                assert set(tail.dead(after, upto)[0].tolist()) == plain.dead(after, upto)


def test_what_was_cut_out_stays_as_it_was_while_more_comes(catalog):
    plain = Plain(catalog)
    tail = Tail(plain.gallery, {SPACE}, after=0, dead_after=0)
    cuts = []
    for _ in range(150):
        plain.add(DAYS[0], "shoes")
        with catalog.read() as tx:
            tail.read(tx, plain.sequence)
        (segment,) = tail.segments(0, tail.seen)
        cuts.append((segment, segment.ids.copy(), segment.vectors.copy()))
    for segment, ids, vectors in cuts:
        assert np.array_equal(segment.ids, ids)
        assert np.array_equal(segment.vectors, vectors)


def test_rows_that_were_forgotten_meanwhile_are_known_to_be_missing(catalog):
    plain = Plain(catalog)
    tail = Tail(plain.gallery, {SPACE}, after=0, dead_after=0)
    for _ in range(5):
        plain.add(DAYS[0], "shoes")
    with catalog.begin() as tx:
        galleries.lock(tx, plain.gallery)
        rows.forget(tx, plain.gallery, 3)
        tail.read(tx, 5)
    assert tail.after == 3
    assert rows_of(tail, 3, 5) == plain.rows(3, 5)


def test_a_sequence_that_the_gallery_has_not_reached_is_refused(catalog):
    plain = Plain(catalog)
    tail = Tail(plain.gallery, {SPACE}, after=0, dead_after=0)
    plain.add(DAYS[0], "shoes")
    with catalog.read() as tx, pytest.raises(Conflict) as caught:
        tail.read(tx, 2)
    assert caught.value.code == "serving.too-old"
