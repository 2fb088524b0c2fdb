"""Traffic between made-up versions: who is asked, and what comes of failures, slowness, shadows and other spaces."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import structlog

from relens.errors import BadInput, Broken, Busy, Missing, RelensError
from relens.serving import shadows
from relens.serving.served import Looked, Named, VersionStatus, status_of
from relens.serving.splits import Rollback, Split
from relens.serving.traffic import Traffic
from relens.telemetry import REGISTRY
from relens.testing.served import MadeUpModels

ROWS = {"x": np.array([[1, 2, 3, 4]], np.float32)}
FAILED = Broken("runtimes.run-failed", "the model failed")
HALVES = {"stable": 1, "canary": 1}


class Versions(MadeUpModels):
    """`scale` with versions 1 and up, each available; version v multiplies by v.

    `fails` has errors by version, raised instead of an answer; `took_s` what an answer takes by the clock; `hangs` the
    versions that never answer. `spaces` has the space of each version's vectors.
    """

    def __init__(self, *available, labels=None):
        super().__init__()
        self.available = list(available) or [1, 2]
        self.named = labels or {"stable": 1, "canary": 2}
        self.fails, self.took_s, self.hangs, self.spaces = {}, {}, set(), {}
        self.time = 0.0
        self.asked_of = Counter()
        self.waits = []

    def models(self):
        return ["scale"]

    def versions(self, model):
        if model != "scale":
            raise Missing("serving.no-model", f"there is no model {model}")
        return [VersionStatus(version, "AVAILABLE") for version in sorted(self.available, reverse=True)]

    def labels(self, model):
        self.versions(model)
        return {label: version for label, version in self.named.items() if version in self.available}

    def describe(self, named):
        served = super().describe(named)
        return replace(served, space=self.spaces.get(served.version))

    async def infer(self, named, inputs, *, outputs=(), timeout_s=None):
        version = await self._asked(named, timeout_s)
        made = await super().infer(named, inputs, outputs=outputs, timeout_s=timeout_s)
        assert made.version == version
        return made

    async def recognize(self, named, picture, looked, *, timeout_s=None):
        await self._asked(named, timeout_s)
        return await super().recognize(named, picture, looked, timeout_s=timeout_s)

    async def _asked(self, named, timeout_s):
        version = self.describe(named).version
        self.asked_of[version] += 1
        self.waits.append((version, timeout_s))
        self.time += self.took_s.get(version, 0.0)
        if version in self.hangs:
            await asyncio.Event().wait()
        if version in self.fails:
            raise self.fails[version]
        return version

    async def open(self):
        pass

    async def close(self):
        pass


def traffic(server, weights=HALVES, *, seed=7, **split):
    return Traffic(
        server,
        {"scale": Split(weights, **split)},
        wait_s=30.0,
        source=random.Random(seed),
        clock=lambda: server.time,
        now=lambda: 1.8e9,
    )


async def ask(server, rows=ROWS, **named):
    """The version that answered."""
    return (await server.infer(Named("scale", **named), rows)).version


async def ask_often(server, count, **named):
    return Counter([await ask(server, **named) for _ in range(count)])


def told(server, version):
    """What is said of a version's traffic."""
    [model] = status_of(server)
    return next(one for one in model["versions"] if one["version"] == version).get("traffic")


def shadowed(server, version):
    return told(server, version).get("shadow", {})


def run(work):
    return asyncio.run(work)


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


# -- who is asked ---------------------------------------------------------------------------------------------------


def test_requests_are_split_by_weight_and_those_that_name_a_version_are_not():
    async def work():
        made = Versions(1, 2, 3)
        server = traffic(made, {"stable": 80, "canary": 20})
        counts = await ask_often(server, 2000)
        assert abs(counts[2] - 400) <= 4 * math.sqrt(2000 * 0.2 * 0.8)
        assert counts.keys() == {1, 2}
        assert await ask_often(server, 5, version=3) == {3: 5}
        assert await ask_often(server, 5, label="canary") == {2: 5}
        assert told(server, 1) == {"share": 0.8, "answered": counts[1], "failed": 0}
        assert told(server, 3) is None

    run(work())


def test_versions_may_be_named_by_number():
    async def work():
        server = traffic(Versions(1, 2, 3), {"2": 1, "3": 1})
        assert (await ask_often(server, 50)).keys() == {2, 3}

    run(work())


def test_the_same_caller_is_answered_by_the_same_version_at_every_use():
    async def work():
        server = traffic(Versions())
        given = {}
        for caller in map(str, range(40)):
            versions = await ask_often(server, 5, sticky=caller)
            [given[caller]] = versions
            assert server.describe(Named("scale", sticky=caller)).version == given[caller]
            seen = await server.recognize(Named("scale", sticky=caller), b"", Looked())
            assert seen.version == given[caller]
        assert set(given.values()) == {1, 2}

    run(work())


def test_what_is_chosen_once_is_described_and_asked_alike():
    async def work():
        server = traffic(Versions())
        for _ in range(20):
            chosen = server.choose(Named("scale"))
            assert chosen.chosen
            assert server.choose(chosen) == chosen
            assert server.describe(chosen).version == chosen.version == (await server.infer(chosen, ROWS)).version
        assert server.describe(Named("scale")).version == 1  # of whom nobody is asked yet, the stable one
        for named in (Named("scale", 2), Named("scale", label="canary"), Named("other")):
            assert server.choose(named) == named

    run(work())


def test_what_is_not_available_leaves_its_part_to_the_others():
    async def work():
        made = Versions(1, 3, labels={"stable": 1, "canary": 2, "third": 3})
        server = traffic(made, {"stable": 1, "canary": 8, "third": 1})
        assert (await ask_often(server, 50)).keys() == {1, 3}
        made.available = [2, 3]
        assert (await ask_often(server, 50)).keys() == {2, 3}
        made.available = [5, 4]
        assert await ask_often(server, 5) == {5: 5}
        made.available = []
        with pytest.raises(Busy):
            await ask(server)

    run(work())


def test_a_version_that_has_just_ended_is_not_insisted_on():
    async def work():
        made = Versions()
        server = traffic(made)
        for version in (1, 2):
            chosen = Named("scale", version, chosen=True)
            server.choose(Named("scale"))
            made.available = [3 - version]
            assert server.describe(chosen).version == 3 - version
            assert (await server.infer(chosen, ROWS)).version == 3 - version
            assert told(server, 3 - version)["failed"] == 0
            made.available = [1, 2]

    run(work())


def test_models_that_are_not_split_are_served_as_they_are():
    async def work():
        made = MadeUpModels()
        server = Traffic(made, {"scale": Split({"1": 1})}, wait_s=30.0)
        assert server.choose(Named("letters")) == Named("letters")
        assert (await server.infer(Named("letters"), {"text": np.array([b"a"], object)})).version == 1
        assert all("traffic" not in one for model in status_of(server)[:2] for one in model["versions"])
        with pytest.raises(Missing):
            server.describe(Named("nobody"))
        server.configure({})
        assert made.configured == {}
        assert server.labels("scale") == {"stable": 2}

    run(work())


# -- canaries that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [FAILED, Busy("runtimes.queue-full", "too much waits"), BadInput("runtimes.wrong-inputs", "it takes 5")],
    ids=["broken", "busy", "bad input"],
)
def test_what_a_canary_fails_the_stable_version_answers_until_it_is_rolled_back(error, logged):
    async def work():
        made = Versions()
        made.fails = {2: error}
        server = traffic(made, rollback=Rollback(errors=0.05, requests=100))
        assert await ask_often(server, 100) == {1: 100}
        assert made.asked_of == {1: 100, 2: 6}
        assert told(server, 2) == {
            "share": 0.0,
            "answered": 0,
            "failed": 6,
            "why": "6 of 6 requests failed; the limit is 0.05 of 100",
            "since": 1.8e9,
        }
        assert told(server, 1) == {"share": 1.0, "answered": 100, "failed": 0}
        [line] = [line for line in logged if line["event"] == "a canary is rolled back"]
        assert (line["version"], line["stable"], line["log_level"]) == (2, 1, "error")

    before = counted("relens_model_rollbacks_total", version="2"), counted("relens_model_retries_total", version="2")
    run(work())
    after = counted("relens_model_rollbacks_total", version="2"), counted("relens_model_retries_total", version="2")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 6)


def test_a_rolled_back_canary_stays_so_although_it_is_well_again_until_another_has_its_label():
    async def work():
        made = Versions(1, 2)
        made.fails = {2: FAILED}
        server = traffic(made, rollback=Rollback(errors=0.0))
        await ask_often(server, 20)
        made.fails = {}
        made.available = [1]
        await ask_often(server, 5)
        made.available = [1, 2, 3]
        assert await ask_often(server, 100) == {1: 100}
        assert await ask(server, label="canary") == 2
        made.named = {"stable": 1, "canary": 3}
        assert (await ask_often(server, 50)).keys() == {1, 3}
        made.named = {"stable": 3, "canary": 2}  # compared with another version it is a new canary
        assert (await ask_often(server, 50)).keys() == {2, 3}

    run(work())


def test_all_goes_to_the_stable_version_even_if_it_was_to_have_nothing():
    async def work():
        made = Versions()
        made.fails = {2: FAILED}
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=0.0))
        assert await ask_often(server, 10) == {1: 10}
        assert made.asked_of == {2: 1, 1: 10}

    run(work())


def test_a_request_that_both_fail_is_no_fault_of_the_canary():
    async def work():
        made = Versions()
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=0.0))
        for error, family in ((FAILED, Broken), (BadInput("runtimes.wrong-inputs", "too long"), BadInput)):
            made.fails = {1: error, 2: error}
            with pytest.raises(family):
                await ask(server)
        assert told(server, 2)["failed"] == 0
        assert told(server, 2)["share"] == 1

    run(work())


def test_a_request_that_was_made_for_the_canary_tells_the_canarys_error():
    async def work():
        made = Versions()
        made.fails = {2: FAILED, 1: BadInput("runtimes.wrong-inputs", "it takes 4")}
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=0.5, requests=2))
        with pytest.raises(Broken, match="the model failed"):
            await ask(server)
        assert told(server, 2)["failed"] == 1

    run(work())


def test_a_canary_has_half_of_the_time_and_what_it_leaves_is_the_stable_versions():
    async def work():
        made = Versions()
        made.fails = {2: Busy("serving.timeout", "no answer")}
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=None))
        made.took_s = {2: 12.0}
        await server.infer(Named("scale"), ROWS, timeout_s=20.0)
        await server.infer(Named("scale"), ROWS)
        made.took_s = {2: 25.0}
        with pytest.raises(Busy, match="no answer"):
            await server.infer(Named("scale"), ROWS, timeout_s=20.0)
        assert made.waits == [(2, 10.0), (1, 8.0), (2, 15.0), (1, 18.0), (2, 10.0)]
        assert told(server, 2)["failed"] == 3
        made.available, made.fails = [2], {}
        await server.infer(Named("scale"), ROWS)
        assert made.waits[-1] == (2, None)  # there is nobody to leave some for

    run(work())


def test_who_leaves_is_counted_against_nobody():
    async def work():
        made = Versions()
        made.hangs = {2}
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=0.0))
        asking = asyncio.create_task(ask(server))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert told(server, 2)["share"] == 1

    run(work())


@pytest.mark.parametrize(("took_s", "answered_by"), [(0.3, {1}), (0.19, {1, 2})], ids=["slow", "near"])
def test_a_canary_that_takes_too_long_is_rolled_back(took_s, answered_by):
    async def work():
        made = Versions()
        made.took_s = {1: 0.1, 2: took_s}
        server = traffic(made, rollback=Rollback(latency=2.0, requests=50))
        await ask_often(server, 200)
        assert (await ask_often(server, 100)).keys() == answered_by
        assert ("why" in told(server, 2)) == (answered_by == {1})

    run(work())


def test_a_canary_with_a_failure_now_and_then_is_kept():
    async def work():
        made = Versions()
        server = traffic(made, {"stable": 0, "canary": 1}, rollback=Rollback(errors=0.05, requests=100))
        for number in range(1000):
            made.fails = {2: FAILED} if number % 25 == 0 else {}
            assert await ask(server) in {1, 2}
        assert told(server, 2)["share"] == 1
        assert told(server, 2)["failed"] == 40

    run(work())


# -- spaces ---------------------------------------------------------------------------------------------------------


def test_versions_with_vectors_of_different_spaces_are_not_split(logged):
    async def work():
        made = Versions(1, 2, 3, labels={"stable": 1, "canary": 2, "third": 3})
        made.spaces = {1: "one", 2: "other", 3: "one"}
        server = traffic(made, {"stable": 1, "canary": 8, "third": 1}, shadow="canary")
        assert (await ask_often(server, 100)).keys() == {1, 3}
        assert "versions 1 and 2 have vectors of different spaces" in told(server, 2)["why"]
        assert told(server, 2)["share"] == 0
        assert len([line for line in logged if line["event"] == "versions are not split"]) == 1
        await until(lambda: "different" in shadowed(server, 2))  # a shadow may have another space
        await server.close()

    run(work())


# -- shadows --------------------------------------------------------------------------------------------------------


async def until(said):
    for _ in range(1000):
        if said():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not come to that")


def test_a_shadow_is_asked_after_the_answer_and_compared():
    async def work():
        made = Versions()
        server = traffic(made, {"stable": 1}, shadow="canary")
        assert await ask(server) == 1
        assert made.asked_of == {1: 1}
        await until(lambda: shadowed(server, 2) == {"different": 1, "class_same": 1})
        assert made.asked_of == {1: 1, 2: 1}
        made.named = {"stable": 2, "canary": 1}
        assert await ask(server) == 2
        await until(lambda: shadowed(server, 1) == {"different": 1, "class_same": 1})
        await server.recognize(Named("scale"), b"", Looked())
        await until(lambda: shadowed(server, 1) == {"different": 1, "class_same": 1, "same": 1})
        assert told(server, 1)["share"] == 0
        await server.close()

    run(work())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FAILED, "failed"),
        (BadInput("runtimes.wrong-inputs", "it takes 5"), "other_form"),
        (ValueError("not foreseen"), "failed"),
    ],
    ids=["fails", "takes others", "bug"],
)
def test_a_shadow_that_fails_is_counted_and_nobody_hears_of_it(error, outcome):
    async def work():
        made = Versions()
        made.fails = {2: error}
        server = traffic(made, {"stable": 1}, shadow="canary")
        assert await ask(server) == 1
        await until(lambda: shadowed(server, 2) == {outcome: 1})
        assert told(server, 2)["failed"] == 0

    run(work())


def test_a_shadow_that_hangs_delays_nobody_and_is_asked_no_more_than_a_few_times():
    async def work():
        made = Versions()
        made.hangs = {2}
        server = traffic(made, {"stable": 1}, shadow="canary")
        assert await ask_often(server, 20) == {1: 20}
        await until(lambda: made.asked_of[2] == shadows.PENDING)
        assert shadowed(server, 2) == {"skipped": 20 - shadows.PENDING}
        await server.close()
        assert len(asyncio.all_tasks()) == 1

    run(work())


def test_who_is_answered_by_the_shadow_itself_is_not_asked_for_twice():
    async def work():
        made = Versions()
        server = traffic(made, {"stable": 0, "canary": 1}, shadow="canary")
        await ask_often(server, 5)
        await ask(server, label="stable")
        made.available = [1]
        await ask_often(server, 5)
        await asyncio.sleep(4 * shadows.AFTER_S)
        assert made.asked_of == {2: 5, 1: 6}

    run(work())


def counted(name, **labels):
    wanted = labels | {"model": "scale"}
    samples = [one for metric in REGISTRY.collect() for one in metric.samples if one.name == name]
    return sum(one.value for one in samples if wanted.items() <= one.labels.items())


def test_outcomes_of_shadows_are_told_to_prometheus():
    async def work():
        server = traffic(Versions(), {"stable": 1}, shadow="canary")
        await ask(server)
        await until(lambda: shadowed(server, 2))

    names = {
        "relens_model_shadow_requests_total": {"outcome": "different"},
        "relens_model_shadow_difference_count": {},
        "relens_model_shadow_classes_total": {"outcome": "same"},
    }
    before = [counted(name, version="2", **labels) for name, labels in names.items()]
    run(work())
    assert [counted(name, version="2", **labels) for name, labels in names.items()] == [one + 1 for one in before]


def test_errors_of_the_family_reach_the_caller_as_they_are():
    async def work():
        made = Versions()
        made.fails = {1: FAILED}
        with pytest.raises(RelensError) as caught:
            await ask(traffic(made, {"stable": 1}))
        assert caught.value is FAILED

    run(work())
