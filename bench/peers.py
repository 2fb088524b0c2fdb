"""Other servers, each in an environment of its own in build/bench/peers, set up as well as we know how.

All run the same ONNX file in the same version of onnxruntime: one thread each, no spinning, as many workers as cores.

Triton    the server inside the wheel `nvidia-pytriton`, which has the Python back-end and no other: onnxruntime runs in
          it, one instance for each core. No metrics, no log of requests, no dynamic batching
MLServer  a custom `MLModel`. As many parallel workers as cores for pictures; none for small tensors, which with them
          take more than twice as much CPU. No metrics, no log of requests, no compression
LitServe  a `LitAPI` with one worker for each core and the fast queue (ZeroMQ); pictures are uploaded as files
relens    `relens up --models`. With its metrics; no log of requests, as the others have none
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from bench import homes
from bench.clock import cpu_s
from bench.figures import Setup

THEIRS = Path(__file__).parent / "theirs"
SAME = ("onnxruntime", "pillow", "simplejpeg")
"""What peers have in the version that is here; numpy is what each can use."""
PACKAGES = {
    "triton": ("nvidia-pytriton==0.7.0",),
    "mlserver": ("mlserver==1.7.1", "uvloop<0.22"),  # whose workers do not start with a later one
    "litserve": ("litserve==0.2.19", "python-multipart"),
}
CORES = os.cpu_count() or 1
READY_TIMEOUT_S = 120.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs: its first process, its ports, and whether gRPC is one of them."""

    pid: int
    http: int
    grpc: int | None

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(cpu_s(pid) for pid in self.pids())

    def pids(self) -> list[int]:
        process = psutil.Process(self.pid)
        return [self.pid, *(child.pid for child in process.children(recursive=True))]

    def memory(self) -> int:
        """Bytes resident, of all its processes; what they share is counted for each."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids())


def install(folder: Path) -> None:
    """Make the environments that are not there yet."""
    for name, packages in PACKAGES.items():
        environment = folder / "peers" / name
        if not (environment / ".installed").exists():
            shutil.rmtree(environment, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            same = [f"{one}=={metadata.version(one)}" for one in SAME]
            pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *packages, *same], check=True)
            (environment / ".installed").touch()


def missing(setup: Setup, name: str) -> str | None:
    """Why a peer is left out; None if it is there."""
    if (setup.folder / "peers" / name / ".installed").exists():
        return None
    return f"{name} is left out: it is not installed (`python -m bench --install` does it)"


@dataclass(frozen=True, slots=True)
class Tensors:
    """An ONNX file to be served as it is, under `name`; sides of a row of its input and its output."""

    name: str
    model: Path
    input: str
    output: str
    takes: Sequence[int]
    gives: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A folder with `model.onnx` and `labels.json` to name JPEGs by, and in which way they are prepared."""

    folder: Path
    way: str


Work = Tensors | Pictures


# -- Triton


@contextlib.contextmanager
def triton(setup: Setup, work: Work) -> Iterator[Running]:
    """Triton with one model: that of `work`, or `pictures`, which takes `jpeg` and gives `names`."""
    environment = setup.folder / "peers" / "triton"
    packages = next((environment / "lib").glob("python*/site-packages"))
    server = packages / "pytriton" / "tritonserver"
    root = _fresh(setup, "triton", work)
    _triton_model(root / "models", work)
    backends = root / "backends"
    shutil.copytree(server / "backends", backends)
    stub = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(server / "python_backend_stubs" / stub / "triton_python_backend_stub", backends / "python")
    http, grpc = homes.free_port(), homes.free_port()
    argv = [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={root / 'models'}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={root.name}-{os.getpid()}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--allow-metrics=false",
        "--log-info=false",
    ]
    environ = {
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
    }
    with _running(argv, environ, root, f"http://127.0.0.1:{http}/v2/health/ready") as process:
        yield Running(process.pid, http, grpc)


def _triton_model(models: Path, work: Work) -> None:
    if isinstance(work, Tensors):
        name, code, given = work.name, "triton_tensors.py", {"model": str(work.model)}
        tensors = [("input", work.input, "TYPE_FP32", work.takes), ("output", work.output, "TYPE_FP32", work.gives)]
    else:
        name, code, given = "pictures", "triton_pictures.py", {"folder": str(work.folder), "way": work.way}
        tensors = [("input", "jpeg", "TYPE_STRING", [1]), ("output", "names", "TYPE_STRING", [1])]
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        "max_batch_size: 0",
        *(
            f'{which} [{{ name: "{tensor}" data_type: {kind} dims: {list(sides)} }}]'
            for which, tensor, kind, sides in tensors
        ),
        f"instance_group [{{ count: {CORES} kind: KIND_CPU }}]",
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in given.items()),
    ]
    folder = models / name / "1"
    folder.mkdir(parents=True)
    shutil.copy(THEIRS / code, folder / "model.py")
    shutil.copy(THEIRS / "looking.py", folder)
    (folder.parent / "config.pbtxt").write_text("\n".join(lines))


# -- MLServer


@contextlib.contextmanager
def mlserver(setup: Setup, work: Work) -> Iterator[Running]:
    """MLServer with one model, named as Triton's."""
    root = _fresh(setup, "mlserver", work)
    http, grpc = homes.free_port(), homes.free_port()
    alone = isinstance(work, Tensors)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_endpoint": None,
        "parallel_workers": 0 if alone else CORES,
        "gzip_enabled": False,
    }
    model = {
        "name": work.name if isinstance(work, Tensors) else "pictures",
        "implementation": f"mlserver_models.{'Tensors' if alone else 'Pictures'}",
        "parameters": {"uri": str(work.model)}
        if isinstance(work, Tensors)
        else {"uri": str(work.folder), "extra": {"way": work.way}},
    }
    (root / "settings.json").write_text(json.dumps(settings))
    (root / "model-settings.json").write_text(json.dumps(model))
    argv = [str(setup.folder / "peers" / "mlserver" / "bin" / "mlserver"), "start", "."]
    with _running(argv, {"PYTHONPATH": str(THEIRS)}, root, f"http://127.0.0.1:{http}/v2/health/ready") as process:
        _wait_listening(grpc)  # which may come last
        yield Running(process.pid, http, grpc)


# -- LitServe


@contextlib.contextmanager
def litserve(setup: Setup, work: Work) -> Iterator[Running]:
    """LitServe at `/predict`, for pictures alone."""
    if isinstance(work, Tensors):
        raise TypeError("LitServe has no protocol of tensors")
    root, http = _fresh(setup, "litserve", work), homes.free_port()
    python = setup.folder / "peers" / "litserve" / "bin" / "python"
    argv = [str(python), str(THEIRS / "litserve_app.py"), str(http), str(CORES), str(work.folder), work.way]
    with _running(argv, {}, root, f"http://127.0.0.1:{http}/health") as process:
        yield Running(process.pid, http, None)


# -- relens


@contextlib.contextmanager
def relens(root: Path, *, logs: bool = False) -> Iterator[Running]:
    """`relens up` on a folder of models, with its usual settings; without `logs`, with no line for each request."""
    grpc = homes.free_port()
    settings = {} if logs else {"RELENS__LOGS__LEVEL": "warning"}
    with homes.models_up(root, "--grpc-port", str(grpc), settings=settings) as server:
        yield Running(server.pid, int(server.url.rpartition(":")[2]), grpc)


PEERS: Mapping[str, Callable[[Setup, Work], contextlib.AbstractContextManager[Running]]] = {
    "triton": triton,
    "mlserver": mlserver,
    "litserve": litserve,
}


# -- processes


def _fresh(setup: Setup, name: str, work: Work) -> Path:
    root = setup.folder / "peers" / "run" / f"{name}-{work.name if isinstance(work, Tensors) else work.way}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


@contextlib.contextmanager
def _running(argv: Sequence[str], environ: Mapping[str, str], root: Path, ready: str) -> Iterator[subprocess.Popen]:
    """A server until the context is left, with all that it started."""
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=root, env=usual | environ, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait_ready(process, ready, log)
            yield process
        finally:
            _end(process)


def _wait_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=READY_TIMEOUT_S):
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"{process.args[0]} was not ready within {READY_TIMEOUT_S:g} s: {log.read_text()[-2000:]}")


def _wait_listening(port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
