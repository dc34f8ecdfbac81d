"""What an operation's code has raised, as an error that ends nothing; and suggestions for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ....errors import OperationFailed


def as_failure(error: BaseException) -> Exception:
    """What the code of an operation has raised, as an error that ends nothing and that has a message.

    That code can raise what is no `Exception`: `sys.exit`, KeyboardInterrupt, or the panic of an extension
    module in Rust (`pyo3_runtime.PanicException`).
    """
    if isinstance(error, Exception) and error_text(error):
        return error
    if isinstance(error, SystemExit):
        failure = OperationFailed(f"it called exit({error.code!r})")
    else:
        failure = OperationFailed(f"{type(error).__name__}: {error_text(error)}".removesuffix(": "))
    return failure.with_traceback(error.__traceback__)


def error_text(error: BaseException) -> str:
    """What it says; nothing if saying it raises."""
    try:
        return str(error)
    except BaseException:  # an error's own __str__ is their code too
        return ""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """The end of a message that rejects a name: a similar name if there is one, and all allowed names."""
    names = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(given.lower(), names, n=1)
    hint = f'; did you mean "{names[close[0]]}"?' if close else ";"
    return f"{hint} Allowed: {', '.join(names.values()) or 'none'}"
