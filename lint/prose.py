"""The prose of a file: its comments, docstrings, string literals, and the names that it defines.

A passage is one text with the line on which it begins. Comments of successive lines are one passage, and so
are adjacent string literals, so that a phrase is found across a line break. Inline code in backquotes is
blanked.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INLINE_CODE = re.compile(r"``?[^`\n]+``?")
_LITERAL = re.compile(r"(?is)[a-z]*(\"\"\"|'''|\"|')(.*)\1\Z")
_FIELD = re.compile(r"\$?\{[^{}\n]*\}")
_TYPESCRIPT = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"
    r"|\b(?:function|class|interface|type|enum)\s+(?P<name>\w+)",
    re.DOTALL,
)
_STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
_WITHIN_STRINGS = {
    tokenize.NL,
    tokenize.COMMENT,
    getattr(tokenize, "FSTRING_START", -1),
    getattr(tokenize, "FSTRING_END", -1),
}


@dataclass(frozen=True, slots=True)
class Passage:
    """`text` begins on line `line` of its file (from 1); its line breaks are those of the file."""

    line: int
    text: str


def passages_of(path: Path, source: str) -> Iterator[Passage]:
    """Yields the passages of a file: as Python or TypeScript by its suffix, else all of it."""
    yield Passage(1, words_of_name(path.stem))
    if path.suffix == ".py":
        yield from _python(source)
    elif path.suffix == ".ts":
        yield from _typescript(source)
    elif path.suffix in (".toml", ".yaml", ".yml", ".sh") or path.name == "Makefile":
        for number, line in enumerate(source.splitlines(), 1):
            yield Passage(number, line)
    else:
        yield Passage(1, _plain(source))


def words_of_name(name: str) -> str:
    """Gives `put_back_models`, `PutBackModels` and `put-back-models` as `put back models`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name).strip().lower()


def _python(source: str) -> Iterator[Passage]:
    comments: list[tuple[int, str]] = []
    strings: list[tuple[int, str]] = []
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            if comments and line > comments[-1][0] + 1:
                yield _joined(comments)
                comments = []
            comments.append((line, token.string.lstrip("# ")))
        if token.type in _STRINGS:
            literal = _LITERAL.match(token.string)
            strings.append((line, literal[2] if literal else token.string))
        elif strings and token.type not in _WITHIN_STRINGS:
            yield from _sentences(strings)
            strings = []
        if token.type == tokenize.NAME and previous in ("def", "class"):
            yield Passage(line, words_of_name(token.string))
        previous = token.string
    if comments:
        yield _joined(comments)


def _typescript(source: str) -> Iterator[Passage]:
    for match in _TYPESCRIPT.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        if match["comment"]:
            yield Passage(line, _plain(match["comment"]))
        elif match["string"]:
            yield from _sentences([(line, match["string"][1:-1])])
        else:
            yield Passage(line, words_of_name(match["name"]))


def _sentences(pieces: list[tuple[int, str]]) -> Iterator[Passage]:
    """The pieces as one passage, unless they are a key or a name: text without white space."""
    passage = _joined(pieces)
    if re.search(r"\S\s+\S", passage.text):
        yield passage


def _joined(pieces: list[tuple[int, str]]) -> Passage:
    first, text = pieces[0]
    at = first + text.count("\n")
    for line, piece in pieces[1:]:
        text += "\n" * (line - at) + piece
        at = line + piece.count("\n")
    return Passage(first, _plain(text))


def _plain(text: str) -> str:
    """Without inline code, and with one white-space character between two words, also across a line break."""
    text = _FIELD.sub("…", _INLINE_CODE.sub("…", text))
    return re.sub(r"[ \t]*\n[ \t]*(?:[*>#]+[ \t]+)?", "\n", re.sub(r"[ \t]+", " ", text))
