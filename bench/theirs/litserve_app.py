"""LitServe: an uploaded JPEG in, its best names out as JSON. `litserve_app.py PORT WORKERS FOLDER WAY`."""

from __future__ import annotations

import sys

import litserve
from looking import Looker


class Api(litserve.LitAPI):
    def __init__(self, folder: str, way: str) -> None:
        super().__init__()
        self._given = folder, way

    def setup(self, device: str) -> None:  # noqa: ARG002 - litserve calls it
        self._looker = Looker(*self._given)

    def decode_request(self, request):
        return request["content"].file.read()

    def predict(self, data: bytes):
        return self._looker.look(data)

    def encode_response(self, found):
        return {"names": found}


if __name__ == "__main__":
    port, workers, folder, way = sys.argv[1:]
    server = litserve.LitServer(Api(folder, way), accelerator="cpu", workers_per_device=int(workers), fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
