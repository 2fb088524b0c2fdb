"""For Triton's Python back-end: an ONNX model by onnxruntime, tensors in and out."""

from __future__ import annotations

import json

import triton_python_backend_utils as triton
from looking import open_session


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._session = open_session(json.loads(args["model_config"])["parameters"]["model"]["string_value"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def execute(self, requests: list) -> list:
        return [self._answer(one) for one in requests]

    def _answer(self, request):
        rows = triton.get_input_tensor_by_name(request, self._input).as_numpy()
        [found] = self._session.run([self._output], {self._input: rows})
        return triton.InferenceResponse([triton.Tensor(self._output, found)])
