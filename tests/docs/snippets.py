"""The fenced snippets of README.md and docs/*.md, and of what kind each is."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Snippet:
    """`language` as the fence says; untagged ones are commands."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets_of(path: Path) -> Iterator[Snippet]:
    """Those of one page, in order. Raises ValueError for a fence that is not closed."""
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fence = re.fullmatch(r"\s*```(\S*)\s*", line)
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (number, fence[1]), []
        else:
            yield Snippet(path.name, opened[0], opened[1] or "sh", "\n".join(lines) + "\n")
            opened = None
    if opened is not None:
        raise ValueError(f"{path.name}:{opened[0]}: the fence is not closed")


SNIPPETS = [snippet for page in PAGES for snippet in snippets_of(page)]


def in_language(*languages: str) -> list[Snippet]:
    return [snippet for snippet in SNIPPETS if snippet.language in languages]


def commands_of(snippet: Snippet) -> Iterator[list[str]]:
    """The words of each command: lines joined, without prompt, comment and redirection, split at pipes."""
    text = snippet.text.replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|<>;&")
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for word in lexer:
            if word in ("|", "||", "&&", ";"):
                yield words
                words = []
            elif word and set(word) <= set("<>&"):
                skip = True
            elif skip:
                skip = False
            else:
                words.append(word)
        if words:
            yield words
