"""Reading ahead: in order, bounded, once each, and kept in files or not at all."""

import threading

import pytest

from relens.bulk import reading
from relens.bulk.reading import AHEAD, THREADS, Reader
from relens.config import Fetch
from relens.errors import BadInput, Broken
from relens.testing.pictures import draw
from relens.testing.sites import answer


@pytest.fixture
def reader(tmp_path):
    reader = Reader(Fetch(allow_private=True, retries=0, per_host_parallel=99), tmp_path / "fetched", max_bytes=100_000)
    yield reader
    reader.close()


def files(tmp_path):
    return [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()]


def urls(site, count):
    site.pages |= {f"/{number}.jpg": draw(number) for number in range(count)}
    return [site.url(f"/{number}.jpg") for number in range(count)]


def test_everything_comes_as_it_is_and_in_whatever_order_it_is_asked_for(reader, site):
    given = urls(site, 50)
    with reader.open(1, 1, given) as found:
        for number in [*range(1, 50), 0]:
            assert found.read(given[number]) == draw(number)
    assert len(site.asked) == 50


def test_only_so_much_is_fetched_ahead(reader, site):
    given = urls(site, 100)
    with reader.open(1, 1, given) as found:
        found.read(given[0])
        while len(set(site.asked)) < AHEAD:
            site.over.wait(0.01)
        found.read(given[1])
    assert len(site.asked) <= AHEAD + 1 + 1


def test_while_one_is_computed_others_are_fetched(reader, site):
    given = urls(site, 3)
    with reader.open(1, 1, given) as found:
        found.read(given[0])
        while len(site.asked) < 3:  # nobody asks for them
            site.over.wait(0.01)


def test_the_same_url_twice_is_fetched_once(reader, site):
    [url] = urls(site, 1)
    with reader.open(1, 1, [url, url]) as found:
        assert found.read(url) == found.read(url) == draw(0)
    assert site.asked == ["/0.jpg"]


def test_an_error_is_that_of_its_own_url(reader, site):
    given = urls(site, 3)
    site.pages["/1.jpg"] = answer(b"", status=404)
    with reader.open(1, 1, given) as found:
        assert found.read(given[0]) == draw(0)
        with pytest.raises(BadInput) as caught:
            found.read(given[1])
        assert found.read(given[2]) == draw(2)
    assert caught.value.code == "fetch.status"


def test_another_run_of_the_pack_finds_what_the_first_one_fetched(reader, site, tmp_path):
    given = urls(site, 4)
    for _ in range(2):
        with reader.open(1, 1, given) as found:
            assert [found.read(url) for url in given] == [draw(number) for number in range(4)]
    assert len(site.asked) == len(files(tmp_path)) == 4
    with reader.open(1, 2, given) as found:  # another pack
        found.read(given[0])
    assert len(site.asked) > 4


def test_what_is_forgotten_is_gone(reader, site, tmp_path):
    given = urls(site, 2)
    with reader.open(1, 1, given) as found:
        [found.read(url) for url in given]
        found.forget()
    assert list((tmp_path / "fetched").iterdir()) == []


def test_packs_of_one_plan_forget_only_their_own(reader, site, tmp_path):
    [one, two] = urls(site, 2)
    with reader.open(1, 1, [one]) as first, reader.open(1, 2, [two]) as second:
        first.read(one)
        second.read(two)
        first.forget()
        assert len(files(tmp_path)) == 1


def test_without_leave_to_keep_no_file_has_a_name(reader, site, tmp_path):
    given = urls(site, 3)
    with reader.open(1, 1, given, keep=False) as found:
        for number, url in enumerate(given):
            assert found.read(url) == draw(number)
            assert files(tmp_path) == []


def test_files_of_plans_that_are_over_are_swept(reader, site, tmp_path):
    [url] = urls(site, 1)
    for plan in (1, 2):
        with reader.open(plan, 1, [url]) as found:
            found.read(url)
    reader.sweep(lambda: [2, 3])
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["2"]
    reader.sweep(list)
    assert files(tmp_path) == []


def test_where_nothing_was_fetched_nobody_asks_which_plans_are_over(reader):
    reader.sweep(lambda: pytest.fail("there is nothing to sweep"))


def test_who_waits_is_asked_whether_to_go_on(reader, site):
    site.pages["/silent.jpg"] = site.silent

    def stop():
        raise KeyboardInterrupt

    url = site.url("/silent.jpg")
    with pytest.raises(KeyboardInterrupt), reader.open(1, 1, [url]) as found:
        found.read(url, stop)


def test_leaving_ends_what_is_under_way(reader, site):
    site.pages["/silent.jpg"] = site.silent
    given = [site.url(f"/silent.jpg?{number}") for number in range(50)]
    before = threading.active_count()
    with reader.open(1, 1, given) as found:
        found._fetch_ahead()
        while len(site.asked) < THREADS:
            site.over.wait(0.01)
    while any(thread.name.startswith("fetch") for thread in threading.enumerate()):
        site.over.wait(0.01)
    assert threading.active_count() <= before + THREADS + 1  # those of the server


def test_a_disk_that_is_full_is_nobody_s_fault(reader, site, monkeypatch):
    [url] = urls(site, 1)

    def full(_files):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading._Fetched, "_new", full)
    with reader.open(1, 1, [url]) as found, pytest.raises(Broken, match="No space left") as caught:
        found.read(url)
    assert caught.value.code == "fetch.disk"


@pytest.mark.parametrize("uri", ["ftp://a.test/a.jpg", "gopher://a", "http:a.jpg", "tar:a", "s3:a", "", "a.jpg"])
def test_what_nobody_reads_is_refused(reader, uri):
    with reader.open(1, 1, [uri]) as found, pytest.raises(BadInput) as caught:
        found.read(uri)
    assert caught.value.code == "bulk.unsupported-uri"
