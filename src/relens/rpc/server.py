"""A server of gRPC with all services, on the event loop on which the models are served."""

from __future__ import annotations

import grpc

from relens.errors import Conflict
from relens.rpc.oip import oip_services
from relens.rpc.tfserving import tfserving_services
from relens.serving.served import ModelServer
from relens.serving.tallies import counted

GRACE_S = 10.0


class RpcServer:
    """A server of gRPC that lives as long as what it serves. Belongs to one event loop."""

    def __init__(self, server: grpc.aio.Server, *, grace_s: float) -> None:
        self._server = server
        self._grace_s = grace_s

    def listen(self, host: str, port: int) -> int:
        """Listen without encryption on a port; 0 takes a free one. The port. Conflict if it is taken."""
        try:
            return self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise Conflict(
                "rpc.port-taken", f"cannot listen for gRPC on {host}:{port}", hint="choose another with --grpc-port"
            ) from error

    async def open(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def close(self) -> None:
        """Take no more calls, and answer those that have begun, within the grace."""
        await self._server.stop(self._grace_s)


def create_rpc_server(server: ModelServer, *, max_bytes: int, grace_s: float = GRACE_S) -> RpcServer:
    """A server of gRPC over these models, on the running event loop. It listens nowhere yet.

    max_bytes  of a request; a larger one is refused with RESOURCE_EXHAUSTED. Answers are as large as they are
    grace_s    for what has begun, when it ends
    """
    server = counted(server)
    made = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else a second server may listen on the same port, and gets half of the calls
        )
    )
    made.add_generic_rpc_handlers((*tfserving_services(server, max_bytes=max_bytes), *oip_services(server)))
    return RpcServer(made, grace_s=grace_s)
