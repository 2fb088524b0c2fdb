"""Requests are run together only where each row gives what it gives alone."""

from __future__ import annotations

import pytest

from relens.hosted.trial import rows_stand_alone
from relens.runtimes.graph import Graph
from relens.testing import networks


@pytest.mark.parametrize(
    ("network", "stand"),
    [
        (networks.classifier(), True),
        (networks.embedder(), True),
        (networks.mixed(), True),  # of any length: there is nothing to try it with
        (networks.scaler(2), False),  # `factor` is not of rows
        (networks.scaler(2, rows=1), False),
        (networks.together(), False),
        (networks.shared(), False),
    ],
    ids=["classifier", "embedder", "any-length", "no-rows", "fixed", "compared", "mean"],
)
def test_rows_that_depend_on_others_are_found(tmp_path, network, stand):
    file = tmp_path / "model.onnx"
    file.write_bytes(network)
    assert rows_stand_alone(Graph(file)) is stand
