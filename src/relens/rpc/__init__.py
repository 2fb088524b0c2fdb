"""The gRPC doors: TensorFlow Serving's and the Open Inference Protocol's, over models that are served as they are.

They translate and decide nothing, as their siblings over HTTP, and share with them what is below both.
"""

from relens.rpc.server import RpcServer, create_rpc_server

__all__ = ["RpcServer", "create_rpc_server"]
