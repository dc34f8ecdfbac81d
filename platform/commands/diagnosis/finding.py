"""What a check of `windvane doctor` finds."""

from typing import Literal, TypeAlias

import msgspec

State: TypeAlias = Literal["ok", "warning", "failure", "skipped"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one check.

    `warning`: it works, but may not for long. `failure`: it does not work, or others can read or change what
    they should not. `fix` says how to fix it, by a step that loses nothing. Neither shows a secret.
    """

    check: str
    state: State
    message: str
    fix: str = ""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, fix: str) -> Finding:
    """It works, but may not for long."""
    return Finding(check, "warning", message, fix)


def failure(check: str, message: str, fix: str) -> Finding:
    """It does not work, or is open to others."""
    return Finding(check, "failure", message, fix)


def skipped(check: str, message: str) -> Finding:
    """It could not be checked, or there is nothing to check."""
    return Finding(check, "skipped", message)
