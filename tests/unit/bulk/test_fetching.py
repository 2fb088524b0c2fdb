"""Fetching by http: whatever a server does, it ends soon, costs little and has a code."""

import contextlib
import datetime as dt
import email.utils
import io
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from relens.bulk import fetching
from relens.bulk.fetching import Fetcher, _retry_after_s
from relens.config import Fetch
from relens.errors import BadInput, Broken
from relens.testing.pictures import draw
from relens.testing.sites import answer, broken_off, in_turn, redirect

PICTURE = draw(1)


def refused(code, fetch, *args, **options):
    """The error of a fetch that is to be refused with a code."""
    with pytest.raises(BadInput) as caught:
        fetch(*args, **options)
    assert caught.value.code == code
    return caught.value


# -- what is fetched ------------------------------------------------------------------------------------------------


def test_a_picture_comes_as_it_is(site, fetch):
    site.pages["/a.jpg"] = PICTURE
    assert fetch(site.url("/a.jpg")) == PICTURE


def test_a_name_is_told_to_the_server_though_its_address_is_connected_to(site, fetch):
    site.pages["/a.jpg"] = PICTURE
    assert fetch(site.url("/a.jpg?b=c#d", "shop.test"), names={"shop.test": ["127.0.0.1"]}) == PICTURE
    assert site.hosts == [f"shop.test:{site.port}"]


def test_spaces_and_umlauts_in_a_url_are_escaped(site, fetch):
    site.pages["/gr%C3%B6%C3%9Fe%2042.jpg"] = PICTURE
    assert fetch(site.url("/größe 42.jpg")) == PICTURE


def test_an_answer_without_a_stated_size_is_read_to_its_end(site, fetch):
    def page(request):
        request.close_connection = True
        request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (PICTURE[:10], PICTURE[10:]):
            request.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        request.wfile.write(b"0\r\n\r\n")

    site.pages["/a.jpg"] = page
    assert fetch(site.url("/a.jpg")) == PICTURE


def test_a_connection_is_used_again(site):
    site.pages |= {"/a.jpg": PICTURE, "/gone.jpg": answer(b"gone", status=410), "/to.jpg": redirect("/a.jpg")}
    connections = set()
    serve = site.serve
    site.serve = lambda request: (connections.add(request.client_address), serve(request))
    fetcher = Fetcher(Fetch(allow_private=True))
    run = fetcher.start()
    with io.BytesIO() as nowhere:
        for path in ("/a.jpg", "/to.jpg", "/a.jpg"):
            fetcher.fetch(site.url(path), nowhere, run, max_bytes=100_000)
        with pytest.raises(BadInput):
            fetcher.fetch(site.url("/gone.jpg"), nowhere, run, max_bytes=100_000)
        fetcher.fetch(site.url("/a.jpg"), nowhere, run, max_bytes=100_000)
    fetcher.close()
    assert len(site.asked) == 6
    assert len(connections) == 1


def test_a_listing_may_be_what_it_is(site, fetch):
    site.pages["/a.csv"] = answer(b"uri\na.jpg\n", kind="text/csv")
    assert fetch(site.url("/a.csv"), only_pictures=False) == b"uri\na.jpg\n"


# -- what is no picture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 500, 204, 206, 304, 599])
def test_any_other_status_is_named_and_not_tried_again(site, fetch, status):
    site.pages["/a.jpg"] = answer(b"" if status in {204, 304} else PICTURE, status=status)
    assert str(status) in refused("fetch.status", fetch, site.url("/a.jpg")).message
    assert len(site.asked) == 1


def test_a_page_that_says_that_something_is_wrong_is_no_picture(site, fetch):
    site.pages["/a.jpg"] = answer(b"<!doctype html><title>sorry</title>" * 10, kind="text/html; charset=utf-8")
    assert "text/html" in refused("fetch.not-a-picture", fetch, site.url("/a.jpg")).message


def test_a_picture_under_a_wrong_type_is_a_picture(site, fetch):
    site.pages["/a.jpg"] = answer(PICTURE, kind="text/html")
    assert fetch(site.url("/a.jpg")) == PICTURE


def test_a_picture_type_makes_no_picture(site, fetch):
    site.pages["/a.jpg"] = answer(b"x" * 500, kind="image/jpeg")
    refused("fetch.not-a-picture", fetch, site.url("/a.jpg"))


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b" + bytes(100)])
def test_nothing_and_almost_nothing_are_no_picture(site, fetch, data):
    site.pages["/a.jpg"] = answer(data, headers={"Content-Encoding": "gzip"})
    assert "gzip" in refused("fetch.not-a-picture", fetch, site.url("/a.jpg")).message


def test_a_long_page_is_not_fetched_to_its_end(site, fetch):
    site.pages["/a.jpg"] = site.endless(b"<html>" + b" " * 100)
    refused("fetch.not-a-picture", fetch, site.url("/a.jpg"), max_bytes=10**12)


# -- limits ---------------------------------------------------------------------------------------------------------


def test_a_stated_size_over_the_limit_is_not_read(site, fetch):
    site.pages["/a.jpg"] = broken_off(b"", 100_001)
    refused("vision.too-large", fetch, site.url("/a.jpg"))
    assert len(site.asked) == 1


def test_a_body_that_does_not_end_is_left_at_the_limit(site, fetch):
    site.pages["/a.jpg"] = site.endless(PICTURE)
    refused("vision.too-large", fetch, site.url("/a.jpg"))


def test_a_url_that_never_answers_ends_with_its_time(site, fetch):
    site.pages["/a.jpg"] = site.silent
    refused("fetch.timeout", fetch, site.url("/a.jpg"), timeout_s=0.2)
    assert len(site.asked) <= 1


@pytest.mark.parametrize("pause_s", [0.01, 0.1])
def test_a_server_that_drips_ends_with_the_time_of_the_whole(site, fetch, pause_s):
    site.pages["/a.jpg"] = site.drip(PICTURE, pause_s)
    refused("fetch.timeout", fetch, site.url("/a.jpg"), timeout_s=0.3)


def test_a_server_that_takes_up_and_says_nothing_at_all_ends_too(fetch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused("fetch.timeout", fetch, f"http://127.0.0.1:{port}/a.jpg", timeout_s=0.2)
        refused("fetch.timeout", fetch, f"https://127.0.0.1:{port}/a.jpg", timeout_s=0.2)


def test_headers_without_end_are_refused(site, fetch):
    def page(request):
        request.close_connection = True
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000)

    site.pages["/a.jpg"] = page
    refused("fetch.unreachable", fetch, site.url("/a.jpg"), timeout_s=10, retries=0)


def test_interim_answers_without_end_are_left(site, fetch):
    def page(request):
        request.close_connection = True
        while not site.over.wait(0.01):
            request.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")

    site.pages["/a.jpg"] = page
    refused("fetch.timeout", fetch, site.url("/a.jpg"), timeout_s=0.2)


# -- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site, fetch, status):
    site.pages |= {"/a.jpg": redirect("b.jpg", status), "/b.jpg": redirect(site.url("/c.jpg")), "/c.jpg": PICTURE}
    assert fetch(site.url("/a.jpg")) == PICTURE


def test_a_loop_of_redirects_ends(site, fetch):
    site.pages |= {"/a.jpg": redirect("/b.jpg"), "/b.jpg": redirect("/a.jpg")}
    refused("fetch.too-many-redirects", fetch, site.url("/a.jpg"), max_redirects=4)
    assert len(site.asked) == 5


def test_a_redirect_without_a_place_is_a_status(site, fetch):
    site.pages["/a.jpg"] = answer(b"", status=302)
    refused("fetch.status", fetch, site.url("/a.jpg"))


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a.jpg", "data:,x", "http://127.0.0.1:port/"])
def test_a_redirect_leads_to_http_only(site, fetch, to):
    site.pages["/a.jpg"] = redirect(to)
    refused("fetch.bad-url", fetch, site.url("/a.jpg"))


@pytest.mark.parametrize("to", ["http://", "//", "http://[", "\x80\xff", "?", "#", "http:b.jpg", "/%00"])
def test_an_odd_redirect_leads_to_no_other_host(site, fetch, to):
    site.pages["/a.jpg"] = redirect(to)
    with pytest.raises(BadInput):
        fetch(site.url("/a.jpg"))
    assert set(site.hosts) == {f"127.0.0.1:{site.port}"}


def test_each_redirect_is_checked_against_the_hosts_that_are_allowed(site, fetch):
    names = {"shop.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"]}
    site.pages |= {"/a.jpg": redirect(site.url("/b.jpg", "evil.test")), "/b.jpg": PICTURE}
    error = refused(
        "fetch.host-not-allowed", fetch, site.url("/a.jpg", "shop.test"), names=names, allow_hosts=["shop.test"]
    )
    assert "evil.test" in error.message
    assert site.asked == ["/a.jpg"]


# -- private addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost.test", "2130706433"])
def test_private_addresses_are_refused_unless_allowed(site, fetch, host):
    site.pages["/a.jpg"] = PICTURE
    names = {"localhost.test": ["127.0.0.1", "::1"]}
    options = {"names": names, "allow_private": False}
    if host == "2130706433":  # what the system makes of it
        options["names"] = None
        host = "127.0.0.1"
    refused("fetch.private-address", fetch, site.url("/a.jpg", host), **options)
    assert site.asked == []


def test_a_redirect_to_a_private_address_is_refused_though_the_first_host_is_public(site, fetch, monkeypatch):
    """shop.test is taken for public; the address that it sends to is not."""
    monkeypatch.setattr("relens.bulk.addresses.is_public", lambda address: address == "127.0.0.2")
    names = {"shop.test": ["127.0.0.2"], "inside.test": ["127.0.0.1"]}
    for to in (site.url("/secret.jpg"), site.url("/secret.jpg", "inside.test")):
        site.pages |= {"/a.jpg": redirect(to), "/secret.jpg": PICTURE}
        refused("fetch.private-address", fetch, site.url("/a.jpg", "shop.test"), names=names, allow_private=False)
    assert set(site.asked) == {"/a.jpg"}


def test_a_name_that_points_elsewhere_a_moment_later_gains_nothing(site, fetch, monkeypatch):
    """DNS rebinding: the second answer would be private. There is no second question for one connection."""
    monkeypatch.setattr("relens.bulk.addresses.is_public", lambda address: address == "127.0.0.2")
    site.pages["/a.jpg"] = PICTURE
    answers = [["127.0.0.2"], ["127.0.0.1"]]
    url = site.url("/a.jpg", "shop.test")
    assert fetch(url, names={"shop.test": answers}, allow_private=False) == PICTURE
    assert answers == [["127.0.0.1"]]
    refused("fetch.private-address", fetch, url, names={"shop.test": answers}, allow_private=False)
    assert site.asked == ["/a.jpg"]


def test_proxies_of_the_environment_are_not_asked(site, fetch, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.pages["/a.jpg"] = PICTURE
    assert fetch(site.url("/a.jpg")) == PICTURE


# -- URLs that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://host:port/a.jpg",
        "http://a.test:99999/a.jpg",
        "http://user:secret@a.test/a.jpg",
        "http://a..test/a.jpg",
        "http://" + "a" * 300 + ".test/",
        "http://xn--/a.jpg",
        "http://a b.test/",
        "http://\u2000.test/",
        "ftp://a.test/a.jpg",
        "a.jpg",
    ],
)
def test_what_is_no_url_of_a_host_is_refused(fetch, url):
    with pytest.raises(BadInput) as caught:
        fetch(url)
    assert caught.value.code in {"fetch.bad-url", "fetch.no-such-host"}
    assert "secret" not in str(caught.value)


NO_ADDRESSES = Fetcher(Fetch(retries=0), resolve=lambda _host, _port: [])


@given(st.text(max_size=60))
def test_no_url_does_anything_but_end_in_an_error_of_ours(rest):
    with pytest.raises(BadInput), io.BytesIO() as nowhere:
        NO_ADDRESSES.fetch("http://" + rest, nowhere, NO_ADDRESSES.start(), max_bytes=1)


# -- trying again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(site, fetch, status):
    site.pages["/a.jpg"] = in_turn(answer(b"", status=status), answer(PICTURE))
    assert fetch(site.url("/a.jpg")) == PICTURE
    assert len(site.asked) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_in_trouble_is_named_with_its_status(site, fetch, status):
    site.pages["/a.jpg"] = answer(b"", status=status)
    assert str(status) in refused("fetch.status", fetch, site.url("/a.jpg"), retries=2).message
    assert len(site.asked) == 3


def test_a_picture_that_broke_off_is_fetched_again_from_its_start(site, fetch):
    site.pages["/a.jpg"] = in_turn(broken_off(PICTURE[:700], len(PICTURE)), answer(PICTURE))
    assert fetch(site.url("/a.jpg")) == PICTURE


def test_a_picture_that_breaks_off_each_time_is_no_picture_cut_short(site, fetch):
    site.pages["/a.jpg"] = broken_off(PICTURE[:700], len(PICTURE))
    refused("fetch.unreachable", fetch, site.url("/a.jpg"))
    assert len(site.asked) == 2


def test_a_wait_that_a_server_asks_for_is_kept(site, fetch, monkeypatch):
    pauses = []
    pause = fetching.Turns.pause
    monkeypatch.setattr(
        fetching.Turns, "pause", lambda turns, host, s: (pauses.append((host, s)), pause(turns, host, 0.01))
    )
    site.pages["/a.jpg"] = in_turn(answer(b"", status=429, headers={"Retry-After": "7"}), answer(PICTURE))
    assert fetch(site.url("/a.jpg")) == PICTURE
    assert pauses == [("127.0.0.1", 7.0)]


def test_who_asks_to_wait_for_an_hour_is_not_waited_for(site, fetch):
    site.pages["/a.jpg"] = answer(b"", status=503, headers={"Retry-After": "3600"})
    assert "3600" in refused("fetch.status", fetch, site.url("/a.jpg")).message
    assert len(site.asked) == 1


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), ("120", 120.0), ("9" * 400, 999_999_999.0)])
def test_a_number_of_seconds_is_read(value, seconds):
    assert _retry_after_s(value) == seconds


def test_a_date_to_wait_for_is_read():
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    assert 80 < _retry_after_s(email.utils.format_datetime(at, usegmt=True)) <= 90
    assert _retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@given(st.text())
def test_anything_else_to_wait_for_is_no_wait(value):
    assert (_retry_after_s(value) or 0.0) >= 0.0


# -- hosts that cannot be reached, and networks ---------------------------------------------------------------------


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_host_that_refuses_is_at_fault_alone(fetch):
    refused("fetch.unreachable", fetch, f"http://127.0.0.1:{free_port()}/a.jpg")


def test_a_host_that_does_not_exist_is_named_at_once(fetch):
    assert "nowhere.test" in refused("fetch.no-such-host", fetch, "http://nowhere.test/a.jpg", retries=20).message


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(site, fetch, tmp_path):
    with tls_site(site, tmp_path):
        site.pages["/a.jpg"] = PICTURE
        url = site.url("/a.jpg", "shop.test").replace("http:", "https:")
        refused("fetch.untrusted", fetch, url, names={"shop.test": ["127.0.0.1"]})
    assert site.asked == []


def test_a_certificate_is_checked_for_the_name_of_the_url_and_not_for_its_address(site, fetch, tmp_path, monkeypatch):
    names = {"shop.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    with tls_site(site, tmp_path) as authority:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        site.pages["/a.jpg"] = PICTURE
        url = site.url("/a.jpg", "shop.test").replace("http:", "https:")
        assert fetch(url, names=names) == PICTURE
        refused("fetch.untrusted", fetch, url.replace("shop", "other"), names=names)


@contextlib.contextmanager
def tls_site(site, folder):
    """The site with a certificate for shop.test: the file of the authority that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.test")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    yield folder / "cert.pem"


NO_NAMES = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def outage(fetcher, urls):
    """What becomes of these URLs, fetched one after the other in one run: codes."""
    run = fetcher.start(urls)
    codes = []
    for url in urls:
        try:
            with io.BytesIO() as nowhere:
                fetcher.fetch(url, nowhere, run, max_bytes=100_000)
            codes.append("ok")
        except (BadInput, Broken) as error:
            codes.append(error.code)
    fetcher.close()
    return codes


def quick(name_server, names):
    settings = Fetch(allow_private=True, retries=0)
    return Fetcher(settings, resolve=name_server(names))


@pytest.mark.parametrize("hosts", [["shop.test"], ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]])
def test_when_nothing_can_be_reached_several_times_in_a_row_it_is_the_network(name_server, hosts):
    urls = [f"http://{hosts[n % len(hosts)]}/{n}.jpg" for n in range(6)]
    codes = outage(quick(name_server, dict.fromkeys(hosts, NO_NAMES)), urls)
    assert codes == ["fetch.unreachable"] * 4 + ["fetch.network-down"] * 2


def test_a_few_pictures_of_a_host_that_is_away_do_not_stop_a_pack(name_server):
    urls = [f"http://shop.test/{n}.jpg" for n in range(4)]
    assert set(outage(quick(name_server, {"shop.test": NO_NAMES}), urls)) == {"fetch.unreachable"}


def test_when_another_host_can_be_reached_it_is_the_host(site, name_server):
    site.pages["/a.jpg"] = PICTURE
    dead = [f"http://dead.test/{n}.jpg" for n in range(9)]
    names = {"dead.test": NO_NAMES, "shop.test": ["127.0.0.1"]}
    for urls in ([*dead, site.url("/a.jpg", "shop.test")], [site.url("/a.jpg", "shop.test"), *dead]):
        codes = outage(quick(name_server, names), urls)
        assert sorted(codes) == sorted(["ok"] + ["fetch.unreachable"] * 9)


def test_a_host_that_is_known_to_be_away_is_left_alone(site, name_server):
    asked = []
    names = name_server({"dead.test": NO_NAMES, "shop.test": ["127.0.0.1"]})

    def resolve(host, port):
        asked.append(host)
        return names(host, port)

    fetcher = Fetcher(Fetch(allow_private=True, retries=0), resolve=resolve)
    outage(fetcher, [*[f"http://dead.test/{n}.jpg" for n in range(9)], site.url("/a.jpg", "shop.test")])
    assert asked.count("dead.test") == 1


def test_a_host_that_others_lead_to_is_left_alone_too(site, name_server):
    site.pages |= {f"/{n}.jpg": redirect("http://dead.test/a.jpg") for n in range(4)}
    asked = []
    names = name_server({"dead.test": NO_NAMES})

    def resolve(host, port):
        asked.append(host)
        return names(host, port)

    fetcher = Fetcher(Fetch(allow_private=True, retries=0), resolve=resolve)
    assert outage(fetcher, [site.url(f"/{n}.jpg") for n in range(4)]) == ["fetch.unreachable"] * 4
    assert asked.count("dead.test") == 1


def test_a_run_that_is_over_ends_its_fetches(site):
    site.pages["/a.jpg"] = site.silent
    fetcher = Fetcher(Fetch(allow_private=True))
    run = fetcher.start()
    ended = threading.Event()

    def fetch():
        with pytest.raises(fetching.Closed), io.BytesIO() as nowhere:
            fetcher.fetch(site.url("/a.jpg"), nowhere, run, max_bytes=1)
        ended.set()

    threading.Thread(target=fetch, daemon=True).start()
    while not site.asked:
        ended.wait(0.01)
    run.closed.set()
    assert ended.wait(10)
    fetcher.close()
