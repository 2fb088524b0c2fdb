"""Fetching by `http` and `https`: limits on size, time, redirects and hosts; politeness; retries; content checks.

What a server does wrong is the picture's fault (BadInput, to quarantine); what our own network or disk does is not
(Broken, the pack waits). Proxies, cookies and passwords in URLs are not used. Where bytes are kept is decided above.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import http
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import httpcore
import httpx

from relens.bulk.addresses import Guard, Resolve, resolve
from relens.bulk.connecting import DEADLINE, CheckedNetwork, Deadline, NoWayError
from relens.bulk.outages import Origin, Outages
from relens.bulk.politeness import Closed, Turns
from relens.bulk.runs import Run, disk_errors
from relens.config import Fetch
from relens.errors import BadInput
from relens.vision import read_header

BACKOFF_S = 1.0
MAX_DRAINED = 16 * 1024
MAX_QUOTED = 100
MAX_PAUSE_S = 120.0
"""Who asks to wait longer is not waited for."""
START_BYTES = 32
"""Enough to tell every format that is read, and what is none."""
KEEP_ALIVE_S = 15.0
MAX_IDLE = 32
ACCEPT = "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, */*;q=0.1"
PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({429, 502, 503, 504})


class Fetcher:
    """Fetches URLs. One per process; safe to use from many threads."""

    def __init__(self, settings: Fetch, *, resolve: Resolve = resolve) -> None:
        self._settings = settings
        self._guard = Guard(settings.allow_hosts, settings.allow_private)
        self._network = CheckedNetwork(self._guard, resolve, settings.connect_timeout_s)
        self._turns = Turns(settings.per_host_parallel, settings.per_host_delay_s)
        self._lock = threading.Lock()
        self._opened: httpcore.ConnectionPool | None = None

    def start(self, urls: Iterable[str] = ()) -> Run:
        """A run that may fetch these, and learns from one what it means for the others."""
        closed = threading.Event()

        def named() -> list[Origin]:
            return list(dict.fromkeys(origin for url in urls if (origin := self._origin_or_none(url))))

        def can_connect(origin: Origin) -> bool:
            return self._can_connect(origin, closed)

        return Run(Outages(can_connect, named), closed)

    def fetch(self, url: str, into: IO[bytes], run: Run, *, max_bytes: int, only_pictures: bool = True) -> None:
        """Fetch a URL into a file. BadInput if that cannot be done; Broken if it is our own network.

        Closed if the run is over. With `only_pictures` what does not begin like a picture is not fetched to its end.
        """
        parsed = self._parse(url)
        wish = _Wish(into, run, max_bytes, only_pictures)
        for tried in range(self._settings.retries + 1):
            with disk_errors():
                into.seek(0)
                into.truncate()
            try:
                return self._try(parsed, wish)
            except _TroubleError as error:
                trouble = error
            if trouble.after_s is not None and trouble.after_s > MAX_PAUSE_S:
                raise _status_error(url, f"{trouble}, and asks to wait {trouble.after_s:.0f} s")
            if tried < self._settings.retries:
                pause_s = BACKOFF_S * 2.0**tried if trouble.after_s is None else trouble.after_s
                self._turns.pause(trouble.origin[0], pause_s)
        if trouble.answered:
            raise _status_error(url, f"{trouble}, {self._settings.retries + 1} times")
        raise run.outages.blame(trouble.origin, str(trouble), no_way=trouble.no_way)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _connections(self) -> httpcore.ConnectionPool:
        """Made when they are first needed: most workers fetch nothing, and authorities take 50 ms to read."""
        with self._lock:
            if self._opened is None:
                self._opened = httpcore.ConnectionPool(
                    ssl_context=httpx.create_ssl_context(),
                    max_connections=None,  # turns bound them, per host
                    max_keepalive_connections=MAX_IDLE,
                    keepalive_expiry=KEEP_ALIVE_S,
                    network_backend=self._network,
                )
            return self._opened

    def _try(self, url: httpx.URL, wish: _Wish) -> None:
        """One try, redirects included. Waiting for a turn takes nothing of its time."""
        deadline = Deadline(self._settings.timeout_s, wish.run.closed)
        DEADLINE.set(deadline)
        for _ in range(self._settings.max_redirects + 1):
            wish.run.outages.check(_origin(url))
            with self._turns.turn(_origin(url)[0], wish.run.closed) as waited_s, self._failures_of(url, wish):
                deadline.extend(waited_s)
                location = self._ask(url, wish)
            if location is None:
                return
            url = self._parse(location, base=url)
        raise BadInput(
            "fetch.too-many-redirects",
            f"more than {self._settings.max_redirects} redirects; the last one leads to {url}",
            hint="it may be a loop; fetch.max_redirects is the limit",
        )

    def _ask(self, url: httpx.URL, wish: _Wish) -> str | None:
        """Ask one server: None if it gave what is wanted, or where it sends us."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=_origin(url)[1], target=url.raw_path)
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": self._settings.user_agent,
            "Accept": ACCEPT if wish.only_pictures else "*/*",
            "Accept-Encoding": "identity",
        }
        with self._connections().stream("GET", target, headers=headers) as response:
            wish.run.outages.reached(_origin(url))
            told = httpx.Headers(response.headers)
            if response.status == http.HTTPStatus.OK:
                _receive(response, url, told, wish)
                return None
            _drain(response, told)
            if response.status in REDIRECTS and "location" in told:
                return told["location"]
            if response.status in TRY_AGAIN:
                after_s = _retry_after_s(told.get("retry-after", ""))
                raise _TroubleError(_origin(url), _phrase(response.status), answered=True, after_s=after_s)
            raise _status_error(str(url), _phrase(response.status))

    @contextlib.contextmanager
    def _failures_of(self, url: httpx.URL, wish: _Wish) -> Iterator[None]:
        """Errors of the HTTP client, as what they mean here."""
        origin = _origin(url)
        try:
            yield
        except NoWayError as error:
            raise _TroubleError(origin, str(error), no_way=True) from error
        except httpcore.TimeoutException as error:
            if wish.run.closed.is_set():
                raise Closed from error
            raise BadInput(
                "fetch.timeout",
                f"{url} gave {wish.into.tell()} bytes within {self._settings.timeout_s:g} s, and is not at its end",
                hint="fetch.timeout_s is the limit; the next import of the same source tries it again",
            ) from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol) as error:
            raise _bad_url(str(url), error) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _TroubleError(origin, str(error) or "the connection broke off") from error

    def _parse(self, given: str, base: httpx.URL | None = None) -> httpx.URL:
        """A URL that may be asked. BadInput if it is none, or its host is not allowed."""
        try:
            url = httpx.URL(given) if base is None else base.join(given)
        except (httpx.InvalidURL, ValueError) as error:
            raise _bad_url(given, error) from error
        if url.scheme not in PORTS or not url.raw_host:
            raise _bad_url(str(url), "it does not lead to a host by http or https")
        if url.userinfo:
            raise _bad_url(str(url.copy_with(userinfo=b"")), "a user and a password in it are not sent")
        self._guard.check_host(_origin(url)[0])
        return url

    def _origin_or_none(self, url: str) -> Origin | None:
        try:
            return _origin(self._parse(url))
        except BadInput:
            return None

    def _can_connect(self, origin: Origin, closed: threading.Event) -> bool:
        DEADLINE.set(Deadline(self._settings.connect_timeout_s, closed))
        try:
            self._network.connect_tcp(*origin).close()
        except NoWayError:
            return False
        except httpcore.ConnectError:  # refused: somebody is there
            return True
        except (BadInput, httpcore.TimeoutException):
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to come of a fetch."""

    into: IO[bytes]
    run: Run
    max_bytes: int
    only_pictures: bool


class _TroubleError(Exception):
    """A failure that may be gone at the next try. `answered`: there is a host, it only would not serve."""

    def __init__(
        self, origin: Origin, why: str, *, no_way: bool = False, answered: bool = False, after_s: float | None = None
    ) -> None:
        super().__init__(why)
        self.origin = origin
        self.no_way = no_way
        self.answered = answered
        self.after_s = after_s


def _origin(url: httpx.URL) -> Origin:
    return url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]


def _receive(response: httpcore.Response, url: httpx.URL, told: httpx.Headers, wish: _Wish) -> None:
    """The body, into the file. BadInput if it is too large, or no picture where one is wanted."""
    if int(told.get("content-length", 0)) > wish.max_bytes:
        raise _too_large(f"{told['content-length']} bytes", wish)
    start, size = b"", 0
    for part in response.iter_stream():
        size += len(part)
        if size > wish.max_bytes:
            raise _too_large(f"more than {wish.max_bytes} bytes", wish)
        if len(start) < START_BYTES:
            start += part
            if len(start) >= START_BYTES:
                _check_start(start, url, told, wish)
        with disk_errors():
            wish.into.write(part)
    if len(start) < START_BYTES:
        _check_start(start, url, told, wish)


def _check_start(start: bytes, url: httpx.URL, told: httpx.Headers, wish: _Wish) -> None:
    """BadInput `fetch.not-a-picture` if no picture begins like this. Whether it is sound, decoding finds out."""
    if not wish.only_pictures:
        return
    try:
        read_header(start)
    except BadInput as error:
        if error.code not in {"vision.not-a-picture", "vision.empty"}:
            return
        kind = told.get("content-type", "no stated type")[:MAX_QUOTED]
        packed = f", packed as {told['content-encoding'][:MAX_QUOTED]}" if "content-encoding" in told else ""
        raise BadInput(
            "fetch.not-a-picture",
            f"{url} is no picture: {kind}{packed}, beginning with {start[:8].hex(' ') or 'nothing'}",
            hint="open the URL: servers often answer with a page that says what is wrong",
        ) from error


def _drain(response: httpcore.Response, told: httpx.Headers) -> None:
    """Read a small answer that nobody wants to its end, so that its connection can be used again."""
    if int(told.get("content-length", MAX_DRAINED + 1)) <= MAX_DRAINED:
        for _ in response.iter_stream():
            pass


def _retry_after_s(value: str) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3). None if it is neither."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = email.utils.parsedate_to_datetime(value)
        return max(0.0, (at - dt.datetime.now(dt.UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _phrase(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _status_error(url: str, answered: str) -> BadInput:
    return BadInput("fetch.status", f"{url} answered {answered}", hint="open the URL: is the picture still there?")


def _bad_url(url: str, why: object) -> BadInput:
    return BadInput("fetch.bad-url", f"cannot fetch {url}: {why}")


def _too_large(found: str, wish: _Wish) -> BadInput:
    setting = " (limits.max_bytes)" if wish.only_pictures else ""
    return BadInput("vision.too-large", f"{found}; the limit{setting} is {wish.max_bytes}")
