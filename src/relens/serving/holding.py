"""The front's side of an engine that holds one model version: requests out, answers in, on the event loop.

The end of its socket tells that it died; then every request that it has not answered is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from relens.errors import Broken, Busy
from relens.runtimes.frames import Frames, error_from_header, head_of
from relens.tensors import Array, TensorInfo, Tensors, pack, unpack

GRACE_S = 5.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SLACK_S = 5.0
"""How much longer than a request may wait the front waits for its answer: the time to run one."""

log = structlog.get_logger(__name__)


class Died(Exception):
    """The engine's process ended before it answered."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine says of its model when it is ready."""

    backend: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    labels: tuple[str, ...]
    pictures: str | None
    space: str | None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a forward gave, the milliseconds of its phases, and how many rows it was run with."""

    outputs: dict[str, Array]
    timings_ms: dict[str, float]
    rows: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a picture, and as of `Ran`."""

    found: dict[str, Any]
    timings_ms: dict[str, float]
    rows: int


class Holding(asyncio.Protocol):
    """One engine process and the requests that it has not answered yet. Belongs to one event loop.

    The event loop's calls of its socket come to it itself: no task waits in between.

    hangs_s  an engine that has requests and has said nothing for so long is ended
    """

    def __init__(self, process: subprocess.Popen[bytes], *, hangs_s: float) -> None:
        self._hangs_s = hangs_s
        self.pid = process.pid
        self.dead = asyncio.Event()
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._frames = Frames()
        self._ids = itertools.count()
        self._pending: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._owed: set[int] = set()  # those that the engine has to say something of: also some that nobody waits for
        self._sign = 0.0  # when the engine last did anything, or was last asked while it had nothing to do
        self._idle = asyncio.Event()
        self._idle.set()
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()

    @property
    def waiting(self) -> int:
        """How many requests are not answered yet."""
        return len(self._pending)

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 where that is not told."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
        except (OSError, IndexError):
            return 0

    async def ready(self, timeout_s: float) -> Told:
        """Wait until the model is loaded: what it is. Raises why it could not be."""
        try:
            first = await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            raise Broken(
                "serving.slow-start",
                f"the model was not loaded within {timeout_s:g} s",
                hint="is the machine very busy, or the disk very slow?",
            ) from None
        except Died:
            raise Broken(
                "serving.engine-died", "the engine ended while it was loading", hint="its last words are in the log"
            ) from None
        if "failed" in first:
            raise error_from_header(first["failed"])
        told = first["ready"]
        inputs, outputs = (
            tuple(TensorInfo(name, datatype, tuple(shape)) for name, datatype, shape in told[kind])
            for kind in ("inputs", "outputs")
        )
        return Told(told["backend"], inputs, outputs, tuple(told["labels"]), told["pictures"], told["space"])

    async def run(self, inputs: Tensors, outputs: Sequence[str], *, wait_s: float, level: int = 1) -> Ran:
        """One forward. Died if the engine ends first; Busy if the answer does not come in time.

        level  requests of lower ones are run before it
        """
        heads, body = pack(inputs)
        asked = {"wait_s": wait_s, "level": level, "inputs": heads, "outputs": list(outputs)}
        told, made = await self._ask(asked, body, wait_s)
        return Ran(unpack(told["outputs"], made), told["timings_ms"], told["rows"])

    async def recognize(self, picture: bytes, wanted: Mapping[str, Any], *, wait_s: float, level: int = 1) -> Seen:
        """What is in a picture. The rest as of `run`."""
        asked = {"wait_s": wait_s, "level": level, "recognize": dict(wanted)}
        told, _ = await self._ask(asked, picture, wait_s)
        return Seen(told["recognized"], told["timings_ms"], told["rows"])

    async def _ask(self, asked: Mapping[str, Any], body: bytes, wait_s: float) -> tuple[dict[str, Any], bytes]:
        if self._transport.is_closing():  # as a dead one's is; a write to it is an error
            raise Died
        number = next(self._ids)
        head = head_of({"id": number, **asked}, body)
        answer: asyncio.Future[tuple[dict[str, Any], bytes]] = self._loop.create_future()
        if not self._owed:
            self._sign = time.monotonic()
        self._owed.add(number)
        self._pending[number] = answer
        self._idle.clear()
        timer = self._loop.call_later(wait_s + SLACK_S, _too_late, answer, wait_s + SLACK_S)
        try:
            self._transport.writelines([head, body])
            told, made = await answer
        except (Busy, asyncio.CancelledError):
            self._give_up(number)
            raise
        finally:
            timer.cancel()
            self._forget(number)
        if "error" in told:
            raise error_from_header(told["error"])
        return told, made

    def _give_up(self, number: int) -> None:
        """Nobody waits for a request any more."""
        if not self._transport.is_closing():
            self._transport.write(head_of({"drop": number}, b""))
        self._end_if_hung()

    def _end_if_hung(self) -> None:
        """End an engine that has requests and has done nothing for longer than any of them takes."""
        if self._owed and time.monotonic() - self._sign > self._hangs_s:
            log.error("an engine hangs and is ended", pid=self.pid, silent_s=round(time.monotonic() - self._sign, 1))
            self._process.kill()

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything is answered, or for so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def stop(self) -> None:
        """End the process: first by closing its socket, then by force."""
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.dead.wait(), GRACE_S)
        await asyncio.to_thread(_end, self._process)

    def _forget(self, number: int) -> None:
        self._pending.pop(number, None)
        if not self._pending:
            self._idle.set()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for header, body in self._frames.feed(data):
                self._take(header, body)
        except ValueError:
            log.exception("an engine said what is no frame", pid=self.pid)
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._bury()

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        if "id" not in header:
            if not self._ready.done():
                self._ready.set_result(header)
            return
        self._owed.discard(header["id"])
        if "dropped" not in header and header.get("error", {}).get("family") != Busy.__name__:
            self._sign = time.monotonic()  # who refuses may still hang
        waiting = self._pending.get(header["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result((header, body))

    def _bury(self) -> None:
        self.dead.set()
        if not self._ready.done():
            self._ready.set_exception(Died())
            self._ready.exception()  # nobody may ask for it
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(Died())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # without a line it is of no use to anybody


async def start_holding(argv: Sequence[str], *, hangs_s: float) -> Holding:
    """Start an engine process; `--fd` is added to its arguments. Broken if it cannot be started."""
    try:
        here, there = socket.socketpair()
    except OSError as error:
        raise _no_process(error) from error
    try:
        process = await asyncio.to_thread(_spawn, [*argv, "--fd", str(there.fileno())], there)
        _, holding = await asyncio.get_running_loop().create_connection(
            lambda: Holding(process, hangs_s=hangs_s), sock=here
        )
    except OSError as error:
        here.close()
        raise _no_process(error) from error
    finally:
        there.close()
    return holding


def _too_late(answer: asyncio.Future[Any], waited_s: float) -> None:
    if not answer.done():
        answer.set_exception(Busy("serving.timeout", f"no answer within {waited_s:g} s"))


def _no_process(error: OSError) -> Broken:
    return Broken("serving.no-process", f"an engine cannot be started: {error.strerror}")


def _spawn(argv: Sequence[str], there: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603 - ours


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
