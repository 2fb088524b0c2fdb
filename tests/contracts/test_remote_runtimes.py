"""The remote back-end against the contract, over each protocol, with a server that runs the dummy."""

import json
from dataclasses import replace

from relens.runtimes import Dummy, ModelSpec, Remote, write_dummy
from relens.testing.remotes import FakeServer
from relens.testing.runtimes import RuntimeContract

ROLES = {"scores": "probs", "vector": "pooled", "features": "map"}


class _RemoteContract(RuntimeContract):
    tolerance = 0
    protocol = "oip"
    binary = True
    batch = None
    _server = None

    def make(self):
        return Remote()

    def write_model(self, path):
        """The server runs a dummy; the model file says where."""
        cls = type(self)
        cls._server = cls._server or FakeServer(binary=self.binary, batch=self.batch)
        dummy = path.with_name("dummy.json")
        write_dummy(dummy, seed=7, vector_dim=24, classes=5, cells=3)
        spec = ModelSpec("dummy", dummy, "images", (3, 17, 16), {role: role for role in ROLES}, "fp32")
        cls._server.serve("small", replace(spec, outputs=ROLES), Dummy().load(spec))
        path.write_text(json.dumps({"url": cls._server.url, "protocol": self.protocol, "model": "small"}))
        return replace(spec, format="remote", path=path, outputs=ROLES)


class TestOpenInferenceProtocol(_RemoteContract):
    pass


class TestOpenInferenceProtocolInJson(_RemoteContract):
    binary = False


class TestOpenInferenceProtocolWithAFixedBatch(_RemoteContract):
    batch = 2


class TestTensorFlowServing(_RemoteContract):
    protocol = "tfserving"
