"""What surrounds every call: its id, one line in the log, its deadline, and a status for what goes wrong.

No interceptor, which would cost each call a layer more: methods are wrapped once, when the server is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from structlog.contextvars import bind_contextvars

from relens.errors import BadInput, Broken, Busy, RelensError
from relens.rpc.messages import methods
from relens.serving.codes import rpc_code
from relens.serving.served import STICKY, Named
from relens.telemetry import request_id

REQUEST_ID_KEY = "x-request-id"
DETAILS_BYTES = 1500
"""Of a message that go out. They travel in a header, each as three bytes if it is no ASCII, and clients take 8 kB."""
CANCELLED = "CANCELLED"

log = structlog.get_logger(__name__)


class Call:
    """One call, for its method: what is left of its time, and what the log is to say of it."""

    __slots__ = ("_context", "_metadata", "_start", "model", "path", "request_id")

    def __init__(self, path: str, context: Any, known_id: str | None = None) -> None:
        self._start = time.perf_counter()
        self._context = context
        self.path = path
        self._metadata = context.invocation_metadata()
        self.request_id = request_id(known_id or _said(self._metadata, REQUEST_ID_KEY))
        self.model: str | None = None
        # Each call has a task of its own, so that nothing has to be unbound.
        bind_contextvars(request=self.request_id)

    def turn(self) -> Call:
        """One request of a stream, for a line of its own."""
        return Call(self.path, self._context, self.request_id)

    def timeout_s(self, asked_s: float | None = None) -> float | None:
        """Seconds that it may wait: the less of what the client said to gRPC and in its request."""
        left_s = self._context.time_remaining()
        if left_s is None or asked_s is None:
            return asked_s if left_s is None else max(left_s, 1e-3)
        return float(max(min(left_s, asked_s), 1e-3))

    def of_caller(self, named: Named) -> Named:
        """What is named, with who asks, if the call says it: metadata `x-relens-sticky`."""
        sticky = _said(self._metadata, STICKY)
        return named if sticky is None else replace(named, sticky=sticky)

    def say(self, code: str, error: RelensError | None = None) -> None:
        """One line in the log."""
        if not log.is_enabled_for(logging.INFO):
            return
        said = {
            "method": "gRPC",
            "path": self.path,
            "status": code,
            "ms": round((time.perf_counter() - self._start) * 1000, 2),
            "model": self.model,
            "code": error.code if error else None,
            "error": str(error) if isinstance(error, Broken) else None,
        }
        log.info("request", **{key: value for key, value in said.items() if value is not None})

    def failure(self, error: Exception) -> RelensError:
        """The error as one that has a family; what was not foreseen is logged with its trace."""
        if isinstance(error, RelensError):
            return error
        log.error("request failed", exc_info=error)
        return Broken(
            "rpc.failed",
            f"request {self.request_id} failed for a reason that was not foreseen",
            hint="the log of the server has the cause under this id; please report it",
        )


Unary = Callable[[Any, Call], Awaitable[Any]]
Stream = Callable[[AsyncIterator[Any], Call], AsyncIterator[Any]]


def service(name: str, unary: Mapping[str, Unary], streams: Mapping[str, Stream] | None = None) -> Any:
    """What a server of gRPC adds: the methods of a service. Others of it are answered with UNIMPLEMENTED."""
    types = methods(name)
    made: dict[str, Any] = {
        method: grpc.unary_unary_rpc_method_handler(
            _answering(f"/{name}/{method}", types[method][0], handler),
            response_serializer=types[method][1].SerializeToString,
        )
        for method, handler in unary.items()
    }
    for method, stream in (streams or {}).items():
        made[method] = grpc.stream_stream_rpc_method_handler(
            _streaming(f"/{name}/{method}", types[method][0], stream),
            response_serializer=types[method][1].SerializeToString,
        )
    return grpc.method_handlers_generic_handler(name, made)


def details_of(error: RelensError) -> str:
    """What a client is told: message and hint."""
    return str(error).encode()[:DETAILS_BYTES].decode(errors="ignore")


def _answering(path: str, kind: Any, handler: Unary) -> Callable[[bytes, Any], Awaitable[Any]]:
    async def answer(data: bytes, context: Any) -> Any:
        call = Call(path, context)
        code, failed = CANCELLED, None
        try:
            response = await handler(_parsed(data, kind), call)
            code = "OK"
        except Exception as error:  # noqa: BLE001 - told to the client, and the log has it
            failed = call.failure(error)
            code = rpc_code(failed)
        finally:
            call.say(code, failed)
        if failed is not None:
            await _abort(context, call, code, failed)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return response

    return answer


def _streaming(path: str, kind: Any, handler: Stream) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def answer(parts: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        call = Call(path, context)
        code, failed = CANCELLED, None
        try:
            async for response in handler((_parsed(data, kind) async for data in parts), call):
                yield response
            code = "OK"
        except Exception as error:  # noqa: BLE001 - as above
            failed = call.failure(error)
            code = rpc_code(failed)
        finally:
            call.say(code, failed)
        if failed is not None:
            await _abort(context, call, code, failed)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))

    return answer


def _parsed(data: bytes, kind: Any) -> Any:
    """The message that these bytes are. Here, and not by gRPC, which calls bytes that are none UNKNOWN."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadInput("rpc.bad-message", f"the bytes are no {kind.DESCRIPTOR.full_name}: {error}") from error


async def _abort(context: Any, call: Call, code: str, error: RelensError) -> None:
    metadata = [(REQUEST_ID_KEY, call.request_id)]
    if isinstance(error, Busy):
        wait_ms = str(max(1, round(error.retry_after_s * 1000)))
        metadata += [("retry-after-ms", wait_ms), ("grpc-retry-pushback-ms", wait_ms)]
    await context.abort(grpc.StatusCode[code], details_of(error), tuple(metadata))


def _said(metadata: Any, wanted: str) -> str | None:
    """The text under a key of metadata."""
    for key, value in metadata or ():
        if key == wanted and isinstance(value, str):
            return value
    return None
