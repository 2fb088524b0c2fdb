"""What every inference back-end must do: the tensors that were asked for, the same every time, or a refusal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relens.errors import BadInput, Broken
from relens.runtimes import Backend, ModelSpec, Session
from relens.values import Floats

RANKS = {"scores": 2, "vector": 2, "features": 4}


class RuntimeContract:
    """Subclass it as `TestX` and give `make` and `write_model`.

    tolerance   how far a row may differ between batches of different sizes; 0 where bits must be the same
    """

    tolerance = 1e-5

    def make(self) -> Backend:
        raise NotImplementedError

    def write_model(self, path: Path) -> ModelSpec:
        """Write a small model that has all three roles to this path, and say what it is."""
        raise NotImplementedError

    def load(self, tmp_path: Path) -> tuple[ModelSpec, Session]:
        spec = self.write_model(tmp_path / "model")
        return spec, self.make().load(spec)

    def test_every_role_comes_back_with_the_batch_first(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        for count in (1, 2, 7):
            outputs = session.run(some_inputs(spec, count))
            assert {role: tensor.ndim for role, tensor in outputs.items()} == RANKS
            assert {len(tensor) for tensor in outputs.values()} == {count}
            assert {tensor.dtype for tensor in outputs.values()} == {np.dtype(np.float32)}
            assert outputs["features"].shape[1] == outputs["vector"].shape[1]

    def test_the_vector_is_the_mean_of_the_features(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        outputs = session.run(some_inputs(spec, 2))
        assert np.allclose(outputs["features"].mean(axis=(2, 3)), outputs["vector"], rtol=1e-4, atol=1e-5)

    def test_only_the_roles_of_the_spec_come_back(self, tmp_path: Path) -> None:
        spec = self.write_model(tmp_path / "model")
        only = replace(spec, outputs={"vector": spec.outputs["vector"]})
        assert set(self.make().load(only).run(some_inputs(spec, 1))) == {"vector"}

    def test_the_same_input_gives_the_same_bits(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        inputs = some_inputs(spec, 3)
        first = session.run(inputs)
        again = self.make().load(spec).run(inputs)
        for role, tensor in session.run(inputs).items():
            assert np.array_equal(tensor, first[role])
            assert np.array_equal(tensor, again[role])

    def test_different_inputs_give_different_vectors(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        one, other = session.run(some_inputs(spec, 2))["vector"]
        assert not np.allclose(one, other, atol=1e-3)

    def test_a_batch_gives_what_its_inputs_give_alone(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        inputs = some_inputs(spec, 9)
        together = session.run(inputs)
        for row, one in enumerate(inputs):
            for role, tensor in session.run(one[None]).items():
                off = np.abs(tensor[0] - together[role][row]).max()
                assert off <= self.tolerance, f"{role} of row {row} is off by {off}"

    def test_results_and_inputs_stay_as_they_are(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        inputs = some_inputs(spec, 2)
        before = inputs.copy()
        outputs = session.run(inputs)
        kept = {role: tensor.copy() for role, tensor in outputs.items()}
        session.run(some_inputs(spec, 2, seed=1))
        assert np.array_equal(inputs, before)
        assert all(np.array_equal(outputs[role], kept[role]) for role in kept)

    def test_an_input_may_be_a_view_of_other_memory(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        inputs = some_inputs(spec, 3)
        turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(inputs, 1, -1)), -1, 1)
        assert not turned.flags.c_contiguous
        for role, tensor in session.run(inputs).items():
            assert np.array_equal(session.run(turned)[role], tensor)

    def test_a_wrong_shape_is_refused_with_both_shapes(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        good = some_inputs(spec, 1)
        wrongs: list[Any] = [good[0], good[:, :, 1:], good[:, :2], good[:0], good.astype("f8"), good.astype("u1")]
        for wrong in wrongs:
            with pytest.raises(BadInput) as caught:
                session.run(wrong)
            assert caught.value.code == "runtimes.wrong-shape"
            assert ", ".join(map(str, spec.input_shape)) in caught.value.message
            assert str(wrong.shape) in caught.value.message
            assert wrong.dtype.name in caught.value.message

    @pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"no model at all" * 50, None])
    def test_a_file_that_is_no_model_is_broken(self, tmp_path: Path, data: bytes | None) -> None:
        spec = self.write_model(tmp_path / "model")
        spec.path.unlink() if data is None else spec.path.write_bytes(data)
        with pytest.raises(Broken) as caught:
            self.make().load(spec)
        assert caught.value.code == "runtimes.load-failed"
        assert spec.path.name in caught.value.message

    def test_half_a_model_is_broken(self, tmp_path: Path) -> None:
        spec = self.write_model(tmp_path / "model")
        data = spec.path.read_bytes()
        spec.path.write_bytes(data[: len(data) // 2])
        with pytest.raises(Broken) as caught:
            self.make().load(spec)
        assert caught.value.code == "runtimes.load-failed"

    def test_an_output_that_the_model_lacks_is_named(self, tmp_path: Path) -> None:
        spec = self.write_model(tmp_path / "model")
        with pytest.raises(Broken) as caught:
            self.make().load(replace(spec, outputs={**spec.outputs, "vector": "pooled_7"}))
        assert caught.value.code == "runtimes.wrong-outputs"
        assert "pooled_7" in caught.value.message

    def test_an_input_shape_that_the_model_does_not_take_is_broken(self, tmp_path: Path) -> None:
        spec = self.write_model(tmp_path / "model")
        with pytest.raises(Broken) as caught:
            self.make().load(replace(spec, input_shape=(5, *spec.input_shape[1:])))
        assert caught.value.code == "runtimes.load-failed"

    def test_what_it_cannot_run_as_asked_is_refused(self, tmp_path: Path) -> None:
        spec = self.write_model(tmp_path / "model")
        asked = {
            "runtimes.format": (replace(spec, format="abacus"), 1),
            "runtimes.precision": (replace(spec, precision="fp3"), 1),
            "runtimes.bad-threads": (spec, 0),
        }
        for code, (wanted, threads) in asked.items():
            with pytest.raises(BadInput) as caught:
                self.make().load(wanted, threads=threads)
            assert caught.value.code == code

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        backend = self.make()
        spec, session = self.load(tmp_path)
        assert session.backend == backend.name
        assert session.device in backend.devices()
        assert spec.format in backend.formats

    def test_four_threads_at_once_get_their_own_answers(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        batches = [some_inputs(spec, 1 + number % 3, seed=number) for number in range(40)]
        alone = [session.run(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(session.run, batches))
        for one, other in zip(alone, at_once, strict=True):
            assert all(np.array_equal(one[role], other[role]) for role in one)

    def test_two_threads_a_run_give_the_same(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        inputs = some_inputs(spec, 2)
        with_two = self.make().load(spec, threads=2).run(inputs)
        for role, tensor in session.run(inputs).items():
            assert np.abs(tensor - with_two[role]).max() <= self.tolerance

    def test_the_file_is_not_needed_after_loading(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        spec.path.unlink()
        assert session.run(some_inputs(spec, 1))

    def test_closing_twice_is_fine_and_a_closed_session_does_not_run(self, tmp_path: Path) -> None:
        spec, session = self.load(tmp_path)
        session.close()
        session.close()
        with pytest.raises(Broken) as caught:
            session.run(some_inputs(spec, 1))
        assert caught.value.code == "runtimes.run-failed"


def some_inputs(spec: ModelSpec, count: int, *, seed: int = 0) -> Floats:
    """(count, *input_shape) float32, any length being 32, of numbers like those of pictures, from -1 to 1."""
    shape = (count, *(side or 32 for side in spec.input_shape))
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
