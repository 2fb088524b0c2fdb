"""What the gateway shows of plans, galleries, releases and models: JSON objects, the same from every door."""

from __future__ import annotations

from typing import Any

from relens import bulk, ledger, releases
from relens import gallery as galleries
from relens.gallery import Gallery, tail
from relens.jobs import host_name, plans
from relens.jobs.plans import Plan
from relens.models import Registered, registry
from relens.recipes import Lens
from relens.releases import Release
from relens.store import Tx


def plan_json(tx: Tx, plan: Plan, gallery: str | None) -> dict[str, Any]:
    """A plan with its funnel: state, tasks, rate in entries per second, seconds left, quarantine, its view's checks."""
    progress = plans.progress(tx, plan.id)
    shown: dict[str, Any] = {
        "id": plan.id,
        "kind": plan.kind,
        "state": plan.state,
        "gallery": gallery,
        "source": plan.spec.get("source"),
        "day": plan.spec.get("day"),
        "created_at": plan.created_at,
        "ended_at": plan.ended_at,
        "progress": {"done": progress["done"], "total": progress["total"]},
        "tasks": ledger.funnel(tx, plan.id),
        "rate": progress["rate"],
        "eta_s": _eta_s(plan, progress),
        "error": progress["error"] if plan.ended_at is None else None,
        "sequence": plan.sequence,
        "released": galleries.count_released(tx, plan.id) or None,
        "quarantine": plans.quarantined(tx, plan.id) or None,
    }
    if plan.view is not None:
        shown["checks"] = releases.get_view(tx, plan.view).checks
    return present(shown)


def gallery_json(tx: Tx, gallery: Gallery) -> dict[str, Any]:
    """A gallery with its counts, its recipe, and the release that answers for it."""
    release = releases.resolve(tx, gallery.name)
    lens = releases.get_lens(tx, release.lens)
    return {
        "name": gallery.name,
        "recipe": gallery.recipe,
        "sequence": gallery.sequence,
        "release": release.name,
        "lens": release.lens,
        "space": lens.space or None,
        "models": dict(lens.recipe.models),
        "counts": galleries.count_objects(tx, gallery.id),
        "segments": 0 if release.view is None else len(release.view.segments),
        "retention": gallery.retention,
        "thresholds": _thresholds(tx, gallery, lens),
        "created_at": gallery.created_at,
    }


def _thresholds(tx: Tx, gallery: Gallery, lens: Lens) -> dict[str, float]:
    """Category to the cosine under which nothing matches: the gallery's own, or else its lens's."""
    kept, usual = galleries.thresholds_of(tx, gallery.id), lens.thresholds.get("match")
    spaces = {category: lens.space_of(category) for category in lens.recipe.categories}
    known = {category: kept.get(space.digest, usual) for category, space in spaces.items() if space is not None}
    return {category: value for category, value in known.items() if value is not None}


def segments_json(tx: Tx, gallery: Gallery) -> dict[str, Any]:
    """The segments that answer for a gallery and those on its shelf, and how many rows its tail has."""
    lens = releases.live_lens(tx, gallery)
    head = releases.head_of(tx, gallery.id, lens.digest)
    return {
        "gallery": gallery.name,
        "segments": releases.segments_of(tx, head),
        "tail": tail.count(tx, gallery.id, bulk.spaces_of(lens), head.folded_to),
        "folded_to": head.folded_to,
    }


def release_json(tx: Tx, release: Release) -> dict[str, Any]:
    """A release: its lens and models, its view with checks and segments, and the aliases that mean it now."""
    lens = releases.get_lens(tx, release.lens)
    view = release.view
    return present(
        {
            "name": release.name,
            "recipe": release.recipe,
            "lens": release.lens,
            "space": lens.space,
            "models": {
                role: {"model": lens.recipe.models[role], "digest": digest} for role, digest in lens.digests.items()
            },
            "gallery": release.gallery.name if release.gallery else None,
            "sequence": view.sequence if view else None,
            "folded_to": view.folded_to if view else None,
            "retired_at": release.retired_at,
            "aliases": releases.aliases_of(tx, release),
            "checks": list(view.checks) if view else None,
            "segments": list(view.segments) if view else None,
            "created_at": release.created_at,
        }
    )


def model_json(tx: Tx, model: Registered) -> dict[str, Any]:
    """A model version: task, licence, labels, digest, and the back-end that runs it here."""
    chosen = registry.backend_of(tx, host_name(), model.digest)
    return present(
        {
            "name": model.name,
            "version": model.version,
            "task": model.card.task,
            "labels": list(model.labels),
            "digest": model.digest,
            "precision": model.card.precision,
            "dim": model.card.dim,
            "licence": model.card.licence,
            "source": model.card.source,
            "backend": None if chosen is None else {"name": chosen[0], **chosen[1]},
            "card": model.card.to_json(),
        }
    )


def present(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is absent: absent parts are left out, never invented."""
    return {key: value for key, value in values.items() if value is not None}


def _eta_s(plan: Plan, progress: dict[str, Any]) -> float | None:
    if plan.state != "running" or not progress["rate"]:
        return None
    return float(round((progress["total"] - progress["done"]) / progress["rate"], 1))
