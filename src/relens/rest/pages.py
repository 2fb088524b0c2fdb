"""`/docs`: the OpenAPI document as one page, without scripts and without anything from elsewhere.

FastAPI's own page loads its scripts from a public network; this one works where there is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import FastAPI, Request
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from relens.rest.failures import MEANINGS

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
JSON = "application/json"
FLAT_LIST = re.compile(r"\[[^][{}]+\]")
NO_ERROR = frozenset({"200", "201", "default"})
BINARY = {"image/jpeg": "-o crop.jpg ", "application/x-ndjson": "-o gallery.jsonl "}
"""Content types whose answer is better kept in a file, and how curl is told."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, as the page shows it. Curl lines hold `BASE` for the server's address."""

    id: str
    tag: str
    method: str
    path: str
    summary: str
    text: str
    parameters: list[dict[str, Any]]
    curl: list[str]
    content_type: str
    example: str
    errors: dict[int, str]


def add_docs(app: FastAPI) -> None:
    """Put the page on the application."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("relens.rest"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )

    templates.filters["marked"] = _marked

    @cache
    def endpoints() -> dict[str, list[Endpoint]]:
        by_tag: dict[str, list[Endpoint]] = {}
        for endpoint in read_endpoints(app.openapi()):
            by_tag.setdefault(endpoint.tag, []).append(endpoint)
        return by_tag

    @app.get("/docs", include_in_schema=False)
    def get_docs(request: Request) -> HTMLResponse:
        page = templates.get_template("docs.html").render(
            title=app.title,
            version=app.version,
            text=app.description,
            base=str(request.base_url).rstrip("/"),
            tags=endpoints(),
            meanings=MEANINGS,
        )
        return HTMLResponse(page, headers=HEADERS)


def read_endpoints(document: dict[str, Any]) -> Iterator[Endpoint]:
    """The endpoints of an OpenAPI document, in its order."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content_type, content = next(iter(operation["responses"]["200"]["content"].items()))
            example = example_of(content.get("schema", {}), schemas) if content_type == JSON else None
            yield Endpoint(
                id=operation["operationId"],
                tag=operation["tags"][0],
                method=method.upper(),
                path=path,
                summary=operation["summary"],
                text=operation.get("description", ""),
                parameters=[_parameter(one) for one in operation.get("parameters", ())],
                curl=_curl(path, method.upper(), operation, BINARY.get(content_type, "")),
                content_type=content_type,
                example="" if example is None else _printed(example),
                errors={int(s): r["description"] for s, r in operation["responses"].items() if s not in NO_ERROR},
            )


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value that a schema describes, put together from the examples of its parts; None if it has none."""
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas)
    if schema.get("type") == "array":
        one = example_of(schema["items"], schemas)
        return [] if one is None else [one]
    if "properties" in schema:
        parts = {name: example_of(part, schemas) for name, part in schema["properties"].items()}
        return {name: value for name, value in parts.items() if value is not None}
    return None


def _marked(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _printed(value: Any) -> str:
    """JSON for people: lists of numbers and words on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return FLAT_LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    schema = given["schema"]
    return {
        "name": given["name"],
        "where": given["in"],
        "type": schema.get("type") or schema.get("anyOf", [{}])[0].get("type", ""),
        "required": given["required"],
        "default": schema.get("default"),
        "text": given.get("description", ""),
    }


def _curl(path: str, method: str, operation: dict[str, Any], options: str) -> list[str]:
    """Command lines that call an endpoint: one, or with a picture two."""
    query = {}
    for one in operation.get("parameters", ()):
        example = one["schema"].get("examples", [None])[0]
        if one["in"] == "path":
            path = path.replace("{" + one["name"] + "}", str(example))
        elif example is not None:
            query[one["name"]] = example
    url = f"BASE{path}" + (f"?{urlencode(query)}" if query else "")
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        if set(content) == {"multipart/form-data"}:
            fields = content["multipart/form-data"]["schema"]["required"]
            return ["curl " + "".join(f"-F {name}=@{name}.jpg " for name in fields) + f"'{url}'"]
        if set(content) == {JSON}:
            change = json.dumps(content[JSON]["schema"]["examples"][0])
            return [f"curl -X {method} --json '{change}' {url}"]
        return [f"curl --data-binary @photo.jpg '{url}'", f"curl -F file=@photo.jpg '{url}'"]
    url = f"'{url}'" if "&" in url else url
    return [f"curl {'' if method == 'GET' else f'-X {method} '}{options}{url}"]
