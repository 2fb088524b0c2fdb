"""Settings: read once from `relens.yaml` and the environment, checked, frozen, passed down in slices.

`RELENS__SERVER__PORT=9000` goes before the file. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from relens.errors import BadInput, Missing

FILE = "relens.yaml"
ENV_PREFIX = "RELENS__"
DEFAULT_HOME = "./relens"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """What `relens up` listens on and how much it takes in."""

    host: str = Field("127.0.0.1", description="address to listen on; only loopback until there are keys")
    port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    timeout_s: float = Field(30.0, gt=0, description="a question that waits longer is dropped before it runs")
    queue: int = Field(64, ge=1, description="questions that may wait for one engine; more are refused with 503")
    engine_idle_s: float = Field(900.0, ge=0, description="an engine that nobody asks for so long is ended; 0: never")
    threads: int = Field(1, ge=1, description="questions that one engine works on at a time, beside one enrolment")


class Limits(_Section):
    """What a picture may be, checked on its header before it is decoded."""

    max_bytes: int = Field(64 * 1024 * 1024, ge=1, description="bytes of one picture")
    max_pixels: int = Field(100_000_000, ge=1, description="pixels of one picture")
    max_progressive_pixels: int = Field(25_000_000, ge=1, description="pixels of a progressive JPEG (4x the CPU)")


class Imports(_Section):
    """How plans are cut and worked off."""

    recipe: str = Field("photos", description="recipe of a new gallery when none is named")
    pack_size: int = Field(
        512, ge=1, le=10_000, description="pictures in a pack, at most: the unit of work and of retry"
    )
    workers: int = Field(0, ge=0, description="worker processes; 0 means one per core")
    nice: int = Field(19, ge=0, le=19, description="niceness of workers; questions have 10, and go before imports")
    lease_s: float = Field(60.0, ge=1.0, description="seconds without a heartbeat after which a pack is free again")


class Galleries(_Section):
    """How galleries are kept in shape while `relens up` runs."""

    compact_at: int = Field(
        2000, ge=1, description="single enrolments and deletions after which they are folded into segments"
    )


class Fetch(_Section):
    """How pictures that are named by URL are fetched; docs/imports.md explains it."""

    timeout_s: float = Field(30.0, gt=0, description="one try, from the name to the last byte, redirects included")
    connect_timeout_s: float = Field(10.0, gt=0, description="the part of it in which a connection has to be made")
    max_redirects: int = Field(5, ge=0, description="redirects that are followed; each is checked like the first URL")
    retries: int = Field(3, ge=0, le=20, description="further tries after 429, 502, 503, 504 and broken connections")
    per_host_parallel: int = Field(4, ge=1, description="fetches from one host at a time, per worker")
    per_host_delay_s: float = Field(0.0, ge=0, description="seconds between two starts at one host, per worker")
    allow_hosts: tuple[str, ...] = Field((), description="hosts, or *.suffix, to fetch from; empty means all")
    allow_private: bool = Field(False, description="fetch also from this machine and private networks")
    user_agent: str = Field("relens", pattern=r"^[ -~]+$", description="how servers are told who asks")
    s3_endpoint: str = Field("", description="URL of an S3 that is not Amazon's; credentials as AWS tools take them")


class BlobStore(_Section):
    """How blobs at a URL are reached, and how many are kept here; docs/stores.md explains it."""

    endpoint: str = Field("", description="S3 that is not Amazon's, as host:port or URL")
    region: str = Field("", description="region of the bucket, where there are regions")
    key: str = Field("", description="access key of S3 or user of WebDAV; empty means what the environment has")
    secret: SecretStr = Field(
        SecretStr(""), description="secret key or password; better RELENS__BLOB_STORE__SECRET in the environment"
    )
    secure: bool = Field(True, description="TLS to an endpoint that is named as host:port")
    operation_timeout_s: float = Field(30.0, gt=0, description="a request that takes longer, repeats included, fails")
    cache_mb: int = Field(10_000, ge=0, description="megabytes of blobs kept in `cache` in the home")

    @field_serializer("secret")
    def _masked(self, secret: SecretStr) -> str:
        return str(secret)


class Search(_Section):
    """When galleries are searched by approximate indexes; docs/windows.md explains it."""

    exact_rows: int = Field(100_000, ge=1, description="a category with fewer rows is searched exactly")


class Gc(_Section):
    """What `relens gc` leaves although nothing needs it any more."""

    keep_views: int = Field(10, ge=0, description="superseded views of each gallery and lens, with their releases")


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _named(given: Any) -> Any:
    """Names of versions as text; YAML reads digits as numbers."""
    if isinstance(given, dict):
        return {_named(key): value for key, value in given.items()}
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


class Rollback(_Section):
    """When a canary gets no more requests."""

    errors: float | None = Field(
        0.05, ge=0, le=1, description="more of its last `requests` failed; null: any number may"
    )
    latency: float | None = Field(
        None, gt=0, description="95 % of `requests` took more than so many times as long as of the stable version"
    )
    requests: PositiveInt = Field(200, description="that are looked at")


class Traffic(_Section):
    """How versions of one model share the requests that name none. A version is named by label or number."""

    split: Annotated[dict[str, Weight], BeforeValidator(_named)] = Field(
        description="version to weight; the first one is the stable version, others are canaries"
    )
    shadow: Annotated[str | None, BeforeValidator(_named)] = Field(
        None, description="is asked too what another version has answered; its answers are compared and dropped"
    )
    rollback: Rollback = Field(Rollback(), description="when a canary gets no more requests")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not sum(self.split.values()) > 0:
            raise PydanticCustomError("weights", "Split has no version with a weight over 0")
        if self.shadow == next(iter(self.split)):
            raise PydanticCustomError("shadow", "Shadow is the stable version, the first one of split")
        return self


class ServedModel(_Section):
    """How one model of the folder is served."""

    latest: NonNegativeInt | Literal["all"] = Field(1, description="so many of its newest versions, or all")
    specific: tuple[int, ...] = Field((), description="these versions instead")
    labels: dict[str, int] = Field({}, description="label to version; it names that version while it is available")
    swap: Literal["availability", "resource"] = Field(
        "availability", description="whether the next version is loaded before the last one goes, or after"
    )
    backend: Literal["onnxruntime", "openvino", "measured"] = Field(
        "onnxruntime", description="what runs it; measured: OpenVINO, if it says the same in less time here"
    )
    profile: Literal["fair", "batch", "bulk"] = Field(
        "fair", description="each request by itself on one core; together on all cores; the same in idle time"
    )
    batch: PositiveInt | None = Field(None, description="rows of a batch, at most; none: 8, or 32 of bulk")
    delay_ms: NonNegativeFloat | None = Field(None, description="how long a batch waits for more; none: 2, or 50")
    sizes: tuple[PositiveInt, ...] = Field((), description="rows that a batch may have; it is filled up to the next")
    queue: PositiveInt | None = Field(None, description="requests that may wait for its engine; none: server.queue")
    priorities: PositiveInt = Field(1, description="how many a request may have; 1 is run first, the middle is usual")
    traffic: Traffic | None = Field(None, description="how versions share requests; none: the newest one answers")

    @model_validator(mode="after")
    def _with_labels(self) -> Self:
        named = [] if self.traffic is None else [*self.traffic.split, *filter(None, [self.traffic.shadow])]
        if unknown := [name for name in named if not name.isdecimal() and name not in self.labels]:
            known = ", ".join(self.labels) or "none"
            raise PydanticCustomError(
                "label",
                "Traffic names {name}, which is neither a number nor one of the labels ({known})",
                {"name": unknown[0], "known": known},
            )
        return self


class Models(_Section):
    """Models that are served as they are, beside the home's own; docs/serving.md explains it."""

    folder: str = Field("", description="folder with <name>/<version>/, or s3://…, webdavs://…; empty means none")
    grpc_port: int | None = Field(None, ge=0, le=65535, description="port for gRPC; 0 takes a free one, null: none")
    poll_s: float = Field(1.0, gt=0, description="from one look at the folder to the next")
    load_timeout_s: float = Field(300.0, gt=0, description="a version that takes longer to load has failed")
    tries: int = Field(3, ge=1, description="of loading a version, before it is given up until its files change")
    drain_s: float = Field(30.0, ge=0, description="what a version that goes has for what it has begun")
    at_once: int = Field(2, ge=1, description="versions that are loaded at the same time")
    others: bool = Field(True, description="models that `serve` does not name are served too, their newest version")
    serve: dict[str, ServedModel] = Field({}, description="model to how it is served")


class Logs(_Section):
    """What is logged to stderr by servers and workers."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    format: Literal["json", "text"] = Field("json", description="one JSON object a line, or text for people")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    catalog: str = Field("", description="URL of the catalog; empty means SQLite in the home, or postgresql://…")
    blobs: str = Field(
        "", description="folder of blobs, or s3://bucket/prefix, webdavs://host/path; empty means `blobs` in the home"
    )
    blob_store: BlobStore = BlobStore()
    server: Server = Server()
    limits: Limits = Limits()
    imports: Imports = Imports()
    galleries: Galleries = Galleries()
    fetch: Fetch = Fetch()
    search: Search = Search()
    gc: Gc = Gc()
    models: Models = Models()
    logs: Logs = Logs()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the names are the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


class Home:
    """The folder that holds everything of one relens, and where each thing is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.file = self.path / FILE
        self.blobs = self.path / "blobs"
        self.cache = self.path / "cache"
        self.fetched = self.path / "fetched"
        self.models = self.path / "models"
        self.environments = self.path / "environments"
        self.downloads = self.path / "downloads"
        self.recipes = self.path / "recipes"
        self.run = self.path / "run"

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.path, self.blobs, self.models, self.recipes, self.run

    def catalog_url(self, settings: Settings) -> str | Path:
        """A URL, or the path of an SQLite file."""
        return settings.catalog or self.path / "catalog.sqlite3"

    def blob_folder(self, settings: Settings) -> Path:
        """Where blobs are, if they are in a folder and not at a URL."""
        return (self.path / Path(settings.blobs).expanduser()).absolute() if settings.blobs else self.blobs


def find_home(named: str | Path | None) -> Home:
    """The home that was named, else that of RELENS_HOME, else `./relens`. It need not exist."""
    return Home(Path(named or os.environ.get("RELENS_HOME") or DEFAULT_HOME))


def load(home: Home) -> Settings:
    """The settings of a home. Missing if it was never made; BadInput, naming file and key, if they are not valid."""
    if not home.file.is_file():
        raise Missing(
            "config.no-home",
            f"there is no home at {home.path}",
            hint="make one with `relens init`, or name one with --home or RELENS_HOME",
        )
    try:
        given = yaml.safe_load(home.file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput("config.not-yaml", f"{home.file} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise BadInput("config.not-yaml", f"{home.file} must hold keys and values")
    try:
        # A section with everything commented out reads as None.
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise _bad_setting(f"{home.file} or the environment", error) from error


def without_home() -> Settings:
    """The defaults, and what the environment says. BadInput, naming the key, if that is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        raise _bad_setting("the environment", error) from error


def template() -> str:
    """A `relens.yaml` with every setting, its meaning and its default, all commented out."""
    lines = ["# Settings of this relens home. What is commented out is the default."]
    lines.append(f"# Environment variables go before this file: {ENV_PREFIX}SERVER__PORT=9000")
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, _Section):
            section = type(field.default)
            lines += ["", f"# {section.__doc__}", f"{name}:"]
            lines += [
                f"  # {key}: {_yaml(sub.default)}  # {sub.description}" for key, sub in section.model_fields.items()
            ]
        else:
            lines += ["", f"# {name}: {_yaml(field.default)}  # {field.description}"]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    return yaml.safe_dump(value, default_style='"' if isinstance(value, str) else None).removesuffix("...\n").strip()


def _bad_setting(where: str, error: ValidationError) -> BadInput:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return BadInput(
            "config.bad-value",
            f"{key}: {first['msg'][:1].lower()}{first['msg'][1:]} (in {where})",
            hint="see docs/settings.md",
        )
    known = _known_keys(first["loc"])
    near = difflib.get_close_matches(key, known, 1, 0.5) or difflib.get_close_matches(
        key.rpartition(".")[2], known, 1, 0.0
    )
    return BadInput(
        "config.unknown-key",
        f"{key} is no setting (in {where})",
        hint=f"did you mean {near[0]}?" if near else "see docs/settings.md",
    )


def _known_keys(unknown: Sequence[int | str]) -> list[str]:
    """Keys that could have been meant instead of the unknown one."""
    if unknown[:2] == ("models", "serve"):
        *parents, _ = map(str, unknown)
        nested: dict[str, type[_Section]] = {"traffic": Traffic, "rollback": Rollback}
        section = ServedModel if parents[3:] == [] else nested.get(parents[-1], ServedModel)
        return [".".join([*parents, key]) for key in section.model_fields]
    keys = []
    for name, field in Settings.model_fields.items():
        keys.append(name)
        if isinstance(field.default, _Section):
            keys += [f"{name}.{key}" for key in type(field.default).model_fields]
    return keys
