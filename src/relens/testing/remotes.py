"""A small model server for tests: Open Inference Protocol and TensorFlow Serving over sessions of this process.

It serves any session, as the dummy's, and can be told to be slow, busy, silent or gone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from relens.runtimes import ModelSpec, Session
from relens.values import Floats


@dataclass
class Trouble:
    """What goes wrong: the next `statuses` are given instead of answers, `drops` connections are closed without one,
    each answer waits `delay_s`, comes in pieces with `drip_s` between them, and is `body` if that is something."""

    statuses: list[int] = field(default_factory=list)
    drops: int = 0
    delay_s: float = 0.0
    drip_s: float = 0.0
    body: bytes = b""


class FakeServer(ThreadingHTTPServer):
    """Serves in a thread of its own from the moment it is made, until `stop`."""

    daemon_threads = True

    def __init__(self, *, binary: bool = True, batch: int | None = None) -> None:
        """`binary`: whether it speaks the binary tensor data extension. `batch`: a fixed one that models insist on."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.binary = binary
        self.batch = batch
        self.trouble = Trouble()
        self.asked: list[str] = []
        self.models: dict[str, tuple[ModelSpec, Session]] = {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, name: str, spec: ModelSpec, session: Session) -> None:
        """Serve a session under a name; its tensors are called as the spec says."""
        self.models[name] = spec, session

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that give up are what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Nothing."""

    def _answer(self, body: bytes) -> None:
        self.server.asked.append(self.path)
        trouble = self.server.trouble
        time.sleep(trouble.delay_s)
        if trouble.drops:
            trouble.drops -= 1
            self.close_connection = True
            return
        try:
            status, head, tail = (trouble.statuses.pop(0), b"{}", b"") if trouble.statuses else self._made(body)
            head, tail = (trouble.body, b"") if trouble.body else (head, tail)
        except (KeyError, ValueError) as error:
            status, head, tail = 400, json.dumps({"error": repr(error)}).encode(), b""
        self.send_response(status)
        if tail:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.send_header("Content-Length", str(len(head + tail)))
        self.end_headers()
        whole = head + tail
        size = max(1, len(whole) // 20) if trouble.drip_s else max(1, len(whole))
        for start in range(0, len(whole), size):
            self.wfile.write(whole[start : start + size])
            time.sleep(trouble.drip_s)

    def _made(self, body: bytes) -> tuple[int, bytes, bytes]:
        path = self.path.strip("/")
        if path == "v2":
            extensions = ["binary_tensor_data"] if self.server.binary else []
            return 200, json.dumps({"name": "fake", "version": "1", "extensions": extensions}).encode(), b""
        words = path.replace(":predict", "/predict").split("/")
        if len(words) < 3 or words[2] not in self.server.models:  # noqa: PLR2004 - v2/models/name
            return 404, b'{"error": "no such model"}', b""
        spec, session = self.server.models[words[2]]
        if words[-1] == "infer":
            return self._infer(spec, session, body)
        if words[-1] == "predict":
            return 200, self._predict(spec, session, json.loads(body)), b""
        said = self._oip(spec) if words[0] == "v2" else self._tfserving(spec)
        return 200, json.dumps(said).encode(), b""

    def _shape(self, spec: ModelSpec) -> list[int]:
        return [self.server.batch or -1, *(-1 if side is None else side for side in spec.input_shape)]

    def _oip(self, spec: ModelSpec) -> dict[str, Any]:
        outputs = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in spec.outputs.values()]
        return {
            "name": "fake",
            "inputs": [{"name": spec.input, "datatype": "FP32", "shape": self._shape(spec)}],
            "outputs": outputs,
        }

    def _tfserving(self, spec: ModelSpec) -> dict[str, Any]:
        shape = {"dim": [{"size": str(side), "name": ""} for side in self._shape(spec)], "unknown_rank": False}
        signature = {
            "inputs": {spec.input: {"dtype": "DT_FLOAT", "tensor_shape": shape}},
            "outputs": {name: {"dtype": "DT_FLOAT"} for name in spec.outputs.values()},
        }
        return {"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}

    def _run(self, spec: ModelSpec, session: Session, inputs: Floats) -> dict[str, Floats]:
        if self.server.batch not in (None, len(inputs)):
            raise ValueError(f"a batch has {self.server.batch} inputs, not {len(inputs)}")
        outputs = session.run(inputs)
        return {name: outputs[role] for role, name in spec.outputs.items()}

    def _infer(self, spec: ModelSpec, session: Session, body: bytes) -> tuple[int, bytes, bytes]:
        length = self.headers.get("Inference-Header-Content-Length")
        request = json.loads(body[: int(length)] if length else body)
        (given,) = request["inputs"]
        values = np.frombuffer(body[int(length) :], "<f4") if length else np.asarray(given["data"], np.float32)
        tensors = self._run(spec, session, values.reshape(given["shape"]))
        said, raw = [], b""
        for wanted in request["outputs"]:
            tensor = tensors[wanted["name"]]
            one: dict[str, Any] = {"name": wanted["name"], "datatype": "FP32", "shape": list(tensor.shape)}
            if (wanted.get("parameters") or {}).get("binary_data"):
                data = tensor.astype("<f4").tobytes()
                raw += data
                said.append(one | {"parameters": {"binary_data_size": len(data)}})
            else:
                said.append(one | {"data": tensor.ravel().tolist()})
        return 200, json.dumps({"model_name": "fake", "outputs": said}).encode(), raw

    def _predict(self, spec: ModelSpec, session: Session, request: Mapping[str, Any]) -> bytes:
        inputs = np.asarray(request["inputs"][spec.input], np.float32)
        tensors = {name: tensor.tolist() for name, tensor in self._run(spec, session, inputs).items()}
        return json.dumps({"outputs": tensors if len(tensors) > 1 else next(iter(tensors.values()))}).encode()
