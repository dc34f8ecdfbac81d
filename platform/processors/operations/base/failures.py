"""Converts exceptions of an operation's code to errors that stop no process; suggests names for typos."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ....errors import OperationFailed


def as_failure(error: BaseException) -> Exception:
    """An exception of an operation's code as an `Exception` with a message, which stops no process.

    That code can raise other subclasses of BaseException: SystemExit, KeyboardInterrupt, or the panic of a
    Rust extension module (`pyo3_runtime.PanicException`).
    """
    if isinstance(error, Exception) and error_text(error):
        return error
    if isinstance(error, SystemExit):
        failure = OperationFailed(f"it called exit({error.code!r})")
    else:
        failure = OperationFailed(f"{type(error).__name__}: {error_text(error)}".removesuffix(": "))
    return failure.with_traceback(error.__traceback__)


def error_text(error: BaseException) -> str:
    """The message of the error; empty if formatting it raises."""
    try:
        return str(error)
    except BaseException:  # the __str__ of an error is foreign code too
        return ""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """The end of a message that rejects a name: a similar name if there is one, and all allowed names."""
    names = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(given.lower(), names, n=1)
    hint = f'; did you mean "{names[close[0]]}"?' if close else ";"
    return f"{hint} Allowed: {', '.join(names.values()) or 'none'}"
