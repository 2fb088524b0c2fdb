"""A server of gRPC that does nothing: bytes in, a few bytes out. What is beneath any door of Python's grpc.aio.

Run as a program, it prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import uvloop

SERVICE, METHOD = "bench.Bare", "Ask"
ANSWER = bytes(40)


async def main() -> None:
    async def answer(_data: bytes, _context: Any) -> bytes:
        return ANSWER

    server = grpc.aio.server()
    method = {METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, method),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
