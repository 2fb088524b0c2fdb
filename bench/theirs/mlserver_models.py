"""For MLServer: an ONNX model by onnxruntime, tensors in and out; and a JPEG in, its best names out as JSON."""

from __future__ import annotations

import json

from looking import Looker, open_session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Tensors(MLModel):
    async def load(self) -> bool:
        self._session = open_session(self.settings.parameters.uri)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        [found] = self._session.run([self._output], {self._input: rows})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self._output, found)])


class Pictures(MLModel):
    async def load(self) -> bool:
        self._looker = Looker(self.settings.parameters.uri, self.settings.parameters.extra["way"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        [data] = payload.inputs[0].data
        found = json.dumps(self._looker.look(data))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("names", [found])])
