"""What `relens doctor` looks at: catalog, disk, models, blobs, recipes."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from relens import gallery as galleries
from relens.errors import Broken, RelensError
from relens.models import registry
from relens.recipes import BUILT_IN, built_in
from relens.store.schema import blobs as blob_rows
from relens.wiring import Parts

SHOWN = 20
"""Damaged blobs that are named; more are only counted."""

Finding = dict[str, Any]


def examine(parts: Parts, *, deep: bool, say: Callable[[str], None]) -> list[Finding]:
    """Every check with its verdict: `{"what", "ok", "detail"}`. `say` is told what takes long."""
    findings = [_finding("catalog", ok=True, detail=parts.catalog.url.render_as_string(hide_password=True))]
    missing = parts.in_process().missing()
    findings.append(_finding("home", ok=not missing, detail="; ".join(missing) or str(parts.home.path)))
    findings += _models(parts, deep=deep)
    findings += _recipes(parts)
    findings += _blobs(parts, deep=deep, say=say)
    return findings


def told_by(url: str) -> dict[str, Any]:
    """What only the server at a URL knows: its engines, and the models that it serves as they are."""
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
        with direct.open(f"{url}/v1/status", timeout=5) as answer:
            told = json.load(answer)
            return {"engines": told["engines"], "served": told.get("served", [])}
    except (OSError, ValueError, KeyError):
        return {"engines": [], "served": []}


def _models(parts: Parts, *, deep: bool) -> Iterator[Finding]:
    with parts.catalog.read() as tx:
        known = registry.every(tx)
    for model in known:
        try:
            if deep:
                artifact = parts.onboarding.verify(model.name, model.version)
                detail = "every byte as the manifest says; golden pictures give what they gave"
            else:
                artifact = parts.shelf.open(model.name, model.version)
                detail = "manifest and sizes"
            if artifact.digest != model.digest:
                yield _finding(f"model {model.reference}", ok=False, detail="is not the one that was registered")
                continue
            yield _finding(f"model {model.reference}", ok=True, detail=detail)
        except RelensError as error:
            yield _finding(f"model {model.reference}", ok=False, detail=str(error))


def _recipes(parts: Parts) -> Iterator[Finding]:
    for name in parts.book.names():
        try:
            yield _finding(f"recipe {name}", ok=True, detail=f"lens {parts.book.lens(name).digest[:12]}")
        except RelensError as error:
            unused = error.code == "models.missing" and _is_unused(parts, name)
            detail = f"its models are not here: relens model fetch {name}" if unused else str(error)
            yield _finding(f"recipe {name}", ok=unused, detail=detail)


def _is_unused(parts: Parts, name: str) -> bool:
    """Whether a recipe is as relens brought it, and no gallery is filled by it."""
    if name not in BUILT_IN or (parts.home.recipes / f"{name}.yaml").read_bytes() != built_in(name):
        return False
    with parts.catalog.read() as tx:
        return name not in {gallery.recipe for gallery in galleries.every(tx)}


def _blobs(parts: Parts, *, deep: bool, say: Callable[[str], None]) -> Iterator[Finding]:
    with parts.catalog.read() as tx:
        rows = tx.execute(sa.select(blob_rows.c.digest, blob_rows.c.size, blob_rows.c.kind)).all()
    if deep and rows:
        say(f"reading {len(rows)} blobs, {sum(row.size for row in rows) / 1e6:.0f} MB")
    wrong = []
    for row in rows:
        try:
            problem = _blob_problem(parts, row, deep=deep)
        except Broken as error:  # every other would have to be waited for as long
            yield _finding("blobs", ok=False, detail=str(error))
            return
        if problem is not None:
            wrong.append(problem)
    for problem in wrong[:SHOWN]:
        yield _finding("blob", ok=False, detail=problem)
    if len(wrong) > SHOWN:
        yield _finding("blobs", ok=False, detail=f"{len(wrong) - SHOWN} more are damaged or missing")
    if not wrong:
        yield _finding("blobs", ok=True, detail=f"{len(rows)} there, {'every byte' if deep else 'sizes'} checked")


def _blob_problem(parts: Parts, row: Any, *, deep: bool) -> str | None:
    try:
        size = parts.blobs.size(row.digest)
        if size != row.size:
            return f"{row.kind} {row.digest} has {size} bytes, not {row.size}"
        if deep:
            parts.blobs.verify(row.digest)
    except RelensError as error:
        if error.code.startswith("store.remote"):
            raise
        return f"{row.kind}: {error}"
    return None


def _finding(what: str, *, ok: bool, detail: str) -> Finding:
    return {"what": what, "ok": ok, "detail": detail}
