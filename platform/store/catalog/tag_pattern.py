r"""Tag patterns, as fluentd writes them in `<match …>`, each compiled to one regular expression.

A tag has parts separated by dots. `*` matches any characters within one part, `**` any characters with dots;
as whole parts, `*` matches one part and `**` zero or more parts: `a.**` matches `a`, `a.b` and `a.b.c`, and
`a.**.z` also `a.z`. `{a,b.*}` matches either alternative. `\` escapes the character after it.
Source: fluentd, configuration file syntax, "How do the match patterns work?".

Tags are untrusted input, so matching must be fast for any tag. The braces are expanded (at most
MAX_ALTERNATIVES). Within each alternative every wildcard stops at the first position at which the text up to
the next wildcard matches, and never backtracks (an atomic group). This loses no match: a later `**` matches
whatever an earlier stop leaves over, and two successive `*` have no dot between them that could be missed.
So the time grows at most with the square of the length of the tag, not exponentially.
"""

import re
from enum import Enum
from typing import TypeAlias

from ...errors import PolicyInvalid

MAX_PATTERN_CHARACTERS = 500
MAX_ALTERNATIVES = 64
MAX_TAG_BYTES = 200


class _Wild(Enum):
    PART = "*"
    PARTS = "**"


_Token: TypeAlias = str | _Wild
_Alternative: TypeAlias = tuple[_Token, ...]


class TagPattern:
    """One pattern; immutable. Raises PolicyInvalid if the text is not a valid pattern.

    `text` is the pattern as written. `literals` are the tags that it matches if it has no wildcard, None
    otherwise. `specificity` sorts patterns, the most specific first: no wildcard before `*` before `**`,
    then the longer text outside of wildcards (in characters, of the shortest alternative).
    """

    __slots__ = ("_match", "literals", "specificity", "text")

    def __init__(self, text: str) -> None:
        alternatives = [_merged(alternative) for alternative in _alternatives(text)]
        self.text = text
        self._match = re.compile("|".join(_regex(a) for a in dict.fromkeys(alternatives)), re.DOTALL).match
        tokens = {token for alternative in alternatives for token in alternative}
        literals = tuple(
            "".join(token for token in alternative if isinstance(token, str)) for alternative in alternatives
        )
        rank = 2 if _Wild.PARTS in tokens else 1 if _Wild.PART in tokens else 0
        self.specificity = (rank, -min(map(len, literals)))
        self.literals = literals if rank == 0 else None

    def matches(self, tag: str) -> bool:
        """Whether the pattern matches the whole tag."""
        return self._match(tag) is not None

    def __repr__(self) -> str:
        return f"TagPattern({self.text!r})"


def _invalid(text: str, cause: str) -> PolicyInvalid:
    return PolicyInvalid(f'tag pattern "{text[:MAX_PATTERN_CHARACTERS]}" {cause}')


def _alternatives(text: str) -> list[_Alternative]:
    """Read a pattern and expand its braces."""
    if not text:
        raise _invalid(text, "is empty; `**` takes every tag")
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise _invalid(text, f"is too long: at most {MAX_PATTERN_CHARACTERS} characters")
    if re.search(r"[:\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        raise _invalid(text, "holds a colon or a control character, which no tag can hold: take it out")
    if len(text) > 1 and text[0] == text[-1] == "/":
        raise _invalid(text, "is a regular expression; write it with `*`, `**` and `{a,b}`")
    found: list[_Alternative] = [()]
    # For each open brace: the text that precedes it, and its alternatives so far.
    open_braces: list[tuple[list[_Alternative], list[_Alternative]]] = []
    for match in re.finditer(r"\\(.?)|\*\*?|.", text):
        symbol = match[0]
        if symbol == "{":
            open_braces.append((found, []))
            found = [()]
        elif symbol == "," and open_braces:
            open_braces[-1][1].extend(found)
            found = [()]
        elif symbol == "}":
            if not open_braces:
                raise _invalid(text, "closes a brace that it did not open: write `\\}` for the character")
            before, inside = open_braces.pop()
            inside.extend(found)
            if len(before) * len(inside) > MAX_ALTERNATIVES:
                raise _invalid(text, f"has over {MAX_ALTERNATIVES} alternatives: give several patterns")
            found = [left + right for left in before for right in inside]
        elif symbol == "\\":
            raise _invalid(text, "ends with a backslash: write `\\\\` for the character")
        else:
            token = match[1] or (_Wild(symbol) if symbol in ("*", "**") else symbol)
            found = [(*alternative, token) for alternative in found]
    if open_braces:
        raise _invalid(text, "opens a brace that it does not close: write `\\{` for the character")
    return found


def _merged(alternative: _Alternative) -> _Alternative:
    """Merge redundant adjacent wildcards: `***` is `**`, and `a.**.**` is `a.**`."""
    merged: list[_Token] = []
    for token in alternative:
        if isinstance(token, _Wild) and merged and isinstance(merged[-1], _Wild):
            merged[-1] = max(merged[-1], token, key=lambda wild: len(wild.value))
        else:
            merged.append(token)
    at = 0
    while at < len(merged):
        # The dot between them is required only in `x**.**y`, in which neither is a whole part.
        own_part = merged[at - 1 : at] in ([], ["."]) or merged[at + 3 : at + 4] in ([], ["."])
        if merged[at : at + 3] == [_Wild.PARTS, ".", _Wild.PARTS] and own_part:
            del merged[at : at + 2]
        else:
            at += 1
    return tuple(merged)


def _regex(alternative: _Alternative) -> str:
    """The regular expression of tokens without braces; anchored at the end, for `Pattern.match`."""
    gaps, segments = _cut(alternative)
    return "".join(
        f"(?>{gap}{_segment_regex(segment, end)})" for gap, (segment, end) in zip(gaps, segments, strict=True)
    )


def _cut(alternative: _Alternative) -> tuple[list[str], list[tuple[_Alternative, str]]]:
    """Split at each `**`: what precedes each segment, and each segment with what must follow it."""
    tokens = list(alternative)
    gaps = [""]
    segments: list[tuple[_Alternative, str]] = []
    while _Wild.PARTS in tokens:
        at = tokens.index(_Wild.PARTS)
        segment, tokens = tokens[:at], tokens[at + 1 :]
        # `a.**` also matches `a` itself: its dot is required only if something follows.
        ends_part = not tokens and segment[-1:] == ["."]
        segments.append((tuple(segment[:-1]), r"(?=\.|\Z)") if ends_part else (tuple(segment), ""))
        if tokens[:1] == ["."]:
            del tokens[0]
            # As a whole part, `**` also matches zero parts.
            gaps.append(r"(?:.*?\.)??" if not segment or segment[-1] == "." else r".*?\.")
        else:
            gaps.append(".*?")
    segments.append((tuple(tokens), r"\Z"))
    return gaps, segments


def _segment_regex(segment: _Alternative, end: str) -> str:
    pieces = [""]
    for token in segment:
        if isinstance(token, str):
            pieces[-1] += re.escape(token)
        else:
            pieces.append("")
    pieces[-1] += end
    return pieces[0] + "".join(rf"(?>[^.]*?{piece})" for piece in pieces[1:])
