"""relens: visual recognition and search that you run yourself.

`relens.open(home)` gives every use as methods, in this process; `relens.Client(url)` the same over HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from relens.client import Client
    from relens.wiring import Local

__all__ = ["Client", "open"]


def open(home: str | Path | None = None) -> Local:  # noqa: A001 - as in `relens.open(…)`
    """The home at a folder (default: RELENS_HOME, else ./relens), in this process. Missing if it was never made."""
    from relens.wiring import open_local  # noqa: PLC0415 - `import relens` stays quick

    return open_local(home)


def __getattr__(name: str) -> Any:
    if name == "Client":
        from relens.client import Client  # noqa: PLC0415 - as above

        return Client
    raise AttributeError(name)
