"""Logs and metrics: one JSON object a line on stderr, and Prometheus counters of this process.

Every line carries what it is about (plan, pack, release, request). No text of a user's picture or item is logged.
"""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

REGISTRY = CollectorRegistry()
REQUESTS = Counter("relens_requests", "Questions answered, by use and outcome", ["use", "outcome"], registry=REGISTRY)
LATENCY = Histogram(
    "relens_request_seconds",
    "Seconds from admission to answer",
    ["use"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
PHASES = Histogram(
    "relens_phase_seconds",
    "Seconds of each phase of an answer",
    ["use", "phase"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
ENGINES = Gauge("relens_engines", "Engine processes that run", registry=REGISTRY)
ENGINE_STARTS = Counter("relens_engine_starts", "Engine processes started", registry=REGISTRY)

MODEL_REQUESTS = Counter(
    "relens_model_requests",
    "Requests to models that are served as they are",
    ["model", "version", "outcome"],
    registry=REGISTRY,
)
MODEL_LATENCY = Histogram(
    "relens_model_request_seconds",
    "Seconds from a request's arrival at its model to the answer",
    ["model", "version"],
    registry=REGISTRY,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
MODEL_PHASES = Histogram(
    "relens_model_phase_seconds",
    "Seconds that an engine took for a phase of a request: `queue`, `prepare` or `run`",
    ["model", "version", "phase"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
MODEL_ROWS = Histogram(
    "relens_model_batch_rows",
    "Rows of the forward that a request was run in",
    ["model", "version"],
    registry=REGISTRY,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
MODEL_WAITING = Gauge(
    "relens_model_waiting", "Requests that an engine has not answered", ["model", "version"], registry=REGISTRY
)
MODEL_MEMORY = Gauge(
    "relens_model_memory_bytes", "Resident memory of a version's engine", ["model", "version"], registry=REGISTRY
)
MODEL_STATE = Gauge(
    "relens_model_state", "1 for the state that a version is in", ["model", "version", "state"], registry=REGISTRY
)
MODEL_SHARE = Gauge(
    "relens_model_share",
    "Share of the requests that name no version, where they are split",
    ["model", "version"],
    registry=REGISTRY,
)
MODEL_RETRIES = Counter(
    "relens_model_retries",
    "Requests that a canary failed, and that the stable version was asked then",
    ["model", "version"],
    registry=REGISTRY,
)
MODEL_ROLLBACKS = Counter(
    "relens_model_rollbacks", "Canaries that were rolled back", ["model", "version"], registry=REGISTRY
)
MODEL_SHADOWED = Counter(
    "relens_model_shadow_requests",
    "Requests to shadows: `same`, `different`, `other_form`, `failed` or `skipped`",
    ["model", "version", "outcome"],
    registry=REGISTRY,
)
MODEL_SHADOW_OFF = Histogram(
    "relens_model_shadow_difference",
    "Largest difference of a shadow's answer, as a share of the largest number",
    ["model", "version"],
    registry=REGISTRY,
    buckets=(1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1),
)
MODEL_SHADOW_CLASSES = Counter(
    "relens_model_shadow_classes",
    "Rows or objects whose best class is the shadow's too (`same`), or is not (`other`)",
    ["model", "version", "outcome"],
    registry=REGISTRY,
)
MODEL_LOADS = Counter("relens_model_loads", "Versions of models loaded", ["model", "outcome"], registry=REGISTRY)


class VersionMetrics:
    """What is told of one version's requests; to look up metrics by their labels takes longer than to count."""

    def __init__(self, model: str, version: int) -> None:
        self._labels = {"model": model, "version": str(version)}
        self._latency = MODEL_LATENCY.labels(**self._labels)
        self._rows = MODEL_ROWS.labels(**self._labels)
        self._phases: dict[str, Histogram] = {}
        self._outcomes: dict[str, Counter] = {}

    def count(self, outcome: str, took_s: float) -> None:
        """One request, and how long it took."""
        if outcome not in self._outcomes:
            self._outcomes[outcome] = MODEL_REQUESTS.labels(**self._labels, outcome=outcome)
        self._outcomes[outcome].inc()
        self._latency.observe(took_s)

    def ran(self, rows: int, timings_ms: Mapping[str, float]) -> None:
        """The rows of the forward that answered a request, and how long its phases took."""
        self._rows.observe(rows)
        for phase, took_ms in timings_ms.items():
            if phase not in self._phases:
                self._phases[phase] = MODEL_PHASES.labels(**self._labels, phase=phase)
            self._phases[phase].observe(took_ms / 1000)

    def forget(self) -> None:
        """Tell no more of it, which otherwise is told as long as the process lives."""
        for metric in (MODEL_REQUESTS, MODEL_LATENCY, MODEL_PHASES, MODEL_ROWS):
            metric.remove_by_labels(self._labels)


def request_id(given: str | None) -> str:
    """A caller's id of its request if it is fit for logs and headers, else a new one."""
    if given and REQUEST_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(64):016x}"


def start_logging(level: str, form: str, *, for_good: bool = False) -> None:
    """Send logs of at least this level ("debug", "info", "warning", "error") to stderr, as "json" or "text".

    `for_good` says that this process will not set it again, which makes each line cheaper.
    """
    render = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )


class Stopwatch:
    """Milliseconds of named phases, for answers."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block; the same name adds up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = round(self.ms.get(name, 0.0) + (time.perf_counter() - start) * 1000, 3)
