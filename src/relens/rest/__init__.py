"""The HTTP door: translates requests into uses of the gateway, and their answers and errors back.

Every answer is the JSON form of a value; every error is `{"error": {"code", "message", "hint"}}` under a status that
follows from its family. The door decides nothing of what a use means; it keeps only itself: body sizes, threads, hosts.
"""

from relens.rest.app import create_app

__all__ = ["create_app"]
