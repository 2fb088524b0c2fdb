"""The typed HTTP client: the uses of a gateway over HTTP, with the same values and the same errors.

What a server refuses is raised as the family of error that it was there, with code, message and hint. The client keeps
its connections and asks nothing twice; whoever gets Busy knows after how many seconds to ask again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx

from relens.errors import BadInput, Broken, Busy, Conflict, Denied, Missing, RelensError
from relens.values import Recognition, SearchAnswer, TextAnswer, Verification

DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S = 5.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
GONE = 410
BUSY = 503
FAMILIES: Mapping[int, type[RelensError]] = {403: Denied, 404: Missing, GONE: Missing, 409: Conflict, BUSY: Busy}

T = TypeVar("T")

NOTHING_SAID: Mapping[str, Any] = {}

Image = bytes | str | os.PathLike[str] | BinaryIO
"""A picture: its bytes, the path of its file, or a file that is open for reading bytes."""


class Client:
    """One server. Safe to use from many threads; close it, or use it in a `with` block."""

    def __init__(self, url: str = DEFAULT_URL, *, timeout_s: float = 60.0) -> None:
        """`timeout_s` is how long an answer may let wait."""
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=_check_url(self.url),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            trust_env=httpx.URL(self.url).host not in LOOPBACK,  # no proxy leads to this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    # -- questions

    def recognize(self, image: Image, *, recipe: str = "photos", include: Sequence[str] = ()) -> Recognition:
        """What is in a picture. `include` may name "vector", "subject" and "heatmap"."""
        asked = {"recipe": recipe} | ({"include": ",".join(include)} if include else {})
        return self._ask("recognize", image, asked, Recognition.from_json)

    def search(
        self,
        image: Image,
        *,
        gallery: str,
        k: int = 10,
        category: str | None = None,
        label: str | None = None,
        days: str | None = None,
        items: Sequence[str] = (),
        off_shelf: bool = False,
        hints: Sequence[str] = (),
        threshold: float | None = None,
    ) -> SearchAnswer:
        """The `k` objects of a gallery that look most like the picture, best first.

        days       like "2026-01-01..2026-01-31"; either end may be left out
        items      conditions like "shop=north", "price=5..10", "size=S|M"
        hints      for the recipe's rules of ranking, like "text=red shoe", "price=20"
        threshold  cosine under which nothing matches, instead of the recipe's
        """
        asked = {"gallery": gallery, "k": str(k)} | _narrowed(category, label, days, items, off_shelf)
        if hints:
            asked["hint"] = list(hints)
        if threshold is not None:
            asked["threshold"] = str(threshold)
        return self._ask("search", image, asked, SearchAnswer.from_json)

    def search_text(
        self,
        text: str,
        *,
        gallery: str,
        k: int = 10,
        category: str | None = None,
        label: str | None = None,
        days: str | None = None,
        items: Sequence[str] = (),
        off_shelf: bool = False,
    ) -> TextAnswer:
        """The `k` objects of a gallery in which all of these words were read, best first; narrowed like a search."""
        asked = {"gallery": gallery, "text": text, "k": str(k)} | _narrowed(category, label, days, items, off_shelf)
        return TextAnswer.from_json(self._succeed("GET", "/v1/search/text", params=asked).json())

    def drawn(self, image: Image, *, recipe: str = "photos", include: Sequence[str] = ()) -> bytes:
        """The picture as a JPEG, with what is recognised in it: boxes, names and scores."""
        asked = {"recipe": recipe} | ({"include": ",".join(include)} if include else {})
        headers = {"Accept": "image/jpeg", "Content-Type": "application/octet-stream"}
        return self._succeed("POST", "/v1/recognize", params=asked, content=_bytes_of(image), headers=headers).content

    def verify(
        self, one: Image, other: Image, *, recipe: str = "faces", threshold: float | None = None
    ) -> Verification:
        """Whether the strongest objects of two pictures are the same."""
        asked = {"recipe": recipe} | ({} if threshold is None else {"threshold": str(threshold)})
        files = {"file": ("one", _bytes_of(one)), "other": ("other", _bytes_of(other))}
        return Verification.from_json(self._succeed("POST", "/v1/verify", params=asked, files=files).json())

    # -- live galleries

    def enrol(
        self, image: Image, *, gallery: str, item: Mapping[str, Any] = NOTHING_SAID, allow_empty: bool = False
    ) -> dict[str, Any]:
        """Take a picture into a gallery: ids of its objects, the item's id, the sequence, and whether that is new.

        `item` says id, title, price, shop, day, uri, data (a mapping of columns of your own), off_shelf. BadInput for a
        picture in which nothing is found, unless `allow_empty`. It can be found when this returns.
        """
        said = {name: _said(value) for name, value in item.items() if value is not None}
        if allow_empty:
            said["allow_empty"] = "true"
        path = f"/v1/galleries/{_part(gallery)}/objects"
        return _read(self._succeed("POST", path, data=said, files={"file": ("picture", _bytes_of(image))}), dict)

    def item(self, gallery: str, key: str) -> dict[str, Any]:
        """An item with its picture and the ids of the objects in it. Missing if there is none."""
        return self._json("GET", _item_path(gallery, key))

    def change_item(self, gallery: str, key: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change columns of an item; those that are not named stay, None clears title, price and shop. The item."""
        headers = {"Content-Type": "application/json"}
        content = json.dumps(dict(changes)).encode()
        return _read(self._succeed("PATCH", _item_path(gallery, key), content=content, headers=headers), dict)

    def delete_item(self, gallery: str, key: str) -> dict[str, Any]:
        """Delete an item, and with the last one of a picture this: how many objects went, as of which sequence."""
        return self._json("DELETE", _item_path(gallery, key))

    def delete_picture(self, gallery: str, sha256: str) -> dict[str, Any]:
        """Delete a picture with its objects and the items that show it. As `delete_item`."""
        return self._json("DELETE", f"/v1/galleries/{_part(gallery)}/pictures/{_part(sha256)}")

    def delete_object(self, object_id: int) -> dict[str, Any]:
        """Delete an object. As `delete_item`; Missing, with `gone`, if it was deleted before."""
        return self._json("DELETE", f"/v1/objects/{int(object_id)}")

    def export(self, gallery: str, *, vectors: bool = False) -> Generator[dict[str, Any]]:
        """All that a gallery shows as of one sequence, read as it is asked for.

        The first is `{"gallery", "release", "sequence"}`, then come objects by increasing id, then, without an id,
        pictures that items show although nothing was found in them. Broken if the server does not send all of it.
        """
        asked = {"vectors": "true"} if vectors else {}
        with (
            self._translated(),
            self._http.stream("GET", f"/v1/galleries/{_part(gallery)}/export", params=asked) as response,
        ):
            if not response.is_success:
                response.read()
                raise _error_of(response)
            for line in _lines(response.iter_bytes()):
                yield _parsed(response, line)

    # -- what there is

    def object(self, object_id: int) -> dict[str, Any]:
        """An object by id. Missing, with `gone` if it was deleted."""
        return self._json("GET", f"/v1/objects/{int(object_id)}")

    def crop(self, object_id: int) -> bytes:
        """The stored crop of an object, a JPEG. Missing like `object`."""
        return self._succeed("GET", f"/v1/objects/{int(object_id)}/crop").content

    def picture(self, object_id: int) -> bytes:
        """The picture of an object as it came. Missing like `object`, and if its gallery keeps none."""
        return self._succeed("GET", f"/v1/objects/{int(object_id)}/picture").content

    def galleries(self) -> dict[str, Any]:
        """`{"galleries": […]}`, by name."""
        return self._json("GET", "/v1/galleries")

    def gallery(self, name: str) -> dict[str, Any]:
        """A gallery with its counts and the release that answers for it."""
        return self._json("GET", f"/v1/galleries/{_part(name)}")

    def plans(self) -> dict[str, Any]:
        """`{"plans": […]}`, newest first."""
        return self._json("GET", "/v1/plans")

    def plan(self, plan_id: int) -> dict[str, Any]:
        """A plan with its funnel."""
        return self._json("GET", f"/v1/plans/{int(plan_id)}")

    def cancel(self, plan_id: int) -> dict[str, Any]:
        """Cancel a plan: the plan as it is then. Conflict if it is over."""
        return self._json("POST", f"/v1/plans/{int(plan_id)}/cancel")

    def resume(self, plan_id: int) -> dict[str, Any]:
        """Let a plan go on that rests or was held: the plan as it is then. Conflict if it is over."""
        return self._json("POST", f"/v1/plans/{int(plan_id)}/resume")

    def releases(self) -> dict[str, Any]:
        """`{"releases": […]}`, newest first."""
        return self._json("GET", "/v1/releases")

    def release(self, name: str) -> dict[str, Any]:
        """A release: its lens, its view with the checks that it passed."""
        return self._json("GET", f"/v1/releases/{_part(name)}")

    def models(self) -> dict[str, Any]:
        """`{"models": […]}`, by name and version."""
        return self._json("GET", "/v1/models")

    def model(self, reference: str) -> dict[str, Any]:
        """A model version by `name/version`, `name/label` or `name`."""
        return self._json("GET", "/v1/models/" + "/".join(_part(part) for part in reference.split("/", 1)))

    # -- health

    def status(self) -> dict[str, Any]:
        """Engines, unfinished plans, galleries and models at a glance."""
        return self._json("GET", "/v1/status")

    def ready(self) -> list[str]:
        """What is missing for answering, as sentences; empty when ready."""
        response = self._send("GET", "/health/ready")
        if response.status_code not in (httpx.codes.OK, BUSY):
            raise _error_of(response)
        return _read(response, lambda answer: [] if answer["ready"] else list(answer["missing"]))

    # -- requests

    def _ask(self, use: str, image: Image, asked: dict[str, str], read: Callable[[Any], T]) -> T:
        content = _bytes_of(image)
        headers = {"Content-Type": "application/octet-stream"}
        return _read(self._succeed("POST", f"/v1/{use}", params=asked, content=content, headers=headers), read)

    def _json(self, method: str, path: str) -> dict[str, Any]:
        return _read(self._succeed(method, path), dict)

    def _succeed(self, method: str, path: str, **more: Any) -> httpx.Response:
        response = self._send(method, path, **more)
        if not response.is_success:
            raise _error_of(response)
        return response

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self._translated():
            return self._http.request(method, path, **more)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Broken(
                "client.unreachable", f"no server answers at {self.url}", hint="start it with `relens up`"
            ) from error
        except httpx.TimeoutException as error:
            raise Busy("client.timeout", f"{self.url} did not answer in time", hint="ask again later") from error
        except httpx.TransportError as error:
            raise Broken(
                "client.disconnected",
                f"{self.url} ended the connection without an answer: {error}",
                hint="the server's log may say why",
            ) from error


def _check_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadInput("client.bad-url", f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise BadInput("client.bad-url", f"{url!r} is no URL of a server", hint=f"write it like {DEFAULT_URL}")
    return parsed


def _bytes_of(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    return image.read()


def _part(name: str) -> str:
    # A part that is nothing but dots would be taken for a way through folders.
    return name.replace(".", "%2E") if name in {".", ".."} else quote(_text(name), safe="")


def _item_path(gallery: str, key: str) -> str:
    return f"/v1/galleries/{_part(gallery)}/items/{_part(key)}"


def _said(value: Any) -> str:
    """A column of an item as a field of a form."""
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _narrowed(
    category: str | None, label: str | None, days: str | None, items: Sequence[str], off_shelf: bool
) -> dict[str, Any]:
    """What a search is narrowed by, as parameters of its address."""
    given: dict[str, Any] = {"category": category, "label": label, "days": days, "item": list(items) or None}
    given["off_shelf"] = "true" if off_shelf else None
    return {name: value for name, value in given.items() if value is not None}


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadInput("client.bad-text", f"{value!r} is no text: it holds half of a character") from error
    return value


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        yield from complete
    if rest:
        yield rest


def _parsed(response: httpx.Response, line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise _strange(response) from error


def _read(response: httpx.Response, read: Callable[[Any], T]) -> T:
    try:
        return read(response.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _strange(response) from error


def _error_of(response: httpx.Response) -> RelensError:
    """The error that a response stands for, as the family that it was on the server."""
    try:
        said = response.json()["error"]
        code, message, hint = str(said["code"]), str(said["message"]), str(said["hint"])
    except (ValueError, KeyError, TypeError):
        return _strange(response)
    status = response.status_code
    family = FAMILIES.get(status, BadInput if response.is_client_error else Broken)
    if family is Busy:
        return Busy(code, message, hint=hint, retry_after_s=_retry_after_s(response))
    if family is Missing:
        return Missing(code, message, hint=hint, gone=status == GONE)
    return family(code, message, hint=hint)


def _retry_after_s(response: httpx.Response) -> float:
    for header, of_a_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        given = response.headers.get(header, "")
        if given.isdigit():
            return int(given) / of_a_second
    return 1.0


def _strange(response: httpx.Response) -> Broken:
    return Broken(
        "client.strange-answer",
        f"{response.request.url} answered {response.status_code}, but not as relens does",
        hint="is it a relens server of this version, and does a proxy stand before it?",
    )
