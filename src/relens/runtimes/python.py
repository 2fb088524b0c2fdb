"""Models that are Python code: an entry point that turns arrays into arrays, in an interpreter of its own.

The model file names it (`{"entry": "module:function"}`), with a lock file of packages or an interpreter. The code runs
in a child process behind a socket: its packages, its crashes and its memory are not ours. It is no sandbox: the code
may do whatever the user may who runs relens, but it is not handed relens' settings or secrets.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from relens.runtimes import python_child
from relens.runtimes.base import (
    ModelSpec,
    load_failed,
    require_inputs,
    require_outputs,
    require_runnable,
    run_failed,
)
from relens.runtimes.environments import interpreter_of
from relens.values import Floats

ANY_LENGTH_PX = 64
"""What a trial run takes for a side that may have any length."""

LINES_KEPT = 20
LINE_BYTES = 1000
MAX_TIMEOUT_S = 3600
END_TIMEOUT_S = 2.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TZ")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a model file says. ValueError or TypeError for what is no such file.

    entry            "module:function"; the module lies beside the model file. The function gets (n, *input shape)
                     float32 and returns name to array with the batch first, or one array if it has one output
    lock             file beside it with the packages that the code needs, each with its hash; numpy among them. Without
                     one, or if it is empty, the code runs on relens' own interpreter and its packages
    interpreter      path of a Python that has the packages, instead of a lock
    timeout_s        for one forward
    start_timeout_s  until the module is imported
    """

    entry: str
    lock: str = ""
    interpreter: str = ""
    timeout_s: float = 60.0
    start_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        module, colon, name = self.entry.partition(":")
        if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"entry {self.entry!r} is not module:function")
        if self.lock and self.interpreter:
            raise ValueError("a model has a lock or an interpreter, not both")
        if not (0 < self.timeout_s <= MAX_TIMEOUT_S and 0 < self.start_timeout_s <= MAX_TIMEOUT_S):
            raise ValueError(f"timeouts are numbers of seconds, {MAX_TIMEOUT_S} at most")


class Python:
    """The back-end for models that are Python code."""

    name = "python"
    formats = frozenset({"python"})

    def __init__(self, cache: Path) -> None:
        """`cache`: the folder for environments."""
        self._cache = cache

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def load(self, spec: ModelSpec, *, threads: int = 1) -> PythonSession:
        require_runnable(spec, threads, backend=self.name, formats=self.formats, precisions={"fp32"})
        folder = spec.path.parent.absolute()
        try:
            entry = _read(spec)
            lock = (folder / entry.lock).read_bytes() if entry.lock else b""
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise load_failed(spec, error) from error
        interpreter = Path(entry.interpreter) if entry.interpreter else interpreter_of(lock, self._cache)
        argv = [str(interpreter), "-I", "-B", python_child.__file__]
        session = PythonSession(spec, _Start(argv, folder, entry, threads))
        try:
            session.try_out()
        except BaseException:
            session.close()
            raise
        return session


class PythonSession:
    """A model's code, loaded in a process of its own, which is started again if it died. Runs wait for each other."""

    backend = Python.name
    device = "cpu"

    def __init__(self, spec: ModelSpec, start: _Start) -> None:
        self._spec = spec
        self._start = start
        self._child: _Child | None = None
        self._closed = False
        self._lock = threading.Lock()

    def try_out(self) -> None:
        """One forward of zeros. Broken if the code cannot be loaded, does not take its input, or lacks an output."""
        shape = [ANY_LENGTH_PX if side is None else side for side in self._spec.input_shape]
        with self._lock:
            try:
                tensors = self._ask(np.zeros((1, *shape), np.float32))
            except _Failed as error:
                raise load_failed(self._spec, error) from error
        require_outputs(self._spec, tensors)

    def run(self, inputs: Floats) -> dict[str, Floats]:
        require_inputs(self._spec, inputs)
        with self._lock:
            if self._closed:
                raise run_failed(self._spec, "it was closed")
            try:
                tensors = self._ask(np.ascontiguousarray(inputs, dtype="<f4"))
            except _Failed as error:
                raise run_failed(self._spec, error) from error
        require_outputs(self._spec, tensors)
        found = {role: tensors[name] for role, name in self._spec.outputs.items()}
        if wrong := {role: tensor.shape for role, tensor in found.items() if tensor.shape[:1] != inputs.shape[:1]}:
            raise run_failed(self._spec, f"{len(inputs)} inputs gave {wrong}")
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.end()
                self._child = None

    def _ask(self, inputs: Floats) -> dict[str, Floats]:
        """What the code says, by tensor; one output without a name has the one that the spec names."""
        child = self._child
        if child is None:
            child = self._child = self._start.child()
        try:
            head, body = child.ask({"shape": list(inputs.shape)}, inputs.tobytes())
        except _Died:
            self._child = None
            raise
        if "error" in head:
            raise _Failed(head["error"])
        tensors = _tensors(head, body)
        if set(tensors) == {""} and len(names := set(self._spec.outputs.values())) == 1:
            return {names.pop(): tensors[""]}
        return tensors


class _Failed(Exception):
    """The model's code failed; what it said."""


class _Died(_Failed):
    """Its process ended, or had to be ended."""


@dataclass(frozen=True, slots=True)
class _Start:
    """How a child is started."""

    argv: list[str]
    folder: Path
    entry: Entry
    threads: int

    def child(self) -> _Child:
        """A child that has loaded its code. _Failed if it cannot."""
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= dict.fromkeys(THREADS, str(self.threads))
        try:
            process = subprocess.Popen(  # noqa: S603 - the model's own code is what is asked for
                [*self.argv, str(theirs.fileno()), str(self.folder), self.entry.entry],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=environment,
                process_group=0,  # an interrupt on the terminal is for the parent, which ends its children
            )
        except OSError as error:
            ours.close()
            raise _Failed(f"{self.argv[0]} does not start: {error.strerror or error}") from error
        finally:
            theirs.close()
        child = _Child(process, ours, self.entry)
        hello, _ = child.receive(self.entry.start_timeout_s)
        if "error" in hello:
            child.end()
            raise _Failed(hello["error"])
        return child


class _Child:
    """A process that has the model's code, and the last lines that it printed."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket, entry: Entry) -> None:
        self._process = process
        self._line = line
        self._entry = entry
        self._said: collections.deque[str] = collections.deque(maxlen=LINES_KEPT)
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
        self._reader.start()

    def ask(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytearray]:
        """One question, one answer. _Died if there is none."""
        self._line.settimeout(self._entry.timeout_s)
        try:
            python_child.send(self._line, head, [body])
        except OSError as error:
            raise self._died(error, self._entry.timeout_s) from error
        return self.receive(self._entry.timeout_s)

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], bytearray]:
        """The next frame. _Died if none comes."""
        self._line.settimeout(timeout_s)
        try:
            frame = python_child.receive(self._line)
        except (OSError, ValueError) as error:
            raise self._died(error, timeout_s) from error
        if frame is None:
            raise self._died(None, timeout_s)
        return frame

    def end(self) -> None:
        """End of file ends it; what does not listen is killed."""
        self._line.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_TIMEOUT_S)

    def _died(self, error: Exception | None, timeout_s: float) -> _Died:
        if isinstance(error, TimeoutError):
            self._process.kill()
            self.end()
            return _Died(f"no answer within {timeout_s:g} s; its process was ended")
        self.end()
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = " / ".join(self._said)[-500:]
        return _Died(f"its process ended with {how}{f', after: {last}' if last else ''}")

    def _listen(self, printed: IO[bytes]) -> None:
        """Keep the last lines, so that a full pipe stops nobody and a death can be explained."""
        with contextlib.suppress(ValueError), printed:
            for line in iter(lambda: printed.readline(LINE_BYTES), b""):
                self._said.append(line.decode("utf-8", "replace").strip())


def _tensors(head: dict[str, Any], body: bytearray) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    at = 0
    for one in head["tensors"]:
        count = int(np.prod(one["shape"], dtype=np.int64))
        found[one["name"]] = np.frombuffer(body, "<f4", count, at).reshape(one["shape"]).astype(np.float32, copy=False)
        at += 4 * count
    return found


def _read(spec: ModelSpec) -> Entry:
    given = yaml.safe_load(spec.path.read_bytes())
    if not isinstance(given, dict):
        raise ValueError("it must hold keys and values: entry, lock…")  # noqa: TRY004 - of the file's value
    known = [field.name for field in fields(Entry)]
    if unknown := sorted(map(str, set(given) - set(known))):
        raise ValueError(f"unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return Entry(**given)
