"""Everything that can go wrong, in one root and six families.

A family says what the caller can do about it and knows no transport; doors map it to a status. Every error has a
stable code (`vectors.space-mismatch`), a message that says what happened, and a hint that says what to do.
"""

from __future__ import annotations

from typing import Any


class RelensError(Exception):
    """The root. `code` is stable and may be matched on; `message` and `hint` are for people."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint, self.__dict__)

    def to_json(self) -> dict[str, Any]:
        """`{"error": {"code", "message", "hint"}}`, the same from every door."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


class BadInput(RelensError):
    """What was given cannot be used; giving it again changes nothing."""


class Denied(RelensError):
    """The caller may not do this."""


class Missing(RelensError):
    """What was named does not exist. `gone` says that it did, and was deleted."""

    def __init__(self, code: str, message: str, *, hint: str = "", gone: bool = False) -> None:
        super().__init__(code, message, hint=hint)
        self.gone = gone


class Conflict(RelensError):
    """The state of things forbids it now: a gate is shut, or somebody else was first."""


class Busy(RelensError):
    """Too much to do, or not in time. Asking again after `retry_after_s` is reasonable."""

    def __init__(self, code: str, message: str, *, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(code, message, hint=hint)
        self.retry_after_s = retry_after_s


class Broken(RelensError):
    """Something of ours does not work: a disk, the catalog, an engine, a file that differs from its digest."""


FAMILIES: dict[str, type[RelensError]] = {c.__name__: c for c in (BadInput, Denied, Missing, Conflict, Busy, Broken)}


def _rebuild(cls: type[RelensError], code: str, message: str, hint: str, state: dict[str, Any]) -> RelensError:
    error = cls(code, message, hint=hint)
    error.__dict__.update(state)
    return error
