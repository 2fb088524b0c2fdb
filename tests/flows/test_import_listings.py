"""Import of CSV and JSONL listings, and the names that files and users may give."""

import csv
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relens.bulk import escape_path, unescape_path
from relens.bulk.listings import Entry, file_uri, path_of
from relens.bulk.sources import find_source
from relens.errors import BadInput
from relens.testing.homes import books, fill, quarantined
from relens.testing.moments import put_aside, work
from relens.testing.pictures import draw
from relens.values import digest_of

LINES = [
    {"uri": "a.jpg", "id": "A-1", "title": "Shoe “Größe 42”", "price": "19.90", "shop": "north", "colour": "rosé"},
    {"uri": "deep/b.jpg", "id": "B-2", "day": "2025-03-01", "colour": "red"},
    {"uri": "c.jpg", "id": "C-3", "day": "2025-03-02", "price": "0"},
    {"uri": "a.jpg", "id": "A-again", "title": "the same picture"},
]
FILES = {"a.jpg": 1, "deep/b.jpg": 2, "c.jpg": 3}


def write_csv(path, lines):
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)
    return path


def write_jsonl(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_a_listing_brings_ids_titles_prices_shops_days_and_free_columns(home, folder, write):
    fill(folder, FILES)
    suffix = ".csv" if write is write_csv else ".jsonl"
    plan = home.run(write(folder / f"listing{suffix}", LINES))
    assert books(plan) == {
        "read": (4, 3, {"already-in-gallery": 1}, 0, 0),
        "decode": (3, 3, {}, 0, 0),
        "crop": (3, 3, {}, 0, 3),
        "embed": (3, 3, {}, 0, 3),
        "seal": (3, 3, {}, 0, 3),
    }
    best = home.search(draw(1))[0]
    first, second = best.items
    uri = file_uri(os.fsencode(folder / "a.jpg"))
    assert first.pop("day") == second.pop("day")
    assert first == {
        "id": "A-1",
        "uri": uri,
        "title": "Shoe “Größe 42”",
        "price": 19.9,
        "shop": "north",
        "colour": "rosé",
    }
    assert second == {"id": "A-again", "uri": uri, "title": "the same picture"}
    assert home.search(draw(2))[0].items[0]["day"] == "2025-03-01"
    assert home.search(draw(3))[0].items[0]["price"] == 0


def test_segments_are_cut_by_day(home, folder):
    fill(folder, FILES)
    plan = home.run(write_csv(folder / "listing.csv", LINES))
    assert books(plan)["seal"] == (3, 3, {}, 0, 3)  # two days that the listing names, and today
    assert home.local().gallery("album")["segments"] == 3
    assert len(home.found()) == 3


def test_lines_that_cannot_be_used_are_accounted_for_one_by_one(home, folder):
    fill(folder, {"a.jpg": 1, "b.jpg": 2})
    lines = [
        {"uri": "a.jpg", "id": "good"},
        '{"uri": "a.jpg", ',
        '["no", "object"]',
        {"id": "no uri"},
        {"uri": 7},
        {"uri": "a.jpg", "id": "p", "price": "cheap"},
        {"uri": "a.jpg", "id": "n", "price": "nan"},
        {"uri": "a.jpg", "id": "d", "day": "yesterday"},
        {"uri": "a.jpg", "id": "e", "day": "2025-02-30"},
        {"uri": "b.jpg", "id": "good"},
        {"uri": "nowhere.jpg", "id": "lost"},
        {"uri": "ftp://example.org/a.jpg", "id": "far"},
        {"uri": "b.jpg", "id": "also good"},
        "",
    ]
    plan = home.run(write_jsonl(folder / "listing.jsonl", lines))
    assert books(plan)["read"] == (13, 2, {"duplicate-id": 1}, 10, 0)
    codes = dict.fromkeys([f"line-{number}" for number in range(2, 10)], "bulk.bad-line")
    codes |= {"lost": "bulk.unreadable", "far": "bulk.unsupported-uri"}
    assert {entry: code for entry, _, code in quarantined(plan)} == codes
    assert home.items() == {"good": digest_of(draw(1)), "also good": digest_of(draw(2))}


def test_lines_of_csv_with_too_few_or_too_many_fields_are_accounted_for(home, folder):
    fill(folder, {"a.jpg": 1, "b,c.jpg": 2})
    (folder / "listing.csv").write_bytes(
        b'\xef\xbb\xbf uri ,id\r\na.jpg,one\r\n\r\na.jpg\r\na.jpg,two,three\r\n"b,c.jpg","a ""quoted""\nname"\r\n'
    )
    plan = home.run(folder / "listing.csv")
    assert books(plan)["read"] == (4, 2, {}, 2, 0)
    assert home.items() == {"one": digest_of(draw(1)), 'a "quoted"\nname': digest_of(draw(2))}


@pytest.mark.parametrize("header", ["", "id,title\n1,2\n", "uri,uri\na,b\n"])
def test_a_csv_without_a_column_of_uris_is_refused(home, folder, header):
    (folder / "listing.csv").write_text(header)
    with pytest.raises(BadInput) as caught:
        home.run(folder / "listing.csv")
    assert caught.value.code == "bulk.bad-listing"


def test_uris_may_be_relative_absolute_or_file_uris(home, folder, tmp_path):
    fill(folder, {"a b.jpg": 1})
    fill(tmp_path / "else where", {"ü%.jpg": 2, "d.jpg": 3})
    absolute = tmp_path / "else where" / "ü%.jpg"
    lines = [
        {"uri": "a b.jpg", "id": "relative"},
        {"uri": "../else where/d.jpg", "id": "up"},
        {"uri": str(absolute), "id": "absolute"},
        {"uri": absolute.as_uri(), "id": "uri"},
        {"uri": absolute.as_uri().replace("file://", "file://localhost"), "id": "localhost"},
        {"uri": absolute.as_uri().replace("file://", "file://elsewhere"), "id": "other host"},
    ]
    plan = home.run(write_jsonl(folder / "listing.jsonl", lines))
    one, two, three = (digest_of(draw(seed)) for seed in (1, 2, 3))
    assert home.items() == {"relative": one, "up": three, "absolute": two, "uri": two, "localhost": two}
    assert quarantined(plan) == [("other host", "read", "bulk.unsupported-uri")]


def test_without_an_id_the_uri_as_it_is_written_names_the_item(home, folder):
    fill(folder, FILES)
    home.run(write_csv(folder / "listing.csv", [{"uri": "a.jpg", "id": ""}, {"uri": "deep/b.jpg", "id": ""}]))
    assert set(home.items()) == {"a.jpg", "deep/b.jpg"}


def test_importing_a_listing_again_updates_items_and_keeps_the_day_of_undated_ones(home, folder):
    fill(folder, FILES)
    home.run(write_csv(folder / "listing.csv", LINES))
    changed = [{**line, "title": "new", "day": ""} for line in LINES]
    plan = home.run(write_csv(folder / "listing.csv", changed))
    assert books(plan)["read"] == (4, 0, {"already-in-gallery": 4}, 0, 0)
    item = home.search(draw(2))[0].items[0]
    assert (item["title"], item["day"]) == ("new", "2025-03-01")


def test_a_day_that_a_listing_corrects_is_taken_over(home, folder):
    fill(folder, FILES)
    home.run(write_csv(folder / "listing.csv", LINES[1:2]))
    home.run(write_csv(folder / "listing.csv", [{**LINES[1], "day": "2025-04-04"}]))
    assert home.search(draw(2))[0].items[0]["day"] == "2025-04-04"


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_a_listing_takes_items_off_the_shelf_and_puts_them_back(home, folder, write):
    def shelf(*flags):
        lines = [{"uri": name, "id": name, "off_shelf": flag} for name, flag in zip("abc", flags, strict=True)]
        plan = home.run(write(folder / f"listing{'.csv' if write is write_csv else '.jsonl'}", lines))
        items = {name: home.local().item("album", name).get("off_shelf", False) for name in "abc"}
        return items, [one["entry"] for one in plan.get("quarantine", [])]

    fill(folder, {name: seed for seed, name in enumerate("abc", 1)})
    true, false = ("true", "no") if write is write_csv else (True, False)
    assert shelf(true, false, None) == ({"a": True, "b": False, "c": False}, [])
    assert shelf(None, true, "perhaps") == ({"a": True, "b": True, "c": False}, ["line-3"])
    assert shelf(false, None, true) == ({"a": False, "b": True, "c": True}, [])


# -- what listings of strangers hold --------------------------------------------------------------------------------

GOOD_AFTER_ALL = {
    "NUL in a title": {"title": "x\0y"},
    "NUL in a free column": {"free": "x\0y"},
    "NUL deep in a free column": {"free": {"deep": ["x\0y"]}},
    "NUL in the name of a column": {"fr\0ee": 1},
    "a column that would be ours without its NUL": {"i\0d": "fake", "ur\0i": "fake"},
    "NaN in a free column": '"free": NaN',
    "infinity in a free column": '"free": [1e400, -Infinity]',
    "half a surrogate in a title": '"title": "\\ud800"',
    "half a surrogate deep in a free column": '"free": ["\\ud800"]',
    "free columns called as parts of an answer": {"picture": 1, "gallery": 1, "items": [], "score": 9},
    "a very large number in a free column": {"free": 10**400},
    "a title that is no text": {"title": {"a": [1]}},
    "a quote ' and \" and \\ in a title": {"title": "'; DROP TABLE items; --\"\\"},
}
BAD_LINES = {
    "half a surrogate in a uri": '"uri": "\\ud800.jpg"',
    "a price that is too large": {"price": 10**400},
    "a price that is a list": {"price": [1]},
    "a day that is a number": {"day": 20250301},
    "very deep nesting": '"free": ' + "[" * 100_000 + "]" * 100_000,
    "deep nesting": '"free": ' + "[" * 500 + "]" * 500,
    "an id that is too long": {"id": os.urandom(5000).hex()},
}
BAD_FILES = {
    "a uri that is no uri": {"uri": "file://[::1/a.jpg"},
    "a scheme in capitals of a file that is not there": {"uri": "FILE:///nowhere.jpg"},
    "NUL in a uri": {"uri": "a\0.jpg"},
    "NUL in a file uri": {"uri": "file:///a%00.jpg"},
    "a name that is too long": {"uri": "a" * 5000 + ".jpg"},
    "a folder": {"uri": "."},
    "a device": {"uri": "/dev/null"},
    "a device that never ends": {"uri": "/dev/zero"},
}


def hostile_line(what, told):
    """A line of JSONL with what is told of it on top of a good uri and an id of its own; the last word counts."""
    start = json.dumps({"uri": "a.jpg", "id": what})[:-1]
    return start + ", " + (told if isinstance(told, str) else json.dumps(told)[1:-1]) + "}"


def test_hostile_lines_harm_nobody_but_themselves(new_home, folder):
    home = new_home(pack_size=1)
    fill(folder, {"a.jpg": 1, "good.jpg": 2})
    local = home.local()
    hostile = GOOD_AFTER_ALL | BAD_LINES | BAD_FILES
    lines = [*[hostile_line(*one) for one in hostile.items()], {"uri": "good.jpg", "id": "good"}]
    plan = local.start_import(write_jsonl(folder / "listing.jsonl", lines), gallery="album").plan
    work(local, plan, until=put_aside(local, plan))
    shown = local.plan(plan)
    assert shown["state"] == "done", shown.get("error")
    assert books(shown)["read"][0] == len(lines)
    failed = {one["entry"]: one["code"] for one in shown["quarantine"]}
    by_number = {f"line-{number}": what for number, what in enumerate(hostile, 1)}
    assert {by_number[entry] for entry, code in failed.items() if code == "bulk.bad-line"} == set(BAD_LINES)
    assert {entry for entry, code in failed.items() if code != "bulk.bad-line"} == set(BAD_FILES)
    assert home.items() == dict.fromkeys(GOOD_AFTER_ALL, digest_of(draw(1))) | {"good": digest_of(draw(2))}
    [found] = [match.to_json() for match in home.search(draw(1)) if match.picture.sha256 == digest_of(draw(1))]
    assert {item["id"] for item in found["items"]} == set(GOOD_AFTER_ALL)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


def test_an_item_may_be_called_as_a_broken_line_is(home, folder):
    fill(folder, {"a.jpg": 1})
    home.run(write_jsonl(folder / "listing.jsonl", ["broken", {"uri": "a.jpg", "id": "line-1"}]))
    assert set(home.items()) == {"line-1"}


def test_an_id_of_null_is_no_id(home, folder):
    fill(folder, {"a.jpg": 1, "b.jpg": 2})
    home.run(write_jsonl(folder / "listing.jsonl", [{"uri": "a.jpg", "id": None}, {"uri": "b.jpg", "id": None}]))
    assert set(home.items()) == {"a.jpg", "b.jpg"}


def test_items_without_ids_in_a_listing_that_is_no_utf_8_stay_apart(home, folder):
    fill(folder, {b"\xe4.jpg": 1, b"\xf6.jpg": 2})
    (folder / "listing.csv").write_bytes(b"uri\n\xe4.jpg\n\xf6.jpg\n")
    plan = home.run(folder / "listing.csv")
    assert books(plan)["read"] == (2, 2, {}, 0, 0)
    assert home.items() == {"%E4.jpg": digest_of(draw(1)), "%F6.jpg": digest_of(draw(2))}


def test_a_pipe_or_a_device_is_no_picture(home, folder):
    fill(folder, {"a.jpg": 1})
    os.mkfifo(folder / "pipe.jpg")  # whoever opens it waits for ever
    (folder / "zero.jpg").symlink_to("/dev/zero")  # whoever reads it never ends
    plan = home.run(folder)
    assert books(plan)["read"] == (3, 1, {}, 2, 0)
    assert [entry for entry, _, _ in quarantined(plan)] == ["pipe.jpg", "zero.jpg"]


# -- names of files -------------------------------------------------------------------------------------------------

ODD_NAMES = {
    b"plain.jpg": "plain.jpg",
    b"100%.jpg": "100%25.jpg",
    b"%41.jpg": "%2541.jpg",
    b"two\nlines.jpg": "two%0Alines.jpg",
    b"tab\there.jpg": "tab%09here.jpg",
    b"latin \xe4.jpg": "latin %E4.jpg",
    "utf-8 ä ☃.jpg".encode(): "utf-8 ä ☃.jpg",
    b"half \xf0\x9f\x98.jpg": "half %F0%9F%98.jpg",
    b"surrogate \xed\xa0\x80.jpg": "surrogate %ED%A0%80.jpg",
    b" spaces .jpg": " spaces .jpg",
    b"sub\xff/\\back'slash\".jpg": "sub%FF/\\back'slash\".jpg",
    b"del\x7f.jpg": "del%7F.jpg",
    b"-rf.jpg": "-rf.jpg",
    b"#hash?query.jpg": "#hash?query.jpg",
}


def test_files_of_any_name_come_in_under_ids_that_can_be_read_back(home, folder):
    fill(folder, dict(zip(ODD_NAMES, range(len(ODD_NAMES)), strict=True)))
    plan = home.run(folder)
    assert quarantined(plan) == []
    expected = {escaped: digest_of(draw(seed)) for seed, escaped in enumerate(ODD_NAMES.values())}
    assert home.items() == expected
    for found in home.contents():
        for item in found["items"]:
            name = unescape_path(item["key"])
            assert ODD_NAMES[name] == item["key"]
            assert path_of(item["uri"]) == os.fsencode(folder) + b"/" + name


def test_a_file_whose_path_is_too_long_for_an_id_harms_nobody_else(home, folder):
    deep = b"/".join(bytes(random.Random(level).choices(range(0xA0, 0x100), k=200)) for level in range(12))
    fill(folder, {deep + b".jpg": 1, "good.jpg": 2})
    local = home.local()
    plan = local.start_import(folder, gallery="album").plan
    work(local, plan, until=put_aside(local, plan))
    assert local.plan(plan)["state"] == "done", local.plan(plan).get("error")
    assert home.items()["good.jpg"] == digest_of(draw(2))


def test_a_folder_of_any_name_can_be_imported(home, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff\n%")
    fill(folder, {"a.jpg": 1})
    plan = home.run(find_source(tmp_path).path / folder)
    assert plan["state"] == "done"
    assert plan["source"].endswith("/odd %FF%0A%25")
    assert home.items() == {"a.jpg": digest_of(draw(1))}


@given(st.binary())
def test_an_escaped_path_can_be_read_back_and_is_clean_text(path):
    escaped = escape_path(path)
    assert unescape_path(escaped) == path
    escaped.encode()
    assert not any(character < " " or character == "\x7f" for character in escaped)


@given(st.text().filter(lambda text: "%" not in text and text.isprintable()))
def test_plain_text_is_its_own_escape(text):
    assert escape_path(text.encode()) == text


@given(st.binary().map(lambda tail: b"/" + tail.replace(b"\0", b"0")))
def test_the_uri_of_a_file_leads_back_to_it(path):
    assert path_of(file_uri(path)) == path


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_a_line_of_a_listing_is_one_line_and_comes_back(name, title, data):
    entry = Entry(1, name, "file:///a", title=title or None, data=data)
    line = entry.to_line()
    assert line.splitlines() == [line[:-1]]
    assert Entry(**json.loads(line)) == entry
