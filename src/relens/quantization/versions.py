"""A model's int8 version: made with some of the pictures, compared on others, refused or brought in with its report.

Every fourth picture is kept for comparing, so that a version is not judged by what it was fitted to. The report is one
of the version's own files: it is there before anybody can name the version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relens.errors import BadInput, Conflict
from relens.models import FIDELITY, Artifact, Card, Registered
from relens.onboarding import Onboarding
from relens.quantization.fidelity import Bounds, compare
from relens.recipes import LoadedModel
from relens.values import Floats, canonical_json, digest_of

HELD_OUT = 4
"""Every so many pictures one is kept for comparing."""
FEW = 20
"""With fewer pictures to compare on, one more or less that differs moves every figure."""

Look = Callable[[], Floats]
"""A picture as the model is given it: (1, …) float32. BadInput if it cannot be used."""

Report = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""


def unreported(_done: int, _total: int) -> None:
    """For who does not want to know how far it is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures to make a version with, spread over what there is. `source` says in words where they come from."""

    source: str
    looks: Sequence[Look]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A version with its report. `made` is false if it was there already."""

    artifact: Artifact
    fidelity: dict[str, Any]
    made: bool


def require_quantizable(model: Registered) -> None:
    """BadInput, saying why, for a model of which no int8 version can be made of pictures alone."""
    card, reason = model.card, None
    if card.format != "onnx":
        reason = f"its format is {card.format}, and only ONNX files are written anew"
    elif card.precision == "int8":
        raise BadInput("models.already-int8", f"{model.reference} computes in int8 already")
    elif card.precision != "fp32":
        reason = f"it computes in {card.precision}, not in fp32"
    elif card.parts:
        parts = ", ".join(card.parts)
        reason = f"it is made of several networks ({parts}), of which each gets what the one before it found"
    elif card.shape is not None:
        reason = "its input does not follow from a picture alone"
    if reason:
        raise BadInput(
            "models.cannot-quantize",
            f"{model.reference} cannot be made int8: {reason}",
            hint="`relens model show` says what a model is",
        )


def quantize(onboarding: Onboarding, model: Registered, sample: Sample, bounds: Bounds, report: Report) -> Quantized:
    """The int8 version of a model, under the next number of its name.

    The same model and pictures give the version that is there already. BadInput if no picture can be used; Conflict,
    and no version, if it does not reach the bounds.
    """
    require_quantizable(model)
    # The library takes 0.2 s to import, which only this should pay for.
    from relens.models import int8  # noqa: PLC0415

    pictures = _Pictures(sample, report)
    original = onboarding.start(model.name, model.version, digest=model.digest)
    try:
        files = original.artifact.files()
        files[model.card.file] = int8.quantize(files[model.card.file], pictures.calibrating())
        card = onboarding.numbered(_card(model, pictures.calibrated), files)
        known = _fidelity_of(onboarding, card)
        fidelity = known or _measured(onboarding, original, card, files, pictures)
    finally:
        original.close()
    _require(model, bounds, fidelity)
    artifact = onboarding.add(card, files | {FIDELITY: canonical_json(fidelity)})
    return Quantized(artifact, fidelity, made=known is None)


def _card(model: Registered, calibrated: int) -> Card:
    made = f"int8 of {model.reference} ({model.digest[:12]}), calibrated with {calibrated} pictures"
    return replace(model.card, precision="int8", source="; ".join(filter(None, (model.card.source, made))))


def _fidelity_of(onboarding: Onboarding, card: Card) -> dict[str, Any] | None:
    """The report of a version that is there already."""
    there = (card.name, card.version) in onboarding.shelf.versions()
    return onboarding.shelf.open(card.name, card.version).fidelity() if there else None


def _measured(
    onboarding: Onboarding, original: LoadedModel, card: Card, files: dict[str, bytes], pictures: _Pictures
) -> dict[str, Any]:
    with onboarding.loaded(card, files) as other:
        compared = compare(card, original.session, other, pictures.comparing())
    before, after = original.artifact.model_file.stat().st_size, len(files[card.file])
    return {
        "of": {"model": original.artifact.reference, "digest": original.artifact.digest},
        "pictures": pictures.told(),
        **compared,
        "bytes": {"fp32": before, "int8": after},
        "backend": other.backend,
    }


def _require(model: Registered, bounds: Bounds, fidelity: dict[str, Any]) -> None:
    if missed := bounds.missed(fidelity):
        raise Conflict(
            "models.low-fidelity",
            f"{model.reference} in int8 is too far from what it was: {'; '.join(missed)}",
            hint="more pictures, and pictures like those that it will see, may help (--pictures, --calibrate); "
            "--min-cosine and --min-agreement set the bounds. No version was made",
        )


class _Pictures:
    """A sample, read picture by picture: most calibrate, every fourth is kept, and what comes again is left out."""

    def __init__(self, sample: Sample, report: Report) -> None:
        self._sample = sample
        self._report = report
        self._kept: list[Look] = []
        self._used: list[Look] = []
        self._skipped = 0
        self._done = 0

    @property
    def calibrated(self) -> int:
        return len(self._used)

    def calibrating(self) -> Iterator[Floats]:
        """What calibrates, each read when it is asked for. BadInput if there is nothing."""
        seen: set[str] = set()
        for look in self._sample.looks:
            try:
                given = look()
            except BadInput:
                self._skip()
                continue
            digest = digest_of(given.tobytes())
            if digest in seen:
                self._skip()
                continue
            seen.add(digest)
            if len(seen) % HELD_OUT == 0:
                self._kept.append(look)
                continue
            self._used.append(look)
            yield given
            self._advance()
        if not seen:
            raise BadInput(
                "quantization.no-pictures",
                f"of {len(self._sample.looks)} pictures of {self._sample.source} none can be used",
                hint="calibrate with pictures like those that the model will see",
            )

    def comparing(self) -> Iterator[Floats]:
        """What was kept; what calibrated, if nothing was."""
        for look in self._kept or self._used:
            yield look()
            self._advance()

    def told(self) -> dict[str, Any]:
        """How many pictures did what; `held_out` is false if those that calibrated are compared on."""
        compared = len(self._kept or self._used)
        return {
            "source": self._sample.source,
            "calibrated": len(self._used),
            "skipped": self._skipped,
            "compared": compared,
            "held_out": bool(self._kept),
            "few": compared < FEW,
        }

    def _skip(self) -> None:
        self._skipped += 1
        self._advance()

    def _advance(self) -> None:
        self._done += 1
        self._report(min(self._done, len(self._sample.looks)), len(self._sample.looks))
