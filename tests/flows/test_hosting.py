"""A folder of models, served by real engines: versions come, go, fail and die, and whoever asks is answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import time

import numpy as np
import pytest
import structlog
from prometheus_client import generate_latest

from relens.config import Models, ServedModel, Settings
from relens.errors import BadInput, Busy, Missing, RelensError
from relens.models.folder import Here, ModelFolder
from relens.serving import holding
from relens.serving.hosting import Options
from relens.serving.served import Named, Policy, Wanted
from relens.telemetry import REGISTRY
from relens.testing import networks
from relens.testing.pictures import draw
from relens.wiring.models import host_models, options_of

ROW = np.array([[1, 2, 3, 4]], np.float32)
QUICK = {"poll_s": 0.05, "pause_s": 0.05, "load_s": 30.0}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    return root


def put(root, version, data, *, model="scale"):
    """A version as a careful program brings it: under another name first."""
    folder = root / model / f".{version}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    folder.rename(root / model / str(version))


def good(root, version, **where):
    put(root, version, networks.scaler(version), **where)


@contextlib.asynccontextmanager
async def hosted(root, **options):
    server = host_models(ModelFolder(Here(root)), Options(**{**QUICK, **options}))
    await server.open()
    try:
        yield server
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def answering(root, **options):
    """A server that has loaded version 1."""
    good(root, 1)
    async with hosted(root, **options) as server:
        await until(lambda: states(server) == {1: "AVAILABLE"})
        yield server


async def ask(server, model="scale", *, row=ROW, **named):
    """Which version answered; its numbers are those of no other."""
    answer = await server.infer(Named(model, **named), {"images": row})
    factor = float(answer.outputs["factor"][0])
    assert answer.version == factor
    np.testing.assert_array_equal(answer.outputs["scaled"], row * factor)
    return answer.version


async def until(told, *, timeout_s=60.0, pause_s=0.02):
    deadline = time.monotonic() + timeout_s
    while not told():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(pause_s)


def states(server, model="scale"):
    try:
        return {one.version: one.state for one in server.versions(model)}
    except Missing:
        return {}


def engines(server):
    return {slot.number: slot.pid for slot in server._slots["scale"].values() if slot.pid is not None}


def run(work):
    return asyncio.run(work)


def test_the_newest_version_answers_and_a_newer_one_takes_over_without_a_gap(root):
    async def work():
        async with answering(root) as server:
            seen, over = [[], [], [], []], asyncio.Event()

            async def keep_asking(answers):
                while not over.is_set():
                    answers.append(await ask(server))

            asking = [asyncio.create_task(keep_asking(answers)) for answers in seen]
            good(root, 2)
            await until(lambda: states(server) == {2: "AVAILABLE"})
            before = sum(map(len, seen))
            await until(lambda: sum(map(len, seen)) > before + 20)
            over.set()
            await asyncio.gather(*asking)
            assert [set(answers) for answers in seen] == [{1, 2}] * 4
            assert all(answers == sorted(answers) for answers in seen)
            assert engines(server).keys() == {2}

    run(work())


def test_a_bad_version_ends_with_its_error_and_the_good_one_serves_on(root):
    async def work():
        async with answering(root, tries=2) as server:
            put(root, 2, b"no model")
            await until(lambda: states(server) == {2: "END", 1: "AVAILABLE"})
            assert await ask(server) == 1
            [bad, _] = server.versions("scale")
            assert bad.error.code == "runtimes.load-failed"
            with pytest.raises(Missing, match="cannot be loaded"):
                await ask(server, version=2)
            good(root, 3)
            await until(lambda: states(server) == {3: "AVAILABLE", 2: "END"})
            assert await ask(server) == 3
            shutil.rmtree(root / "scale" / "2")
            await until(lambda: states(server) == {3: "AVAILABLE"})

    run(work())


def test_a_bad_newest_version_prevents_no_start_and_is_tried_again_when_it_was_mended(root):
    async def work():
        good(root, 1)
        put(root, 2, b"no model")
        async with hosted(root, tries=2) as server:
            await until(lambda: states(server) == {2: "END", 1: "AVAILABLE"})
            shutil.rmtree(root / "scale" / "2")
            good(root, 2)
            await until(lambda: states(server) == {2: "AVAILABLE"})
            assert await ask(server) == 2

    run(work())


def test_many_versions_answer_by_number_and_label(root):
    async def work():
        for version in (1, 2, 10):
            good(root, version)
        options = {"default": Wanted(Policy(latest=None), {"stable": 2, "canary": 11})}
        async with hosted(root, **options) as server:
            await until(lambda: list(states(server).values()) == ["AVAILABLE"] * 3)
            assert [await ask(server, version=number) for number in (1, 2, 10)] == [1, 2, 10]
            assert await ask(server) == 10
            assert await ask(server, label="stable") == 2
            assert server.labels("scale") == {"stable": 2}
            for named in ({"version": 3}, {"label": "canary"}, {"label": "nobody"}):
                with pytest.raises(Missing):
                    await ask(server, **named)
            with pytest.raises(Missing):
                await ask(server, model="other")

    run(work())


@pytest.mark.parametrize(
    ("policy", "serve"), [(Policy(latest=2), {2, 3}), (Policy(specific=(1, 3, 9)), {1, 3}), (Policy(), {3})]
)
def test_policies_choose_what_is_served(root, policy, serve):
    async def work():
        for version in (1, 2, 3):
            good(root, version)
        async with hosted(root, wanted={"scale": Wanted(policy)}, default=Wanted(Policy(specific=(99,)))) as server:
            await until(lambda: states(server) == dict.fromkeys(serve, "AVAILABLE"))

    run(work())


def test_where_memory_counts_the_old_version_goes_before_the_new_one_is_loaded(root):
    async def work():
        async with answering(root, default=Wanted(swap="resource"), tries=1) as server:
            for version, wanted in ((2, {2: "AVAILABLE"}), (3, {3: "AVAILABLE"})):
                good(root, version)
                most = 0
                while states(server) != wanted:
                    most = max(most, len(engines(server)))
                    with contextlib.suppress(Busy):  # and no other error
                        await ask(server)
                    await asyncio.sleep(0.005)
                assert most == 1
                assert await ask(server) == version
            put(root, 4, b"no model")
            await until(lambda: states(server) == {4: "END", 3: "AVAILABLE"})
            assert await ask(server) == 3

    run(work())


def test_what_is_served_can_be_changed_while_it_is(root):
    async def work():
        for version in (1, 2):
            good(root, version)
        put(root, 1, networks.scaler(1), model="other")
        async with hosted(root) as server:
            await until(lambda: states(server) == {2: "AVAILABLE"})
            with pytest.raises(BadInput, match="not available"):
                server.configure({"scale": Wanted(Policy(latest=2), {"stable": 1})})
            with pytest.raises(Missing):
                server.configure({"nobody": Wanted()})
            assert states(server) == {2: "AVAILABLE"}
            server.configure({"scale": Wanted(Policy(specific=(1,)))})
            await until(lambda: states(server) == {1: "AVAILABLE"})
            await until(lambda: server.models() == ["scale"])
            assert await ask(server) == 1
            with pytest.raises(Missing):
                await ask(server, model="other")
            server.configure({"scale": Wanted(Policy(specific=(1,)), {"stable": 1}), "other": Wanted()})
            assert await ask(server, label="stable") == 1
            await until(lambda: states(server, "other") == {1: "AVAILABLE"})

    run(work())


def test_a_model_that_is_not_wanted_any_more_is_not_told_of_although_a_version_of_it_failed(root):
    async def work():
        good(root, 1)
        good(root, 1, model="other")
        put(root, 2, b"no model", model="other")
        async with hosted(root, tries=1) as server:
            await until(lambda: states(server, "other") == {2: "END", 1: "AVAILABLE"})
            await until(lambda: states(server) == {1: "AVAILABLE"})
            server.configure({"scale": Wanted()})
            await until(lambda: server.models() == ["scale"])
            server.configure({"scale": Wanted(), "other": Wanted(Policy(latest=0))})
            assert server.models() == ["scale"]
            with pytest.raises(Missing):
                await ask(server, "other")

    run(work())


def test_a_version_that_changes_before_it_is_loaded_was_not_overwritten(root):
    async def work():
        for version in (1, 2):
            put(root, version, networks.scaler(3))
        async with hosted(root) as server:
            await until(lambda: states(server) == {2: "AVAILABLE"})
            with structlog.testing.capture_logs() as logs:
                (root / "scale" / "1" / "model.onnx").write_bytes(networks.scaler(1))
                await asyncio.sleep(0.3)
                shutil.rmtree(root / "scale" / "2")
                await until(lambda: states(server) == {1: "AVAILABLE"})
            assert await ask(server) == 1
            assert server.versions("scale")[0].error is None
        assert not [line for line in logs if line["log_level"] == "error"]

    run(work())


def test_a_version_that_is_wanted_again_while_it_goes_comes_back(root):
    async def work():
        good(root, 1)
        good(root, 1, model="other")
        async with hosted(root) as server:
            await until(lambda: states(server) == states(server, "other") == {1: "AVAILABLE"})
            server.configure({"other": Wanted()})
            await until(lambda: states(server) == {1: "UNLOADING"}, pause_s=0)  # which is soon over
            with structlog.testing.capture_logs() as logs:
                server.configure({"scale": Wanted(), "other": Wanted()})
                await until(lambda: states(server) == {1: "AVAILABLE"})
            assert await ask(server) == 1
        assert not [line for line in logs if line["log_level"] == "error"]

    run(work())


def test_metrics_tell_of_versions_that_lie_in_the_folder(root):
    def told():
        return {
            version for version in "12" if f'model="measured",version="{version}"'.encode() in generate_latest(REGISTRY)
        }

    async def work():
        good(root, 1, model="measured")
        async with hosted(root) as server:
            await until(lambda: states(server, "measured") == {1: "AVAILABLE"})
            await ask(server, "measured")
            good(root, 2, model="measured")
            await until(lambda: states(server, "measured") == {2: "AVAILABLE"})
            await ask(server, "measured")
            assert told() == {"1", "2"}
            shutil.rmtree(root / "measured" / "1")
            await until(lambda: told() == {"2"})

    run(work())


def test_versions_that_come_faster_than_they_are_loaded_do_not_pile_up(root):
    async def work():
        async with answering(root, at_once=1) as server:
            for version in range(2, 8):
                good(root, version)
                await until(lambda version=version: version in server._slots["scale"])
            seen = set()
            while states(server) != {7: "AVAILABLE"}:
                seen.add(await ask(server))
                await asyncio.sleep(0.005)
            assert len(seen) <= 4  # the first, what was being loaded, what came next, and the last

    run(work())


def test_the_end_is_no_error(root):
    async def work():
        good(root, 1)
        put(root, 1, b"no model", model="other")
        with structlog.testing.capture_logs() as logs:
            async with hosted(root) as server:
                await until(lambda: states(server) == {1: "AVAILABLE"})
                await until(lambda: server.versions("other")[0].error is not None)
        assert not [line for line in logs if line["log_level"] == "error"]

    run(work())


def test_what_is_known_to_be_bad_costs_no_gap_where_the_old_version_goes_first(root):
    async def work():
        async with answering(root, default=Wanted(swap="resource")) as server:
            pid = engines(server)[1]
            (root / "scale" / "2").mkdir()
            (root / "scale" / "2" / "notes.txt").write_text("no model")
            await until(lambda: states(server) == {2: "END", 1: "AVAILABLE"})
            assert engines(server) == {1: pid}

    run(work())


def test_how_many_may_wait_and_how_versions_are_swapped_outlives_a_change_of_versions(root):
    async def work():
        async with answering(root, wanted={"scale": Wanted(swap="resource", waiting=3)}) as server:
            server.configure({"scale": Wanted(Policy(latest=1), {"stable": 1})})
            asking = [asyncio.create_task(ask(server)) for _ in range(5)]
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert [one for one in answers if one == 1] == [1] * 3
            good(root, 2)
            most = 0
            while states(server) != {2: "AVAILABLE"}:
                most = max(most, len(engines(server)))
                await asyncio.sleep(0.005)
            assert most == 1

    run(work())


def test_no_more_than_may_wait_wait_for_an_engine_that_is_started_again(root):
    async def work():
        async with answering(root, waiting=4) as server:
            os.kill(engines(server)[1], signal.SIGKILL)
            await until(lambda: engines(server) == {})
            asking = [asyncio.create_task(ask(server)) for _ in range(10)]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            assert engines(server) == {}
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert [one for one in answers if one == 1] == [1] * 4
            assert {one.code for one in answers if one != 1} == {"runtimes.queue-full"}

    run(work())


def test_an_engine_that_cannot_be_started_now_is_started_later(root, monkeypatch):
    async def work():
        async with answering(root) as server:
            tries = []
            usual = socket.socketpair

            def none_left():
                tries.append(1)
                if len(tries) < 3:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                return usual()

            monkeypatch.setattr(holding.socket, "socketpair", none_left)
            os.kill(engines(server)[1], signal.SIGKILL)
            await until(lambda: engines(server) == {})
            assert await ask(server) == 1
            assert len(tries) == 3

    run(work())


def test_nobody_waits_longer_than_the_server_says(root, monkeypatch):
    async def work():
        async with answering(root, wait_s=0.1) as server:
            os.kill(engines(server)[1], signal.SIGSTOP)
            with pytest.raises(Busy, match=r"within 0\.[12]"):
                await server.infer(Named("scale"), {"images": ROW}, timeout_s=1e9)
            os.kill(engines(server)[1], signal.SIGCONT)

    monkeypatch.setattr(holding, "SLACK_S", 0.1)
    run(work())


def test_an_engine_that_hangs_is_ended_also_if_everybody_leaves(root):
    async def work():
        async with answering(root, hangs_s=0.2) as server:
            pid = engines(server)[1]
            os.kill(pid, signal.SIGSTOP)
            while engines(server).get(1) in {None, pid}:
                asking = asyncio.create_task(ask(server))
                await asyncio.wait({asking}, timeout=0.05)
                asking.cancel()
            assert await ask(server) == 1

    run(work())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_that_all_processes_are_told_of_leaves_engines_to_the_server(root, number):
    async def work():
        async with answering(root) as server:
            pid = engines(server)[1]
            os.kill(pid, number)
            assert await ask(server) == 1
            assert engines(server) == {1: pid}

    run(work())


def test_requests_of_low_priority_leave_room_for_those_of_high(root):
    async def work():
        async with answering(root, waiting=4, default=Wanted(levels=2)) as server:
            os.kill(engines(server)[1], signal.SIGSTOP)
            asked = []
            for priority, admitted in ((2, True), (2, True), (2, False), (1, True), (1, True), (1, False)):
                asking = asyncio.create_task(ask(server, priority=priority))
                await asyncio.sleep(0)
                if admitted:
                    asked.append(asking)
                else:
                    with pytest.raises(Busy, match="not answered"):
                        await asking
            os.kill(engines(server)[1], signal.SIGCONT)
            assert await asyncio.gather(*asked) == [1] * 4

    run(work())


def test_each_priority_has_its_part_of_the_queue_as_it_is_set_up(root):
    settings = Settings(models=Models(serve={"scale": ServedModel(queue=8, priorities=2)}))

    async def work():
        good(root, 1)
        server = host_models(ModelFolder(Here(root)), options_of(settings), settings)
        await server.open()
        try:
            await until(lambda: states(server) == {1: "AVAILABLE"})
            os.kill(engines(server)[1], signal.SIGSTOP)
            asked = [asyncio.create_task(ask(server, priority=priority)) for priority in [2] * 8 + [1] * 8]
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await ask(server, priority=2)
            os.kill(engines(server)[1], signal.SIGCONT)
            assert await asyncio.gather(*asked) == [1] * 16
        finally:
            await server.close()

    run(work())


def test_an_engine_that_is_killed_costs_nobody_more_than_a_delay(root):
    async def work():
        async with answering(root) as server:
            for _ in range(3):
                pid = engines(server)[1]
                asking = [asyncio.create_task(ask(server)) for _ in range(20)]
                await asyncio.sleep(0)
                os.kill(pid, signal.SIGKILL)
                assert await asyncio.gather(*asking) == [1] * 20
                await until(lambda gone=pid: engines(server).get(1) not in {None, gone})
            assert states(server) == {1: "AVAILABLE"}

    run(work())


def test_a_version_that_is_overwritten_is_reported_and_never_mixed(root):
    async def work():
        async with answering(root) as server:
            (root / "scale" / "1" / "model.onnx").write_bytes(networks.scaler(7))
            await until(lambda: server.versions("scale")[0].error is not None)
            assert server.versions("scale")[0].error.code == "serving.overwritten"
            assert await ask(server) == 1
            os.kill(engines(server)[1], signal.SIGKILL)
            await until(lambda: states(server).get(1) == "END")
            assert server.versions("scale")[0].error.code == "runtimes.overwritten"

    run(work())


def test_a_bad_version_that_is_to_be_tried_again_keeps_no_other_from_being_loaded(root):
    async def work():
        for model in ("bad", "worse"):
            put(root, 1, b"no model", model=model)
        async with hosted(root, at_once=1, pause_s=3600.0) as server:
            await until(lambda: all(states(server, model) == {1: "LOADING"} for model in ("bad", "worse")))
            good(root, 1)
            await until(lambda: states(server) == {1: "AVAILABLE"})
            assert await ask(server) == 1

    run(work())


def test_a_file_that_is_copied_slowly_is_not_loaded_before_it_is_whole(root):
    async def work():
        good(root, 1)
        data = networks.scaler(2)
        async with hosted(root, poll_s=0.2) as server:
            await until(lambda: states(server).get(1) == "AVAILABLE")
            (root / "scale" / "2").mkdir()
            with (root / "scale" / "2" / "model.onnx").open("wb", buffering=0) as file:
                for at in range(0, len(data), 20):
                    file.write(data[at : at + 20])
                    await asyncio.sleep(0.05)
                    assert states(server) == {1: "AVAILABLE"}
            await until(lambda: states(server) == {2: "AVAILABLE"})

    run(work())


def test_a_folder_that_disappears_leaves_what_is_served_served(root):
    async def work():
        async with answering(root) as server:
            away = root.with_name("away")
            root.rename(away)
            await asyncio.sleep(0.3)
            assert await ask(server) == 1
            root.mkdir()  # as an empty mount point
            await asyncio.sleep(0.3)
            assert await ask(server) == 1
            root.rmdir()
            away.rename(root)
            good(root, 2)
            await until(lambda: states(server) == {2: "AVAILABLE"})

    run(work())


def test_a_version_that_is_taken_away_ends_and_a_model_can_come_and_go(root):
    async def work():
        good(root, 1)
        good(root, 1, model="other")
        async with hosted(root) as server:
            await until(lambda: server.models() == ["other", "scale"] and states(server).get(1) == "AVAILABLE")
            shutil.rmtree(root / "scale")
            await until(lambda: server.models() == ["other"])
            with pytest.raises(Missing):
                await ask(server)
            good(root, 5)
            await until(lambda: states(server) == {5: "AVAILABLE"})
            assert await ask(server) == 5

    run(work())


def test_before_it_is_loaded_it_is_busy_and_what_it_does_not_take_is_named(root):
    async def work():
        good(root, 1)
        async with hosted(root, poll_s=0.01) as server:
            await until(lambda: states(server).get(1) == "LOADING")
            with pytest.raises(Busy):
                await ask(server)
            await until(lambda: states(server).get(1) == "AVAILABLE")
            told = server.describe(Named("scale"))
            assert [str(one) for one in told.inputs] == ["images (any, 4) FP32"]
            for inputs in ({"x": ROW}, {"images": ROW[:, :3]}, {"images": ROW.astype(np.float64)}, {}):
                with pytest.raises(BadInput) as caught:
                    await server.infer(Named("scale"), inputs)
                assert caught.value.code == "runtimes.wrong-inputs"
            with pytest.raises(BadInput):
                await server.infer(Named("scale"), {"images": ROW}, outputs=["nothing"])
            some = await server.infer(Named("scale"), {"images": ROW}, outputs=["factor"])
            assert list(some.outputs) == ["factor"]

    run(work())


def test_more_than_may_wait_is_refused_at_once_and_the_rest_is_answered(root):
    async def work():
        async with answering(root, waiting=8) as server:
            asking = [asyncio.create_task(ask(server)) for _ in range(20)]
            answers = await asyncio.gather(*asking, return_exceptions=True)
            refused = [one for one in answers if isinstance(one, Busy)]
            assert {one.code for one in refused} == {"runtimes.queue-full"}
            assert [one for one in answers if one == 1] == [1] * (20 - len(refused))
            assert len(refused) == 12
            assert await ask(server) == 1

    run(work())


def test_an_engine_that_hangs_holds_no_request_for_longer_than_it_may_wait(root, monkeypatch):
    async def work():
        async with answering(root) as server:
            pid = engines(server)[1]
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Busy):
                await server.infer(Named("scale"), {"images": ROW}, timeout_s=0.1)
            os.kill(pid, signal.SIGCONT)
            assert await ask(server) == 1

    monkeypatch.setattr(holding, "SLACK_S", 0.1)
    run(work())


def test_an_engine_that_hangs_for_good_is_ended_and_another_answers(root, monkeypatch):
    async def work():
        async with answering(root, hangs_s=0.05) as server:
            pid = engines(server)[1]
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Busy):
                await server.infer(Named("scale"), {"images": ROW}, timeout_s=0.1)
            await until(lambda: engines(server).get(1) not in {None, pid})
            assert await ask(server) == 1

    monkeypatch.setattr(holding, "SLACK_S", 0.1)
    run(work())


def test_the_end_waits_for_no_version_that_is_loading(root):
    async def work():
        good(root, 1)
        async with hosted(root) as server:
            await until(lambda: states(server).get(1) == "LOADING")
            await asyncio.sleep(0.05)
        assert engines(server) == {}

    run(work())


def test_after_the_end_no_process_is_left(root):
    async def work():
        async with answering(root) as server:
            pid = engines(server)[1]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(RelensError):
            await ask(server)

    run(work())


def test_requests_that_are_run_together_are_answered_as_alone(root):
    async def work():
        put(root, 1, networks.classifier(), model="crowd")
        settings = Settings(models=Models(serve={"crowd": ServedModel(profile="batch", delay_ms=200)}))
        server = host_models(ModelFolder(Here(root)), Options(**QUICK), settings)
        await server.open()
        try:
            await until(lambda: states(server, "crowd").get(1) == "AVAILABLE")
            rows = [np.array([draw(seed)], object) for seed in range(6)]
            asked = [server.infer(Named("crowd"), {"images": row}) for row in rows]
            together = [one.outputs["scores"] for one in await asyncio.gather(*asked)]
            for row, scores in zip(rows, together, strict=True):
                alone = await server.infer(Named("crowd"), {"images": row})
                np.testing.assert_allclose(scores, alone.outputs["scores"], atol=1e-3)
        finally:
            await server.close()
        alone = {"model": "crowd", "version": "1", "le": "1.0"}
        assert REGISTRY.get_sample_value("relens_model_batch_rows_bucket", alone) < 12  # some were run together

    run(work())


def test_pictures_are_taken_where_the_model_takes_pictures(root):
    async def work():
        put(root, 1, networks.classifier(), model="looks")
        async with hosted(root) as server:
            await until(lambda: states(server, "looks").get(1) == "AVAILABLE")
            pictures = np.array([draw(1), draw(2), draw(1)], object)
            answer = await server.infer(Named("looks"), {"images": pictures})
            scores = answer.outputs["scores"]
            np.testing.assert_array_equal(scores[0], scores[2])
            assert not np.allclose(scores[0], scores[1])
            with pytest.raises(BadInput, match="picture 1"):
                await server.infer(Named("looks"), {"images": np.array([draw(1), b"none"], object)})

    run(work())
