"""The picture in a request: its body as it is, or the field `file` of a form. And JSON, where that is asked for.

Nothing is read past the limit and nothing is written to disk: a picture that is not to be kept leaves no byte behind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from relens.errors import BadInput

FORM = b"multipart/form-data"
FIELD = "file"
FORM_EXTRA_BYTES = 64 * 1024
"""What a form may hold besides the picture: boundaries, headers, other fields."""
MAX_FIELDS = 100
MOST_DIGITS = 18
"""Of a length that could be one."""
NAME_SHOWN = 60


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, complete. BadInput as soon as it is known to be too large, whether or not it says how long it is."""
    form, _ = _content_type(request)
    return await read_bounded(
        request, max_bytes + FORM_EXTRA_BYTES if form == FORM else max_bytes, lambda: _too_large(max_bytes)
    )


async def read_json(request: Request) -> dict[str, Any]:
    """The body, a JSON object of up to 64 kB. BadInput for anything else."""
    return object_in(await read_bounded(request, FORM_EXTRA_BYTES, _too_much_said), "the body")


async def read_bounded(request: Request, limit: int, too_large: Callable[[], BadInput]) -> bytes:
    """The body, complete. Raises `too_large` as soon as it is known to have more bytes, whether or not it says so."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > MOST_DIGITS or int(announced) > limit):
        raise too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large()
        if chunk:
            chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def object_in(text: bytes | str, what: str) -> dict[str, Any]:
    """The JSON object that a text is. BadInput, saying what it should have been, for anything else."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("rest.bad-json", f"{what} is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadInput("rest.bad-json", f"{what} is no JSON object", hint='write {"name": value, …}')
    return given


def picture_in(request: Request, body: bytes, max_bytes: int) -> bytes:
    """The picture's bytes in a body. BadInput if there is none, or it is too large."""
    form, options = _content_type(request)
    return _checked(_files_in(body, options.get(b"boundary"), [FIELD])[0] if form == FORM else body, max_bytes)


def picture_and_texts_in(request: Request, body: bytes, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """The picture's bytes in a body and, of a form, what its other fields say. BadInput if they cannot be used."""
    form, options = _content_type(request)
    if form != FORM:
        return _checked(body, max_bytes), {}
    parts = _parts_of(body, options.get(b"boundary"))
    return _checked(_named(parts, [FIELD])[0], max_bytes), _texts([part for part in parts if part[0] != FIELD])


def _checked(picture: bytes, max_bytes: int) -> bytes:
    if not picture:
        raise BadInput(
            "rest.empty",
            "there is no picture: 0 bytes",
            hint="send the bytes as the body (curl --data-binary @photo.jpg), or a form with the field `file`",
        )
    if len(picture) > max_bytes:
        raise _too_large(max_bytes)
    return picture


def pictures_in(request: Request, body: bytes, max_bytes: int, fields: Sequence[str]) -> list[bytes]:
    """The pictures in the named fields of a form, in their order. BadInput if one is missing, empty or too large."""
    _, options = _content_type(request)
    files = _files_in(body, options.get(b"boundary"), fields)
    for name, data in zip(fields, files, strict=True):
        if not data:
            raise BadInput("rest.empty", f"there is no picture in the field `{name}`: 0 bytes")
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
    return files


def _content_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    return parse_options_header(request.headers.get("content-type"))


def _files_in(body: bytes, boundary: bytes | None, fields: Sequence[str]) -> list[bytes]:
    """The named fields of a form, each once, with or without a file name."""
    return _named(_parts_of(body, boundary), fields)


def _parts_of(body: bytes, boundary: bytes | None) -> list[tuple[str, bytes]]:
    """Every field of a form with its name, in their order."""
    found: list[tuple[str, bytes]] = []

    def keep(part: Field | File, value: bytes) -> None:
        if len(found) == MAX_FIELDS:
            raise BadInput("rest.bad-form", f"the form has more than {MAX_FIELDS} fields")
        found.append((_name(part), value))

    def keep_file(part: File) -> None:
        assert isinstance(part.file_object, io.BytesIO)
        keep(part, part.file_object.getvalue())

    def keep_field(part: Field) -> None:
        keep(part, part.value or b"")

    try:
        in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
        parser = FormParser(FORM.decode(), keep_field, keep_file, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadInput(
            "rest.bad-form",
            f"the form cannot be read: {error}",
            hint="let your HTTP library write the Content-Type with its boundary",
        ) from error
    return found


def _named(found: Sequence[tuple[str, bytes]], fields: Sequence[str]) -> list[bytes]:
    files = {name: [value for given, value in found if given == name] for name in fields}
    if any(len(values) != 1 for values in files.values()):
        names = ", ".join(name[:NAME_SHOWN] for name, _ in found) or "nothing"
        wanted = " and ".join(f"one field `{name}`" for name in fields)
        raise BadInput(
            "rest.bad-form",
            f"a form holds the picture in {wanted}; this one holds {names}",
            hint="curl " + " ".join(f"-F {name}=@photo.jpg" for name in fields),
        )
    return [values[0] for values in files.values()]


def _texts(found: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """What fields say, by their names. BadInput if one is there twice, is no UTF-8, or all are too long."""
    if sum(len(value) for _, value in found) > FORM_EXTRA_BYTES:
        raise _too_much_said()
    texts: dict[str, str] = {}
    for name, value in found:
        if name in texts:
            raise BadInput("rest.bad-form", f"the form has two fields `{name[:NAME_SHOWN]}`")
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError as error:
            raise BadInput("rest.bad-form", f"the field `{name[:NAME_SHOWN]}` is no UTF-8: {error}") from error
    return texts


def _name(part: Field | File) -> str:
    return (part.field_name or b"").decode("utf-8", "replace")


def _too_much_said() -> BadInput:
    return BadInput("rest.too-large", f"what is said of an item is longer than {FORM_EXTRA_BYTES // 1024} kB")


def _too_large(max_bytes: int) -> BadInput:
    return BadInput(
        "rest.too-large",
        f"the body has more than the {max_bytes:,} bytes that a picture may have",
        hint="send a smaller picture, or raise limits.max_bytes",
    )
