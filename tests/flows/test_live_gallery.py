"""Any sequence of enrolments, deletions, imports and upkeep, killed at any moment, answers like a plain list.

The list is searched by brute force in double precision. Two ask: an engine that lives through everything, and one that
is new each time.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relens import gallery as galleries
from relens import ledger
from relens.errors import Missing
from relens.store.schema import crops, labels, objects, pictures, staged_items, tail, vectors
from relens.testing.deaths import Killed, deadly
from relens.testing.moments import work
from relens.testing.pictures import draw
from relens.values import digest_of

SEEDS, KEYS, DAYS = range(1, 7), "abcd", ("2025-06-01", "2025-06-02")
QUERIES = (draw(50), draw(1))
MOMENTS = 15
SAME_SCORE = 1e-6


@dataclass
class Picture:
    """A picture of the list that is alive. `published`: somebody may find it; `dropped`: with its day."""

    seed: int
    day: str
    published: bool = False
    dropped: bool = False
    object: int | None = None


@dataclass
class Plain:
    """The list: what is there by the rules that people are told, without sequences, segments and views."""

    pictures: dict[int, Picture] = field(default_factory=dict)  # by seed
    items: dict[str, tuple[int, str]] = field(default_factory=dict)  # key -> seed and day
    staged: dict[str, tuple[int, str]] = field(default_factory=dict)  # of the open import
    dead: set[int] = field(default_factory=set)

    def enrol(self, key, seed, day):
        if seed not in self.pictures or not self.pictures[seed].published:
            self.pictures[seed] = Picture(seed, day, published=True)
        self.items[key] = (seed, day)
        self.release()

    def delete_item(self, key):
        del self.items[key]
        self.release()

    def delete_picture(self, seed):
        for table in (self.items, self.staged):
            for key in [key for key, (shown, _) in table.items() if shown == seed]:
                del table[key]
        self.bury(seed)

    def stage(self, entries):
        for key, seed, day in entries:
            self.pictures.setdefault(seed, Picture(seed, day))
            if self.items.get(key) != (seed, day):
                self.staged[key] = (seed, day)

    def seal(self):
        self.items |= self.staged
        self.staged = {}
        for one in self.pictures.values():
            one.published = True
        self.release()

    def drop(self, day):
        for one in self.pictures.values():
            one.dropped |= one.published and one.day == day

    def rebuild(self, day):
        for one in self.pictures.values():
            one.dropped &= one.day != day

    def release(self):
        shown = {seed for seed, _ in [*self.items.values(), *self.staged.values()]}
        for seed in set(self.pictures) - shown:
            self.bury(seed)

    def bury(self, seed):
        self.dead.add(self.pictures.pop(seed).object)

    @property
    def published(self):
        return [one for one in self.pictures.values() if one.published]


class Live:
    """A gallery of a home beside the list; what it is told, both do."""

    def __init__(self, home, old, worker, gallery, folder):
        self.home = home
        self.old = old
        self.worker = worker
        self.gallery = gallery
        self.folder = folder
        self.plain = Plain()
        self.open = None  # the import that is not sealed yet, and the entries that are to come
        self.waiting = []
        self.moments = []
        self.imports = itertools.count()
        self.run_import([("a", 1, DAYS[0])])

    # -- what can be done

    def enrol(self, key, seed, day):
        item = {"id": key, "day": day, "uri": self.uri(seed)}
        done = self.survive(lambda local: local.enrol(draw(seed), gallery=self.gallery, item=item))
        self.plain.enrol(key, seed, day)
        self.learn()
        assert done.objects == (self.plain.pictures[seed].object,)

    def delete_item(self, key):
        if key in self.plain.items:
            self.survive(lambda local: local.delete(self.gallery, items=[key]), gone=True)
            self.plain.delete_item(key)

    def delete_picture(self, seed):
        if self.is_shown(seed):
            self.survive(lambda local: local.delete(self.gallery, pictures=[digest_of(draw(seed))]), gone=True)
            self.plain.delete_picture(seed)

    def delete_object(self, seed):
        if self.is_shown(seed):
            one = self.plain.pictures[seed].object
            self.survive(lambda local: local.delete_object(one), gone=True)
            self.plain.delete_picture(seed)  # it was its only object

    def begin_import(self, entries, packs):
        """Packs of two entries; so many of them are worked off, then others go on."""
        if self.open is None:
            self.open, self.waiting = self.start_import(entries), entries
            if packs:
                done = min(packs, (len(entries) + 1) // 2)
                self.survive(lambda local: work(local, self.open, packs_done=done))
                self.plain.stage(entries[: 2 * done])
                self.waiting = entries[2 * done :]

    def end_import(self):
        if self.open is not None:
            plan, self.open = self.open, None
            self.survive(lambda local: local.work(plan))
            self.plain.stage(self.waiting)
            self.plain.seal()
            self.learn()
            assert self.worker.plan(plan)["state"] == "done"

    def run_import(self, entries):
        self.begin_import(entries, 0)
        self.end_import()

    def compact(self):
        self.upkeep(lambda local: local.compact(self.gallery))

    def drop_day(self, day):
        self.upkeep(lambda local: local.drop_day(self.gallery, day))
        self.plain.drop(day)

    def rebuild_day(self, day):
        self.upkeep(lambda local: local.rebuild_day(self.gallery, day))
        self.plain.rebuild(day)

    def purge(self):
        self.upkeep(lambda local: local.purge(self.gallery))
        with self.old.parts.catalog.read() as tx:
            for table in (crops, vectors, tail, labels):
                assert not self.plain.dead & set(tx.execute(sa.select(table.c.object)).scalars())

    def kill(self, *moments):
        """Whatever is done next dies at these moments, each in a life of its own."""
        self.moments = list(moments)

    # -- how it is done

    def survive(self, do, *, gone=False):
        """Do something again until nobody dies of it. With `gone`, it may be missing once somebody died."""
        moments, self.moments = self.moments, []
        deaths = 0
        with deadly(moments):
            while True:
                try:
                    return do(self.worker)
                except Killed:
                    deaths += 1
                except Missing:
                    if not (gone and deaths):
                        raise
                    return None

    def upkeep(self, start):
        shown = self.survive(lambda local: local.run(start(local)))
        assert shown["state"] == "done", shown

    def start_import(self, entries):
        path = self.folder / f"{self.gallery}-{next(self.imports)}.jsonl"
        lines = [json.dumps({"id": key, "uri": self.uri(seed), "day": day}) for key, seed, day in entries]
        path.write_text("\n".join(lines) + "\n")
        return self.worker.start_import(path, gallery=self.gallery).plan

    def uri(self, seed):
        path = self.folder / f"{seed}.jpg"
        if not path.exists():
            path.write_bytes(draw(seed))
        return f"file://{path}"

    def is_shown(self, seed):
        return seed in self.plain.pictures and self.plain.pictures[seed].published

    def learn(self):
        """The list learns which ids its pictures have been given; they were never given before."""
        with self.old.parts.catalog.read() as tx:
            here = galleries.get(tx, self.gallery).id
            for one in self.plain.published:
                if one.object is None:
                    where = (pictures.c.gallery == here, pictures.c.sha256 == digest_of(draw(one.seed)))
                    query = sa.select(objects.c.id).join(pictures).where(*where, ~pictures.c.released)
                    one.object = tx.execute(query).scalar_one()
                    assert one.object not in self.plain.dead

    # -- whether it is the same

    def check(self, said):
        for query in QUERIES:
            self.check_answer(self.old, query, said)
        shown = self.old.gallery(self.gallery)
        assert shown["counts"]["objects"] == len(self.plain.published)
        assert shown["counts"]["items"] == len(self.plain.items)
        for key, (seed, day) in self.plain.items.items():
            item = self.old.item(self.gallery, key)
            assert (item["picture"]["sha256"], item["day"]) == (digest_of(draw(seed)), day)
        for key in set(KEYS) - set(self.plain.items):
            with pytest.raises(Missing):
                self.old.item(self.gallery, key)

    def check_answer(self, local, query, said):
        alive = [one for one in self.plain.published if not one.dropped]
        scores = {one.object: float(said.of(one.seed) @ said.of_query(query)) for one in alive}
        best = sorted(scores, key=lambda one: (-scores[one], one))
        for k in (2, 1000):
            (found,) = local.search(query, gallery=self.gallery, k=k).objects
            given = {match.id: match.score for match in found.matches}
            assert len(given) == min(k, len(best))
            assert set(given) <= set(scores)
            for one, expected in zip(given, best, strict=False):
                assert given[one] == pytest.approx(scores[one], abs=SAME_SCORE)
                assert given[one] == pytest.approx(scores[expected], abs=SAME_SCORE)

    def check_all(self, said):
        """What is true when everything is over, also for who comes new."""
        self.check_answer(self.home.local(), QUERIES[0], said)
        self.end_import()
        self.check(said)
        local = self.home.local()
        self.check_answer(local, QUERIES[0], said)
        for one in self.plain.published:
            assert local.crop(one.object)
            assert local.object(one.object).picture.sha256 == digest_of(draw(one.seed))
        for one in self.plain.dead - {None}:
            with pytest.raises(Missing) as caught:
                local.object(one)
            assert caught.value.gone
        with self.old.parts.catalog.read() as tx:
            for plan in local.plans()["plans"]:
                assert plan["state"] == "done"
                assert ledger.unbalanced(tx, plan["id"]) == []
            assert not tx.execute(sa.select(staged_items)).all()


class Said:
    """What the model says of pictures, as it is kept: half precision, unit length again in double."""

    def __init__(self, local):
        self._pipeline = local.parts.pipeline(local.parts.book.lens("photos"))
        self._known = {}

    def of(self, seed):
        halves = self._of(draw(seed)).astype(np.float16).astype(np.float64)
        return halves / np.linalg.norm(halves)

    def of_query(self, data):
        return self._of(data).astype(np.float64)

    def _of(self, data):
        if data not in self._known:
            (crop,) = self._pipeline.crop(self._pipeline.decode(data))
            self._known[data] = self._pipeline.describe(crop).vector.values
        return self._known[data]


KEY, SEED, DAY = st.sampled_from(KEYS), st.sampled_from(SEEDS), st.sampled_from(DAYS)
ENTRIES = st.lists(st.tuples(KEY, SEED, DAY), min_size=1, max_size=4, unique_by=lambda entry: entry[0])
STEP = st.one_of(
    st.tuples(st.just("enrol"), KEY, SEED, DAY),
    st.tuples(st.just("enrol"), KEY, SEED, DAY),
    st.tuples(st.just("delete_item"), KEY),
    st.tuples(st.just("delete_picture"), SEED),
    st.tuples(st.just("delete_object"), SEED),
    st.tuples(st.just("begin_import"), ENTRIES, st.integers(0, 2)),
    st.tuples(st.just("end_import")),
    st.tuples(st.just("run_import"), ENTRIES),
    st.tuples(st.just("compact")),
    st.tuples(st.just("drop_day"), DAY),
    st.tuples(st.just("rebuild_day"), DAY),
    st.tuples(st.just("purge")),
    st.tuples(st.just("kill"), st.integers(1, MOMENTS)),
    st.tuples(st.just("kill"), st.integers(1, MOMENTS), st.integers(1, MOMENTS)),
)
RANDOM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture
def live(new_home, folder):
    """Makes galleries in one home, each beside a list of its own."""
    home = new_home(pack_size=2)
    old, worker = home.local(), home.local()
    said = Said(old)
    numbers = itertools.count()

    def run(steps):
        live = Live(home, old, worker, f"album-{next(numbers)}", folder)
        for name, *how in steps:
            getattr(live, name)(*how)
            live.check(said)
        live.check_all(said)

    return run


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
@settings(max_examples=16, **RANDOM)
@given(steps=st.lists(STEP, max_size=12))
def test_whatever_happens_it_answers_like_a_list(live, steps):
    live(steps)


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
@settings(max_examples=5, **RANDOM)
@given(steps=st.lists(STEP, max_size=12))
def test_the_same_on_a_server(live, steps):
    live(steps)
