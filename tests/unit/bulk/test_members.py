"""Archives: every picture of one is listed or accounted for, whatever it looks like, and is read where it lies."""

import contextlib
import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relens.bulk import members
from relens.bulk.listings import unescape_path
from relens.bulk.members import MAX_HEADER, list_archive, uri_of_archive
from relens.errors import BadInput

LIMIT = 10**6


def archive(files, **options):
    """The bytes of an archive of (name, data) pairs, or TarInfos."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def listed(data):
    return list(list_archive(io.BytesIO(data), "tar:///a.tar"))


def range_of(data):
    return lambda _uri, offset, length: data[offset : offset + length]


def read(entry, data):
    return members.read(entry.uri, max_bytes=LIMIT, read_range=range_of(data))


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "deep/" * 30 + "x" * 90 + ".jpg"
ODD = [
    "a b.jpg",
    "ü☃.jpg",
    "100%.jpg",
    "#hash?.jpg",
    "&offset=0&length=9.jpg",
    "two\nlines.jpg",
    "./dot.jpg",
    "/abs.jpg",
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", [*ODD, "../up.jpg", LONG, "CAPITALS.JPG", "deep/er/a.webp"])
def test_a_member_of_any_name_is_listed_and_read(form, name):
    if form == tarfile.USTAR_FORMAT and name == LONG:
        name = name[5:]
    data = archive([("before.txt", b"x" * 700), (name, b"picture"), ("z.jpg", b"last")], format=form)
    first, last = listed(data)
    assert (first.problem, read(first, data), read(last, data)) == (None, b"picture", b"last")
    key = name.removeprefix("./").rpartition("/")
    assert unescape_path(first.id).decode() == key[0] + key[1] + key[2].partition(".")[0]


def test_a_name_that_is_no_utf_8_is_listed():
    member = tarfile.TarInfo(b"latin \xe4.jpg".decode("utf-8", "surrogateescape"))
    data = archive([(member, b"picture")], format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")
    [entry] = listed(data)
    assert (entry.id, read(entry, data)) == ("latin %E4", b"picture")
    entry.to_line()


@pytest.mark.parametrize(
    "name", [".hidden.jpg", "a/.hidden.jpg", ".git/a.jpg", "__MACOSX/._a.jpg", "noending", "a.txt", "a."]
)
def test_hidden_members_and_those_that_are_no_pictures_are_left_out(name):
    assert listed(archive([(name, b"x")])) == []


def test_several_pictures_of_one_key_have_their_whole_names():
    data = archive([("a.left.jpg", b"1"), ("a.json", b'{"id": "told", "title": "both"}'), ("a.right.jpg", b"2")])
    assert [(entry.id, entry.title) for entry in listed(data)] == [("a.left.jpg", "both"), ("a.right.jpg", "both")]


@pytest.mark.parametrize(("told", "expected"), [("mine", "mine"), (7, "7"), ("", "k"), (None, "k")])
def test_a_sidecar_may_name_the_item(told, expected):
    [entry] = listed(archive([("k.jpg", b"1"), ("k.json", json.dumps({"id": told, "uri": "ignored"}).encode())]))
    assert entry.id == expected
    assert entry.data == {}


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("json", b"{"),
        ("json", b"[1]"),
        ("json", b"[" * 100_000),
        ("json", b'{"price": "cheap"}'),
        ("txt", b"x" * 2**20 + b"x"),
    ],
)
def test_a_sidecar_that_cannot_be_used_costs_its_own_picture(extension, data):
    found = listed(archive([("a.jpg", b"1"), (f"a.{extension}", data), ("b.jpg", b"2")]))
    assert [(entry.id, entry.problem is None) for entry in found] == [("line-1", False), ("b", True)]


def test_links_and_devices_are_accounted_for():
    files = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo(f"{kind.decode()}.jpg")
        member.type, member.linkname = kind, "/etc/hostname"
        files.append((member, b""))
    found = listed(archive([*files, ("a.jpg", b"1")]))
    assert [entry.problem is None for entry in found] == [False] * 4 + [True]


def test_an_empty_archive_has_no_pictures():
    assert listed(archive([])) == []


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b" + bytes(600), b"uri\na.jpg\n" * 100, bytes(511)])
def test_what_is_no_archive_is_refused(data):
    with pytest.raises(BadInput) as caught:
        listed(data)
    assert caught.value.code == "bulk.bad-listing"


WHOLE = archive(
    [(f"{number}.jpg", bytes([number]) * (300 * number)) for number in range(6)] + [("5.json", b'{"a": 1}')]
)
LAST = WHOLE.rindex(b"5.json")


@given(st.integers(1, len(WHOLE) - 1))
def test_of_an_archive_that_was_cut_nothing_is_lost_without_a_word(length):
    cut = WHOLE[:length]
    try:
        found = listed(cut)
    except BadInput:
        assert length < 512
        return
    sound = 0
    for entry in found:
        if entry.problem is None:
            try:
                data = read(entry, cut)
            except BadInput as error:
                assert error.code == "bulk.archive-changed"  # noqa: PT017 - it may, it need not
            else:
                number = int(entry.id)
                assert data == bytes([number]) * (300 * number)
                sound += 1
    told = [entry for entry in found if entry.problem is not None]
    assert sound == 6 or told or sound < len(found)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))
def test_a_damaged_archive_ends_and_hurts_nobody(damage):
    data = bytearray(WHOLE)
    for at, patch in damage:
        data[at : at + len(patch)] = patch
    try:
        found = listed(bytes(data))
    except BadInput:
        return
    for entry in found:
        entry.to_line()
        if entry.problem is None:
            with contextlib.suppress(BadInput):
                read(entry, bytes(data))


def with_size(data, field):
    """An archive whose first header states another size, with a checksum that fits."""
    header = bytearray(data[:512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    "field",
    [
        b"\xff" * 11 + b"\x00",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"77777777777\0",
        b"99999999999\0",
        b"-0000000512\0",
    ],
)
def test_a_size_that_leads_back_or_far_away_does_not_end_in_a_loop(field):
    plain = with_size(archive([("a.jpg", b"1"), ("b.jpg", b"2")]), field)
    try:
        found = listed(plain)
    except BadInput:
        return
    assert any(entry.problem is not None for entry in found)


def test_attributes_that_claim_the_whole_archive_are_not_read():
    member = tarfile.TarInfo("a.jpg")
    member.pax_headers = {"comment": "x" * (2 * MAX_HEADER)}
    with pytest.raises(BadInput, match="claims"):
        listed(archive([(member, b"1")], format=tarfile.PAX_FORMAT))


# -- reading --------------------------------------------------------------------------------------------------------


def test_a_member_is_read_from_a_file_of_any_name(tmp_path):
    path = tmp_path / "odd #%&? ü.tar"
    path.write_bytes(WHOLE)
    with path.open("rb") as file:
        found = list(list_archive(file, uri_of_archive(bytes(path))))
    assert [members.read(entry.uri, max_bytes=LIMIT) for entry in found] == [bytes([n]) * (300 * n) for n in range(6)]


def test_a_member_over_the_limit_is_not_read():
    entry = listed(WHOLE)[5]
    with pytest.raises(BadInput) as caught:
        members.read(entry.uri, max_bytes=100, read_range=lambda *_: pytest.fail("it is read"))
    assert caught.value.code == "vision.too-large"


@pytest.mark.parametrize(
    "uri",
    [
        "tar:///a.tar",
        "tar:///a.tar#",
        "tar:///a.tar#offset=x&length=1",
        "tar:///a.tar#offset=0&length=1",
        "tar:///a.tar#offset=512&length=-1",
        "tar:///a.tar#offset=99999999999999999999&length=1",
        "tar:///a.tar#length=1",
        "#offset=512&length=1",
    ],
)
def test_what_names_no_member_is_refused(uri):
    with pytest.raises(BadInput) as caught:
        members.read(uri, max_bytes=LIMIT, read_range=range_of(WHOLE))
    assert caught.value.code == "bulk.unsupported-uri"


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/dev/null%00", "relative", ""])
def test_a_device_is_no_archive(path):
    with pytest.raises(BadInput) as caught:
        members.read(f"tar://{path}#offset=512&length=10", max_bytes=LIMIT)
    assert caught.value.code == "bulk.unreadable"
