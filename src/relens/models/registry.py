"""Which model versions this home knows, their labels, and which back-end runs each on a host. Facts in the catalog.

A reference is `name/version` or `name/label`; a bare `name` means its label `stable`, else its newest version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relens.errors import BadInput, Conflict, Missing
from relens.models.artifacts import Artifact
from relens.models.card import Card, read_card
from relens.store import Tx, insert_if_absent
from relens.store.schema import backend_choices, model_labels, models, spaces

STABLE = "stable"


@dataclass(frozen=True, slots=True)
class Registered:
    """A model version as the catalog knows it."""

    name: str
    version: int
    digest: str
    card: Card
    labels: tuple[str, ...]
    created_at: float

    @property
    def reference(self) -> str:
        return f"{self.name}/{self.version}"


def register(tx: Tx, artifact: Artifact, now: float) -> None:
    """Make a version known, with its space; the first version of a name becomes `stable`. Again changes nothing.

    Conflict if the catalog knows other content under that version: another machine may have brought it in.
    """
    card = artifact.card
    values = {"name": card.name, "version": card.version, "digest": artifact.digest, "card": card.to_json()}
    insert_if_absent(tx, models, **values, created_at=now)
    known = tx.execute(
        sa.select(models.c.digest).where(models.c.name == card.name, models.c.version == card.version)
    ).scalar_one_or_none()
    if known != artifact.digest:
        raise Conflict(
            "models.version-exists",
            f"the catalog knows other content as {artifact.reference}: {known}, not {artifact.digest}",
            hint="a version never changes: copy the folder from where it came in first, or take another version number",
        )
    if artifact.space is not None:
        insert_if_absent(tx, spaces, digest=artifact.space, dim=card.dim, document=card.space(artifact.weights))
    insert_if_absent(tx, model_labels, name=card.name, label=STABLE, version=card.version)


def every(tx: Tx, name: str | None = None) -> list[Registered]:
    """All versions, or those of one name, by name and version."""
    known, named = sa.select(models), sa.select(model_labels)
    if name is not None:
        known, named = known.where(models.c.name == name), named.where(model_labels.c.name == name)
    labels: dict[tuple[str, int], list[str]] = {}
    for row in tx.execute(named):
        labels.setdefault((row.name, row.version), []).append(row.label)
    rows = tx.execute(known.order_by(models.c.name, models.c.version))
    return [
        Registered(
            row.name,
            row.version,
            row.digest,
            read_card(row.card),
            tuple(sorted(labels.get((row.name, row.version), ()))),
            row.created_at,
        )
        for row in rows
    ]


def resolve(tx: Tx, reference: str) -> Registered:
    """The version that a reference means now. Missing, naming what there is, if it means none."""
    name, _, wanted = reference.partition("/")
    if not name or "/" in wanted or "\0" in reference:
        raise BadInput("models.bad-reference", f"{reference!r} is no model", hint="write name/version or name/label")
    versions = every(tx, name)
    if wanted.isdigit():
        matching = [known for known in versions if known.version == int(wanted)]
    else:
        matching = [known for known in versions if (wanted or STABLE) in known.labels]
    if not matching and not wanted:
        matching = versions[-1:]
    if not matching:
        have = ", ".join(known.reference for known in versions) or "none of that name"
        raise Missing(
            "models.missing",
            f"there is no model {reference} (there is {have})",
            hint="`relens model ls` lists them; `relens model fetch imagenet` brings the default ones",
        )
    return matching[0]


def record_backend(tx: Tx, host: str, model: str, backend: str, *, figures: Mapping[str, Any], now: float) -> None:
    """Write down which back-end runs a model (by digest) on a host, and what was measured."""
    values = {"backend": backend, "figures": dict(figures), "chosen_at": now}
    insert_if_absent(tx, backend_choices, host=host, model=model, **values)
    where = (backend_choices.c.host == host, backend_choices.c.model == model)
    tx.execute(sa.update(backend_choices).where(*where).values(values))


def backend_of(tx: Tx, host: str, model: str) -> tuple[str, dict[str, Any]] | None:
    """The back-end that was chosen for a model on a host, with its figures."""
    query = sa.select(backend_choices.c.backend, backend_choices.c.figures)
    row = tx.execute(query.where(backend_choices.c.host == host, backend_choices.c.model == model)).one_or_none()
    return None if row is None else (row.backend, row.figures)
