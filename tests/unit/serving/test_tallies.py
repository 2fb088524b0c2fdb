"""What versions have done is counted, whichever door it came by."""

import asyncio

import numpy as np
import pytest

from relens.errors import BadInput, Missing
from relens.serving.served import Looked, Named
from relens.serving.tallies import counted
from relens.testing.served import MadeUpModels

X = np.ones((3, 4), np.float32)


@pytest.fixture
def server():
    return counted(MadeUpModels())


def infer(server, model, **inputs):
    return asyncio.run(server.infer(Named(model), inputs))


def test_requests_are_counted_by_version_and_outcome_with_their_rows(server):
    infer(server, "scale", x=X)
    infer(server, "scale", x=X[:1])
    with pytest.raises(BadInput):
        infer(server, "scale", z=X)
    tally = server.tally("scale", 2)
    assert (tally.inferred, tally.last_ms > 0) == (4, True)
    told = tally.durations()
    assert {name: told[name]["count"] for name in ("success", "fail", "compute_infer", "cache_hit")} == {
        "success": 2,
        "fail": 1,
        "compute_infer": 2,
        "cache_hit": 0,
    }
    assert told["compute_infer"]["ns"] == 200_000
    assert server.tally("scale", 1).inferred == 0


def test_an_input_without_a_free_first_side_is_one_row(server):
    infer(server, "pair", a=np.ones((2, 5), np.int32), b=np.ones((2, 5), np.int32))
    assert server.tally("pair", 7).inferred == 1


def test_a_picture_that_is_looked_at_is_one_row(server):
    asyncio.run(server.recognize(Named("scale"), b"\xff\xd8", Looked()))
    assert server.tally("scale", 2).inferred == 1


def test_what_there_is_not_is_not_counted(server):
    with pytest.raises(Missing):
        infer(server, "none", x=X)
    assert server.tally("none", 1).durations()["fail"]["count"] == 0


def test_what_is_counted_is_not_counted_twice(server):
    assert counted(server) is server
