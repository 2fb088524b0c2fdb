"""Lenses and views: what answers, under which name, and how a new view takes the place of the old one.

A gallery's alias names a lens; the newest published view of that lens follows by itself. A view is published under the
gallery's lock as its parent, without what it replaces, with what it adds: two imports that end together both count.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from relens import gallery as galleries
from relens.errors import Conflict, Missing
from relens.gallery import Gallery
from relens.recipes import Lens
from relens.store import Tx, insert_if_absent
from relens.store.schema import (
    aliases,
    heads,
    indexes,
    lenses,
    quantizers,
    releases,
    segments,
    shelved,
    view_indexes,
    view_segments,
    views,
)
from relens.store.schema import galleries as gallery_rows
from relens.vectors import Check, IndexManifest, Manifest, QuantizerManifest

LIVE = "live"
PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class View:
    """A frozen set of segments of one gallery and lens, complete up to `sequence`.

    `folded_to` says how far single enrolments are folded in. A held view failed a check: it has no sequence. `indexes`
    lie over some of the segments; with `window_days` only segments of the newest so many days answer (`chosen`).
    """

    id: int
    gallery: int
    lens: str
    parent: int | None
    state: str
    sequence: int | None
    folded_to: int
    checks: Sequence[Mapping[str, Any]]
    segments: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    window_days: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A lens with a view of its gallery, or a lens alone (`gallery` and `view` are None). Answers carry its name."""

    name: str
    lens: str
    recipe: str
    gallery: Gallery | None
    view: View | None
    created_at: float
    retired_at: float | None = None


# -- lenses and aliases ---------------------------------------------------------------------------------------------


def register_lens(tx: Tx, lens: Lens, now: float) -> None:
    """Write a lens down. Again changes nothing."""
    insert_if_absent(tx, lenses, digest=lens.digest, recipe=lens.recipe.name, document=lens.document, created_at=now)


def get_lens(tx: Tx, digest: str) -> Lens:
    """A lens by digest."""
    return Lens.from_document(tx.execute(sa.select(lenses.c.document).where(lenses.c.digest == digest)).scalar_one())


def alias_of(tx: Tx, scope: str, alias: str = LIVE) -> str | None:
    """The digest of the lens that an alias names in a scope."""
    query = sa.select(aliases.c.lens).where(aliases.c.scope == scope, aliases.c.alias == alias)
    return tx.execute(query).scalar_one_or_none()


def gallery_scope(gallery: int) -> str:
    return f"gallery:{gallery}"


def recipe_scope(recipe: str) -> str:
    return f"recipe:{recipe}"


def _move_alias(tx: Tx, scope: str, alias: str, lens: str, now: float) -> None:
    insert_if_absent(tx, aliases, scope=scope, alias=alias, lens=lens, moved_at=now)
    where = (aliases.c.scope == scope, aliases.c.alias == alias, aliases.c.lens != lens)
    tx.execute(sa.update(aliases).where(*where).values(lens=lens, moved_at=now))


def open_recipe(tx: Tx, lens: Lens, now: float) -> Release:
    """The release of a lens alone, for a recipe without a gallery; it becomes the recipe's live one."""
    register_lens(tx, lens, now)
    scope = recipe_scope(lens.recipe.name)
    name = f"{lens.recipe.name}-{lens.digest[:12]}"
    insert_if_absent(tx, releases, name=name, scope=scope, lens=lens.digest, created_at=now)
    live = alias_of(tx, scope)
    if live != lens.digest:
        if live is not None:
            _move_alias(tx, scope, PREVIOUS, live, now)
        _move_alias(tx, scope, LIVE, lens.digest, now)
    return get(tx, name)


def find_recipe_release(tx: Tx, lens: Lens) -> Release | None:
    """The release of exactly this lens, if it is its recipe's live one already."""
    if alias_of(tx, recipe_scope(lens.recipe.name)) != lens.digest:
        return None
    return get(tx, f"{lens.recipe.name}-{lens.digest[:12]}")


# -- galleries ------------------------------------------------------------------------------------------------------


def open_gallery(tx: Tx, name: str, lens: Lens, now: float) -> Gallery:
    """The gallery of that name, made with this lens if there is none. Conflict if it has another lens.

    A new gallery has an empty view at sequence 0, so that every later view has a parent.
    """
    found = galleries.find(tx, name)
    if found is not None:
        require_lens(tx, found, lens)
        return found
    register_lens(tx, lens, now)
    made = galleries.create(tx, name, lens.recipe.name, now)
    if made is None:  # somebody made it at this moment
        return open_gallery(tx, name, lens, now)
    _move_alias(tx, gallery_scope(made.id), LIVE, lens.digest, now)
    view = _insert_view(tx, gallery=made.id, lens=lens.digest, parent=None, plan=None, sequence=0, folded_to=0, now=now)
    tx.execute(sa.insert(heads).values(gallery=made.id, lens=lens.digest, view=view))
    _insert_release(tx, made, lens.digest, view, now)
    return made


def live_lens(tx: Tx, gallery: Gallery) -> Lens:
    """The lens that answers for a gallery."""
    digest = alias_of(tx, gallery_scope(gallery.id))
    if digest is None:
        raise Missing("releases.no-live", f"gallery {gallery.name} has no live lens")
    return get_lens(tx, digest)


def require_lens(tx: Tx, gallery: Gallery, lens: Lens) -> None:
    """Conflict, naming both, if a gallery keeps another lens."""
    held = live_lens(tx, gallery)
    if held.digest != lens.digest:
        differs = [key for key in lens.document if lens.document[key] != held.document[key]]
        raise Conflict(
            "releases.other-lens",
            f"gallery {gallery.name} keeps lens {held.digest[:12]} ({_in_words(held)}); recipe {lens.recipe.name} now "
            f"resolves to lens {lens.digest[:12]} ({_in_words(lens)}); they differ in: {', '.join(differs)}",
            hint="import into a new gallery, or set the recipe back to what the gallery was made with",
        )


@dataclass(frozen=True, slots=True)
class Pointer:
    """What answers for a gallery at this moment, as briefly as a question needs it.

    `sequence` is the gallery's own: what an answer must have seen. It may be newer than the release's view.
    """

    release: str
    lens: str
    sequence: int


# Asked for every question: built once, one round trip.
_POINTER = (
    sa.select(releases.c.name, releases.c.lens, gallery_rows.c.sequence)
    .join(views, views.c.id == releases.c.view)
    .join(heads, heads.c.view == views.c.id)
    .join(gallery_rows, gallery_rows.c.id == heads.c.gallery)
    .join(
        aliases,
        sa.and_(
            aliases.c.lens == heads.c.lens,
            aliases.c.scope == sa.literal("gallery:") + sa.cast(gallery_rows.c.id, sa.Text),
        ),
    )
    .where(
        gallery_rows.c.name == sa.bindparam("gallery"),
        gallery_rows.c.removed_at.is_(None),
        aliases.c.alias == sa.bindparam("alias"),
    )
)


def _in_words(lens: Lens) -> str:
    models = [f"{lens.recipe.models[role]} of digest {digest[:12]}" for role, digest in lens.digests.items()]
    return ", ".join([f"recipe {lens.recipe.name}", *dict.fromkeys(models)])


def point(tx: Tx, gallery: str, alias: str = LIVE) -> Pointer:
    """What answers for a gallery now: the lens of the alias with its newest view. Missing if nothing does."""
    name = gallery if gallery.isascii() and gallery.isprintable() else ""  # what no catalog takes is no name
    row = tx.execute(_POINTER, {"gallery": name, "alias": alias}).one_or_none()
    if row is None:
        galleries.get(tx, gallery)
        raise Missing("releases.no-alias", f"gallery {gallery} has no {alias} release")
    return Pointer(row.name, row.lens, row.sequence)


def resolve(tx: Tx, gallery: str, alias: str = LIVE) -> Release:
    """The release that answers for a gallery now."""
    return get(tx, point(tx, gallery, alias).release)


# -- views ----------------------------------------------------------------------------------------------------------


def head_of(tx: Tx, gallery: int, lens: str) -> View:
    """The newest published view of a lens of a gallery."""
    query = sa.select(heads.c.view).where(heads.c.gallery == gallery, heads.c.lens == lens)
    return get_view(tx, tx.execute(query).scalar_one())


def folded_to(tx: Tx, gallery: int) -> int:
    """How far single enrolments are folded into the newest views of all lenses of a gallery."""
    query = sa.select(sa.func.min(views.c.folded_to)).join(heads, heads.c.view == views.c.id)
    return int(tx.execute(query.where(heads.c.gallery == gallery)).scalar_one())


def get_view(tx: Tx, view: int) -> View:
    """A view by id, with its segments in order."""
    row = tx.execute(sa.select(views).where(views.c.id == view)).one()
    query = sa.select(view_segments.c.segment).where(view_segments.c.view == view).order_by(view_segments.c.segment)
    return View(
        id=row.id,
        gallery=row.gallery,
        lens=row.lens,
        parent=row.parent,
        state=row.state,
        sequence=row.sequence,
        folded_to=row.folded_to,
        checks=row.checks,
        segments=tuple(tx.execute(query).scalars()),
        indexes=_indexes_of(tx, view),
        window_days=row.window_days,
    )


def segments_of(tx: Tx, view: View) -> list[dict[str, Any]]:
    """A view's segments and those on the shelf of its gallery and lens, by day and category, as JSON."""
    where = (shelved.c.gallery == view.gallery, shelved.c.lens == view.lens)
    on_shelf = set(tx.execute(sa.select(shelved.c.segment).where(*where)).scalars())
    columns = [segments.c[name] for name in ("digest", "category", "day", "space", "count", "as_of", "created_at")]
    query = sa.select(*columns).where(segments.c.gallery == view.gallery)
    rows = tx.execute(query.order_by(segments.c.day, segments.c.category, segments.c.digest)).mappings()
    held = {*view.segments, *on_shelf}
    return [{**row, "shelved": row["digest"] in on_shelf} for row in rows if row["digest"] in held]


def _indexes_of(tx: Tx, view: int) -> tuple[str, ...]:
    query = sa.select(view_indexes.c.index).where(view_indexes.c.view == view).order_by(view_indexes.c.index)
    return tuple(tx.execute(query).scalars())


def chosen(tx: Tx, view: View) -> tuple[str, ...]:
    """The segments of a view that answer: all, or those within its window, which ends with its newest day."""
    if view.window_days is None or not view.segments:
        return view.segments
    query = sa.select(segments.c.digest, segments.c.day).where(segments.c.digest.in_(view.segments))
    days = {row.digest: row.day for row in tx.execute(query)}
    first = first_day(max(days.values()), view.window_days)
    return tuple(digest for digest in view.segments if days[digest] >= first)


def first_day(last: str, count: int) -> str:
    """The first of so many days of which this is the last. Days that are none ("") lie before all others."""
    return (dt.date.fromisoformat(last) - dt.timedelta(days=count - 1)).isoformat() if last else ""


def add_quantizer(tx: Tx, manifest: QuantizerManifest, now: float) -> None:
    """Write a quantizer down. Again changes nothing."""
    values = {name: getattr(manifest, name) for name in ("digest", "gallery", "space", "trained_on")}
    insert_if_absent(tx, quantizers, **values, created_at=now)


def newest_quantizer(tx: Tx, gallery: int, space: str) -> str | None:
    """What the indexes of a gallery and space share now; None if none was trained yet."""
    where = (quantizers.c.gallery == gallery, quantizers.c.space == space)
    query = sa.select(quantizers.c.digest).where(*where)
    newest = query.order_by(quantizers.c.created_at.desc(), quantizers.c.digest).limit(1)
    return tx.execute(newest).scalar_one_or_none()


def add_indexes(tx: Tx, manifests: Collection[IndexManifest], now: float) -> None:
    """Write indexes down. Again changes nothing."""
    for manifest in manifests:
        names = ("digest", "gallery", "category", "space", "quantizer", "count")
        values = {name: getattr(manifest, name) for name in names}
        insert_if_absent(tx, indexes, **values, covers=list(manifest.covers), created_at=now)


def known_indexes(tx: Tx, gallery: int, quantizer: str) -> dict[str, tuple[str, ...]]:
    """Indexes of a gallery that were made with a quantizer: digest to the digests of the segments that they cover."""
    query = sa.select(indexes.c.digest, indexes.c.covers)
    rows = tx.execute(query.where(indexes.c.gallery == gallery, indexes.c.quantizer == quantizer))
    return {row.digest: tuple(row.covers) for row in rows}


def covered_by(tx: Tx, some: Collection[str]) -> set[str]:
    """Digests of the segments that these indexes cover."""
    rows = tx.execute(sa.select(indexes.c.covers).where(indexes.c.digest.in_(some))).scalars()
    return {digest for covers in rows for digest in covers}


def segment_rows(tx: Tx, some: Collection[str]) -> list[tuple[str, str, int]]:
    """Digest, category and number of rows of segments."""
    query = sa.select(segments.c.digest, segments.c.category, segments.c.count).where(segments.c.digest.in_(some))
    return [(digest, category, int(count)) for digest, category, count in tx.execute(query)]


def _kept_indexes(tx: Tx, before: Collection[str], held: Collection[str], new: Collection[str]) -> list[str]:
    """Indexes of a view: the new ones, and of those before what still covers something that no new one does."""
    query = sa.select(indexes.c.digest, indexes.c.covers).where(indexes.c.digest.in_({*before, *new}))
    covers = {row.digest: set(row.covers) for row in tx.execute(query)}
    taken = set().union(*(covers[digest] for digest in new))
    return sorted({*new, *(digest for digest in before if (covers[digest] & set(held)) - taken)})


def add_segments(tx: Tx, manifests: Collection[Manifest], now: float) -> None:
    """Write segments down. Again changes nothing."""
    for manifest in manifests:
        insert_if_absent(
            tx,
            segments,
            digest=manifest.digest,
            gallery=manifest.gallery,
            category=manifest.category,
            day=manifest.day,
            space=manifest.space,
            count=manifest.count,
            as_of=manifest.as_of,
            created_at=now,
        )


def publish(
    tx: Tx,
    gallery: Gallery,
    lens: str,
    *,
    plan: int,
    parent: View,
    sequence: int,
    adds: Collection[str],
    replaces: Collection[str] = (),
    folded_to: int | None = None,
    new_indexes: Collection[str] = (),
    without_indexes: Collection[str] = (),
    window_days: int | Literal["as before"] | None = "as before",
    checks: Sequence[Check],
    now: float,
) -> View:
    """Make a view the newest of its lens. `parent` is what the work started from; call `gallery.lock` first.

    If another view was published since, this one becomes its successor: what that one holds, without `replaces`, with
    `adds`. Conflict if something of `replaces` is not there any more, and with `folded_to`, how far single enrolments
    are among what is added, if another view has folded some in meanwhile. Indexes go on to the new view where they
    still cover something of it, but for those `without_indexes` names.
    """
    head = head_of(tx, gallery.id, lens)
    base = parent if head.id == parent.id else head
    if gone := set(replaces) - set(base.segments):
        raise Conflict(
            "releases.replaced-meanwhile", f"segments {sorted(gone)} were replaced by another view meanwhile"
        )
    if folded_to is not None and base.folded_to != parent.folded_to:
        raise Conflict("releases.replaced-meanwhile", "another view has folded single enrolments in meanwhile")
    held = sorted((set(base.segments) - set(replaces)) | set(adds))
    view = _insert_view(
        tx,
        gallery=gallery.id,
        lens=lens,
        parent=base.id,
        plan=plan,
        sequence=sequence,
        folded_to=base.folded_to if folded_to is None else folded_to,
        now=now,
        held=held,
        checks=checks,
        over=_kept_indexes(tx, set(base.indexes) - set(without_indexes), held, new_indexes),
        window_days=base.window_days if window_days == "as before" else window_days,
    )
    where = (heads.c.gallery == gallery.id, heads.c.lens == lens, heads.c.view == base.id)
    if tx.execute(sa.update(heads).where(*where).values(view=view)).rowcount != 1:
        raise Conflict("releases.lost-race", "another view was published at the same moment")
    _insert_release(tx, gallery, lens, view, now)
    return get_view(tx, view)


def hold_view(
    tx: Tx,
    gallery: Gallery,
    lens: str,
    *,
    plan: int,
    parent: View,
    adds: Collection[str],
    checks: Sequence[Check],
    now: float,
) -> View:
    """Write down a view that its checks refused. It takes no sequence and nobody is served from it."""
    view = _insert_view(
        tx,
        gallery=gallery.id,
        lens=lens,
        parent=parent.id,
        plan=plan,
        sequence=None,
        folded_to=parent.folded_to,
        now=now,
        held=sorted({*parent.segments, *adds}),
        checks=checks,
    )
    return get_view(tx, view)


# -- releases -------------------------------------------------------------------------------------------------------


_RELEASE = sa.select(releases).where(releases.c.name == sa.bindparam("name"))


def get(tx: Tx, name: str) -> Release:
    """A release by name. Missing if there is none."""
    row = tx.execute(_RELEASE, {"name": name.replace("\0", "")}).one_or_none()
    if row is None:
        raise Missing("releases.missing", f"there is no release {name!r}", hint="`relens release ls` lists them")
    return _release(tx, row)


def newest_first(tx: Tx, limit: int = 100) -> list[Release]:
    """Releases, newest first."""
    rows = tx.execute(sa.select(releases).order_by(releases.c.id.desc()).limit(limit))
    return [_release(tx, row) for row in rows]


def aliases_of(tx: Tx, release: Release) -> list[str]:
    """The aliases whose newest view this release is."""
    scope = recipe_scope(release.recipe) if release.gallery is None else gallery_scope(release.gallery.id)
    if release.view is not None and head_of(tx, release.view.gallery, release.lens).id != release.view.id:
        return []
    query = sa.select(aliases.c.alias).where(aliases.c.scope == scope, aliases.c.lens == release.lens)
    return sorted(tx.execute(query).scalars())


def retired(tx: Tx, names: Collection[str]) -> list[str]:
    """Those of these releases that cannot be asked any more."""
    query = sa.select(releases.c.name).where(releases.c.name.in_(names), releases.c.retired_at.is_not(None))
    return list(tx.execute(query).scalars()) if names else []


def retire(tx: Tx, gallery: int, segments_gone: Collection[str], now: float) -> None:
    """Retire the gallery's releases whose views name one of these segments: they cannot be asked any more."""
    naming = sa.select(view_segments.c.view).where(view_segments.c.segment.in_(segments_gone))
    where = (releases.c.scope == gallery_scope(gallery), releases.c.view.in_(naming), releases.c.retired_at.is_(None))
    if segments_gone:
        tx.execute(sa.update(releases).where(*where).values(retired_at=now))


def _release(tx: Tx, row: Any) -> Release:
    view = None if row.view is None else get_view(tx, row.view)
    return Release(
        name=row.name,
        lens=row.lens,
        recipe=tx.execute(sa.select(lenses.c.recipe).where(lenses.c.digest == row.lens)).scalar_one(),
        gallery=None if view is None else galleries.by_id(tx, view.gallery),
        view=view,
        created_at=row.created_at,
        retired_at=row.retired_at,
    )


def _insert_release(tx: Tx, gallery: Gallery, lens: str, view: int, now: float) -> None:
    values = {"name": f"{gallery.name}-{view}", "scope": gallery_scope(gallery.id), "lens": lens, "view": view}
    tx.execute(sa.insert(releases).values(**values, created_at=now))


def _insert_view(
    tx: Tx,
    *,
    gallery: int,
    lens: str,
    parent: int | None,
    plan: int | None,
    sequence: int | None,
    folded_to: int,
    now: float,
    held: Sequence[str] = (),
    checks: Sequence[Check] = (),
    over: Sequence[str] = (),
    window_days: int | None = None,
) -> int:
    values = {
        "gallery": gallery,
        "lens": lens,
        "parent": parent,
        "plan": plan,
        "state": "held" if sequence is None else "published",
        "sequence": sequence,
        "folded_to": folded_to,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "created_at": now,
        "window_days": window_days,
    }
    view = int(tx.execute(sa.insert(views).values(values).returning(views.c.id)).scalar_one())
    if held:
        tx.execute(sa.insert(view_segments), [{"view": view, "segment": segment} for segment in held])
    if over:
        tx.execute(sa.insert(view_indexes), [{"view": view, "index": index} for index in over])
    return view
