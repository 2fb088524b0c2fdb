"""For Triton's Python back-end: a JPEG in, its best names out as JSON."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as triton
from looking import Looker


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        self._looker = Looker(given["folder"]["string_value"], given["way"]["string_value"])

    def execute(self, requests: list) -> list:
        return [self._answer(one) for one in requests]

    def _answer(self, request):
        data = triton.get_input_tensor_by_name(request, "jpeg").as_numpy().flat[0]
        found = json.dumps(self._looker.look(data)).encode()
        return triton.InferenceResponse([triton.Tensor("names", np.array([found], object))])
