"""Endpoints: folders of whole files at a URL, and the patience that reaching them takes.

A file under a name is complete: an upload is seen when it has ended. A request that fails is made again, a few times
and within its time; then it is Broken. What is not there is a FileNotFoundError. What the files are is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeVar

from relens.errors import BadInput, Broken, RelensError

T = TypeVar("T")

PART_BYTES = 8 << 20
"""Of one request: it must pass within `operation_timeout_s`, so a link may be as slow as 280 kB/s."""

CONNECT_S = 5.0
PAUSES_S = (0.25, 1.0, 4.0)
LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Stat:
    """Bytes of a file, and when it was stored: seconds since 1970 by the endpoint's clock."""

    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its name, its bytes, and a mark that is another once it was written anew.

    Of a folder, where there are such, the name ends in `/`, and says no more.
    """

    name: str
    size: int = 0
    mark: str = ""


class Endpoint(Protocol):
    """Files by name: `part/part`. Broken `store.remote` or `store.remote-denied` where it does not serve."""

    where: str
    """Names it in errors."""

    def stat(self, name: str) -> Stat:
        """FileNotFoundError if there is none, as in `read`."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """At most `length` bytes, at least 1 and not more than PART_BYTES; fewer only where the file ends."""

    def store(self, name: str, file: BinaryIO, size: int) -> None:
        """Store a file of `size` bytes, from its beginning, instead of one that is there."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def names(self) -> Iterator[str]:
        """Names of all files in folders of two hexadecimal digits, and perhaps others."""

    def entries(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        """What lies under a folder (`part/`; empty: all), and has a name that is wanted, as it is now.

        Nothing is looked for in a folder whose name (`part/`) is not wanted. FileNotFoundError if there is no such
        folder; where there are none, nothing is listed.
        """

    def sweep(self, before: float) -> int:
        """Give up uploads that began earlier than this and did not end. How many."""


class Patience:
    """Makes a request, and makes it again when it fails, within `budget_s` seconds.

    Once it has given up, requests are made only once until one succeeds: who asks for thousands of files is told soon.
    With `looks`, what is not there is looked for as often before it is missed: some servers take a file away for a
    moment when another is moved into its place.
    """

    def __init__(self, where: str, budget_s: float, *, looks: int = 1) -> None:
        self._where = where
        self._budget_s = budget_s
        self._looks = looks
        self._gave_up = False

    def __call__(self, ask: Callable[[float], T]) -> T:
        """The answer of `ask`, which is told how many seconds are left. FileNotFoundError, or Broken."""
        deadline = time.monotonic() + self._budget_s
        looks = iter(range(self._looks - 1))
        pauses = iter(() if self._gave_up else PAUSES_S)
        while True:
            try:
                answer = ask(max(deadline - time.monotonic(), 0.1))
            except RelensError:
                raise
            except PermissionError as error:
                raise self._denied(error) from error
            except FileNotFoundError:
                if next(looks, None) is None:
                    self._gave_up = False  # that is an answer
                    raise
                pause = LOOK_AGAIN_S
            except Exception as error:
                # The libraries of stores raise what they like; whatever it is, the store may be back in a moment.
                pause = next(pauses, self._budget_s)
                if time.monotonic() + pause >= deadline:
                    self._gave_up = True
                    raise self.broken(error) from error
            else:
                self._gave_up = False
                return answer
            time.sleep(pause)

    def _denied(self, error: Exception) -> Broken:
        return Broken(
            "store.remote-denied",
            f"{self._where} refuses us: {error}",
            hint="are blob_store.key and its secret right, and may they list, read, write and delete there?",
        )

    def broken(self, error: Exception) -> Broken:
        """The store does not serve: why."""
        return Broken(
            "store.remote",
            f"{self._where} does not serve: {str(error) or type(error).__name__}",
            hint="is it up, and can this machine reach it? imports wait for it and go on by themselves",
        )


def bad_url(problem: str, hint: str) -> BadInput:
    """The URL of a store is not right."""
    return BadInput("config.bad-value", problem, hint=hint)
