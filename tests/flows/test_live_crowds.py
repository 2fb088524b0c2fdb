"""Live galleries of pictures with many objects, in categories of their own: each object lives and goes for itself."""

from __future__ import annotations

import pytest

from relens.errors import BadInput, Missing
from relens.testing.homes import books, fill
from relens.testing.street import BLUE, DARK, GREEN, RECIPE, RED, cells


@pytest.fixture
def street(home):
    """A home with an empty gallery of the recipe `street`."""
    (home.path / "recipes" / "street.yaml").write_text(RECIPE)
    home.local().create_gallery("album", recipe="street")
    return home


def found(local, category):
    """Ids that a search for something of a category finds."""
    colour = {"warm": RED, "cold": GREEN}[category]
    answer = local.search(cells(colour, seed=99), gallery="album", k=1000)
    (one,) = answer.objects
    assert one.category == category
    return {match.id for match in one.matches}


def test_all_objects_of_an_enrolled_picture_are_found_in_their_categories(street):
    local = street.local()
    assert found(local, "warm") == found(local, "cold") == set()
    done = local.enrol(cells(RED, GREEN, BLUE, RED, seed=1), gallery="album", item={"id": "a"})
    shown = [local.object(one) for one in done.objects]
    assert sorted(one.category for one in shown) == ["cold", "warm", "warm"]
    for category in ("warm", "cold"):
        assert found(local, category) == {one.id for one in shown if one.category == category}
    for one in shown:
        assert local.crop(one.id)
        assert one.items[0].key == "a"
    assert local.item("album", "a")["objects"] == list(done.objects)


def test_an_enrolment_and_an_import_make_the_same_of_a_picture(street, folder):
    local = street.local()
    picture = cells(RED, GREEN, DARK, RED, seed=1)
    local.enrol(picture, gallery="album", item={"id": "a"})
    local.create_gallery("other", recipe="street")
    street.run(fill(folder, {"a.png": picture}), gallery="other")
    mine, theirs = ([one for one in local.export(name, vectors=True) if "id" in one] for name in ("album", "other"))
    for one, other in zip(mine, theirs, strict=True):
        assert local.crop(one["id"]) == local.crop(other["id"])
        for name in ("box", "score", "category", "labels", "attributes", "space", "vector"):
            assert one[name] == other[name]


def test_a_picture_without_anything_is_taken_only_if_that_is_allowed(street):
    local = street.local()
    with pytest.raises(BadInput) as caught:
        local.enrol(cells(BLUE, BLUE, seed=2), gallery="album", item={"id": "b"})
    assert caught.value.code == "enrolment.nothing-found"
    assert "2 unwanted-label" in caught.value.message
    assert local.gallery("album")["sequence"] == 0
    done = local.enrol(cells(BLUE, BLUE, seed=2), gallery="album", item={"id": "b"}, allow_empty=True)
    assert (done.objects, done.sequence) == ((), 1)
    assert local.item("album", "b")["objects"] == []
    again = local.enrol(cells(BLUE, BLUE, seed=2), gallery="album", item={"id": "b"}, allow_empty=True)
    assert not again.changed


def test_one_object_goes_and_its_picture_stays_until_the_last(street):
    local = street.local()
    done = local.enrol(cells(RED, GREEN, RED, seed=1), gallery="album", item={"id": "a"})
    one, two, three = done.objects
    local.delete_object(one)
    assert found(local, "warm") == {three}
    again = local.enrol(cells(RED, GREEN, RED, seed=1), gallery="album", item={"id": "a"})
    assert (again.changed, again.objects) == (False, (two, three))  # what was deleted does not come back with it
    local.delete("album", objects=[two, three])
    with pytest.raises(Missing):
        local.item("album", "a")
    new = local.enrol(cells(RED, GREEN, RED, seed=1), gallery="album", item={"id": "a"})
    assert len(new.objects) == 3
    assert min(new.objects) > three


def test_of_a_living_picture_only_the_deleted_objects_are_purged(street, folder):
    local = street.local()
    street.run(fill(folder, {"b.png": cells(GREEN, RED, seed=2)}))
    done = local.enrol(cells(RED, GREEN, RED, seed=1), gallery="album", item={"id": "a"})
    crops = {one: local.crop(one) for one in done.objects}
    one, *kept = done.objects
    local.delete_object(one)
    plan = local.run(local.purge("album"))
    assert books(plan)["purge"] == (1, 1, {}, 0, 0)
    blobs = [local.parts.blobs.read(digest) for digest in local.parts.blobs.digests()]
    assert not [blob for blob in blobs if crops[one] in blob]
    assert {other: local.crop(other) for other in kept} == {other: crops[other] for other in kept}
    assert found(local, "warm") == found(street.local(), "warm")
    assert len(found(local, "warm")) == len(found(local, "cold")) == 2


def test_categories_are_folded_dropped_and_built_apart(street):
    local = street.local()
    for seed, day in ((1, "2025-06-01"), (2, "2025-06-02")):
        local.enrol(cells(RED, GREEN, RED, seed=seed), gallery="album", item={"id": str(seed), "day": day})
    before = found(local, "warm"), found(local, "cold")
    plan = local.run(local.compact("album"))
    assert books(plan) == {"fold": (6, 6, {}, 0, 4)}
    assert (found(local, "warm"), found(local, "cold")) == before
    local.run(local.drop_day("album", "2025-06-01"))
    assert (len(found(local, "warm")), len(found(local, "cold"))) == (2, 1)
    plan = local.run(local.rebuild_day("album", "2025-06-01"))
    assert books(plan)["rebuild"] == (3, 3, {}, 0, 2)
    assert (found(local, "warm"), found(local, "cold")) == before
