"""On which line of a TOML file a value stands, or what is no TOML: `tomllib` keeps no lines of values.

Found by reading: the lines up to it are TOML without the value, and with its own they have it.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import TypeAlias

Path: TypeAlias = Sequence[str | int]
"""`("user", 0, "password")`: keys, and positions in arrays."""

MAX_READINGS = 100
"""How often a text is read to find one place; a place that needs more is not found."""

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_STATEMENT = re.compile(r"""\s*(?:\[|[\w"'-][^=]*=)""")
"""How a line begins that may begin a table or a value; lines within a longer value can look so, too."""


def line_of(text: str, path: Path) -> int | None:
    """The line, from 1, on which the value at `path` begins; None if `text` has none there.

    >>> line_of('a = 1\\n[[user]]\\nname = "n"\\n', ("user", 0, "name"))
    3
    """
    if not path or not _has(text, path):
        return None
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _STATEMENT.match(line)]
    # What stands before each start is read: `top` has the value, `without` does not, nor has any before it.
    without, bottom, top = 0, 0, len(starts)
    readings = 0
    while top - bottom > 1:
        middle = (bottom + top) // 2
        at, found = middle, None
        while at > bottom and found is None:
            if readings == MAX_READINGS:
                return None
            readings += 1
            found = _has("\n".join(lines[: starts[at]]), path)
            at -= found is None  # a cut within a value of several lines is no TOML: those before it may be
        if found:
            top = at
        else:
            bottom, without = middle, without if found is None else at
    return starts[without] + 1


def explain_toml_error(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """The line that is no TOML, and why it is not.

    What never ends is found at the end of the text; the line is that on which it begins.

    >>> try:
    ...     tomllib.loads("a = 1\\n[gateway")
    ... except tomllib.TOMLDecodeError as error:
    ...     explain_toml_error("a = 1\\n[gateway", error)
    (2, "Expected ']' at the end of a table declaration")
    """
    said = str(error)
    position = _POSITION.search(said)
    reason = said if position is None else said[: position.start()]
    if position is not None and position[1] is not None:
        return int(position[1]), reason
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _STATEMENT.match(line)]
    for start in starts[: -MAX_READINGS - 1 : -1]:
        if _has("\n".join(lines[:start]), ()) is not None:
            return start + 1, reason
    return len(lines), reason


def _has(text: str, path: Path) -> bool | None:
    """Whether `text` has a value at `path`; None: it is no TOML."""
    try:
        value: object = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or not step < len(value):
                return False
            value = value[step]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return True
