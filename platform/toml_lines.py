"""Line numbers for messages about TOML files: of a value, or of a syntax error.

`tomllib` gives no line numbers of values. So `line_of` parses prefixes of the text: the line of a value is
the first whose prefix has the value.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import TypeAlias

Path: TypeAlias = Sequence[str | int]
"""`("user", 0, "password")`: keys, and positions in arrays."""

MAX_READINGS = 100
"""How often a text is parsed to find one line; a line that needs more is not found."""

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_STATEMENT = re.compile(r"""\s*(?:\[|[\w"'-][^=]*=)""")
"""The beginning of a line that may start a table or a value; lines within a longer value can match too."""
_NAME = re.compile(r"(?<=[^\s\[])\s*[=#].*", re.DOTALL)
"""The text after the name of a value or table: it may be a secret."""


def line_of(text: str, path: Path) -> int | None:
    """The line, from 1, on which the value at `path` begins; None if `text` has none there.

    >>> line_of('a = 1\\n[[user]]\\nname = "n"\\n', ("user", 0, "name"))
    3
    """
    if not path or not _has(text, path):
        return None
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _STATEMENT.match(line)]
    # The text before each start is parsed. Before `top` there is the value, before `without` there is not.
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
            at -= found is None  # a prefix that ends within a value of several lines does not parse
        if found:
            top = at
        else:
            bottom, without = middle, without if found is None else at
    return starts[without] + 1


def explain_toml_error(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """The line of a syntax error, and the reason; it names what is not closed, but shows no value.

    The parser finds an unclosed value at a later statement or at the end of the text. The line is that on
    which the value begins.

    >>> try:
    ...     tomllib.loads("a = 1\\n[gateway")
    ... except tomllib.TOMLDecodeError as error:
    ...     explain_toml_error("a = 1\\n[gateway", error)
    (2, "Expected ']' at the end of a table declaration: `[gateway` is not closed")
    """
    said = str(error)
    position = _POSITION.search(said)
    reason = said if position is None else said[: position.start()]
    lines = text.split("\n")
    line = len(lines) if position is None or position[1] is None else int(position[1])
    start = _statement_around(lines, line)
    if start is None:
        return line, reason
    what = f"`{_NAME.sub('', lines[start]).strip()}`"
    if position is None or position[1] is None or reason.startswith("Unclosed"):
        return start + 1, f"{reason}: {what} is not closed"
    if start + 1 < line:
        return line, f"{reason}; is {what} closed, which begins on line {start + 1}?"
    return line, reason


def _statement_around(lines: Sequence[str], line: int) -> int | None:
    """The index of the first line of the statement that contains `line`; None if it is not found."""
    starts = [number for number, text in enumerate(lines[:line]) if _STATEMENT.match(text)]
    for start in starts[: -MAX_READINGS - 1 : -1]:
        if _has("\n".join(lines[:start]), ()) is not None:
            return start
    return None


def _has(text: str, path: Path) -> bool | None:
    """Whether `text` has a value at `path`; None if it is not valid TOML."""
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
