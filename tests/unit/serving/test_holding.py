"""An engine that dies is told as that, at whatever moment a request comes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest
import uvloop

from relens.errors import Broken
from relens.serving.holding import Died, start_holding

MUTE = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_each_request_after_the_end_of_an_engine_is_told_that_it_died(run):
    async def told():
        engine = await start_holding(MUTE, hangs_s=60)
        os.kill(engine.pid, signal.SIGKILL)
        requests = []
        while not engine.dead.is_set():  # a new one in each turn of the loop, the last ones to a closed socket
            requests.append(asyncio.ensure_future(engine.run({}, (), wait_s=30)))
            await asyncio.sleep(0)
        requests.append(asyncio.ensure_future(engine.run({}, (), wait_s=30)))
        answers = await asyncio.gather(*requests, return_exceptions=True)
        await engine.stop()
        return answers

    assert {type(one) for one in run(told())} == {Died}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_engine_that_says_what_is_no_frame_is_ended(run):
    script = (
        "import os, sys, time; os.write(int(sys.argv[-1]), bytes([0, 0, 0, 2, 0, 0, 0, 0]) + b'{]'); time.sleep(60)"
    )

    async def told():
        engine = await start_holding([sys.executable, "-S", "-c", script], hangs_s=60)
        with pytest.raises(Broken, match="ended while it was loading"):
            await engine.ready(60)
        assert engine.dead.is_set()
        await engine.stop()

    run(told())
