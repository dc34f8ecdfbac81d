"""Checks prose against the words of `words.toml`: `python -m lint.words [FILE ...]`.

A match is excused by an `[[allowed]]` entry there, or by `words-pending.txt`, which counts the matches of
folders that are still to be rewritten. A count may fall and not rise. `--pending` prints that file with
today's counts.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lint.prose import passages_of
from lint.tracked import ROOT, tracked_files

RULES = ROOT / "lint/words.toml"
PENDING = ROOT / "lint/words-pending.txt"
_SUFFIXES = (".py", ".ts", ".md", ".toml", ".yaml", ".yml", ".sh", ".html", ".css", ".avsc", "")
_HEAD = """\
# Matches of lint/words.toml that are still to be rewritten: a count, and the folder below which they are
# (without those of a deeper entry). A count may fall and not rise; an entry goes when its folder is clean.
# `python -m lint.words FILE ...` or `FOLDER` lists them, `python -m lint.words --pending` prints this file.
"""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Excuses the matches on lines of `path` (a file, or a folder with its slash) that hold `line`."""

    path: str
    line: str
    reason: str

    def excuses(self, match: Match) -> bool:
        """Whether the match lies on such a line."""
        inside = (
            str(match.path).startswith(self.path) if self.path.endswith("/") else str(match.path) == self.path
        )
        return inside and self.line in match.source_line


@dataclass(frozen=True, slots=True)
class Match:
    """A match in a file (relative to the root), and what to write instead."""

    path: Path
    line: int
    text: str
    source_line: str
    write: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r} -> write {self.write}"


class Rules(NamedTuple):
    """What `words.toml` says: `write` has what to write instead of a match of each group of `pattern`."""

    pattern: re.Pattern[str]
    write: Sequence[str]
    allowed: Sequence[Allowed]

    def excuse(self, match: Match) -> bool:
        """Whether an entry allows the match."""
        return any(entry.excuses(match) for entry in self.allowed)


def load_rules(path: Path = RULES) -> Rules:
    """Reads the rules. Each pattern is one group of a single expression, which takes a tenth of the time."""
    rules = tomllib.loads(path.read_text(encoding="utf-8"))
    groups = "|".join(f"(?P<w{number}>{each['pattern']})" for number, each in enumerate(rules["word"]))
    return Rules(
        re.compile(rf"\b(?:{groups})\b".replace(" ", r"\s"), re.IGNORECASE),
        [each["write"] for each in rules["word"]],
        [Allowed(**each) for each in rules.get("allowed", [])],
    )


def matches_in(path: Path, source: str, rules: Rules) -> Iterator[Match]:
    """Yields the matches in one file, by line; the same text once a line."""
    lines = source.splitlines()
    found: dict[tuple[int, str], Match] = {}
    for passage in passages_of(path, source):
        for match in rules.pattern.finditer(passage.text):
            line = passage.line + passage.text.count("\n", 0, match.start())
            text = " ".join(match[0].split())
            write = next(rules.write[int(name[1:])] for name, group in match.groupdict().items() if group)
            source_line = lines[line - 1] if line <= len(lines) else ""
            found[line, text.lower()] = Match(path, line, text, source_line, write)
    yield from (found[key] for key in sorted(found))


def all_matches(rules: Rules) -> list[Match]:
    """Gives the matches in all files in git that no entry allows."""
    return [
        match
        for path in tracked_files(*_SUFFIXES)
        for match in matches_in(path, (ROOT / path).read_text(encoding="utf-8"), rules)
        if not rules.excuse(match)
    ]


def pending_counts(text: str) -> dict[str, int]:
    """Reads `words-pending.txt`: the count of each folder."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {folder: int(count) for count, folder in lines}


def by_entry(matches: Sequence[Match], entries: Container[str]) -> dict[str, list[Match]]:
    """Groups the matches by the deepest of the entries that is above the file, else by the file's folder."""
    grouped: dict[str, list[Match]] = {}
    for match in matches:
        folders = [str(folder) for folder in match.path.parents]
        above = (folder for folder in folders if folder in entries and (folder != "." or len(folders) == 1))
        grouped.setdefault(next(above, folders[0]), []).append(match)
    return grouped


def pending_text(matches: Sequence[Match], entries: Container[str]) -> str:
    """Gives `words-pending.txt` for these matches, with the entries that it has."""
    counts = {folder: len(found) for folder, found in by_entry(matches, entries).items()}
    return _HEAD + "".join(f"{count:5} {folder}\n" for folder, count in sorted(counts.items()))


def beyond_pending(matches: Sequence[Match], pending: Mapping[str, int]) -> list[Match]:
    """Gives the matches of the entries that have more of them than `pending` counts."""
    return [
        match
        for folder, found in by_entry(matches, pending).items()
        for match in found
        if len(found) > pending.get(folder, 0)
    ]


def is_below(path: Path, names: Sequence[str]) -> bool:
    """Whether the path is one of these files, or lies in one of these folders."""
    return any(
        str(path) == name.rstrip("/") or str(path).startswith(f"{name.rstrip('/')}/") for name in names
    )


def main(arguments: Sequence[str]) -> int:
    """Prints the matches that are neither allowed nor pending; 1 if there are any."""
    matches = all_matches(load_rules())
    pending = pending_counts(PENDING.read_text(encoding="utf-8"))
    if list(arguments) == ["--pending"]:
        print(pending_text(matches, pending), end="")
        return 0
    if arguments:
        reported = [match for match in matches if is_below(match.path, arguments)]
    else:
        reported = beyond_pending(matches, pending)
    for match in reported:
        print(match)
    if reported:
        print("Rewrite these, or add an [[allowed]] entry with its reason to lint/words.toml.")
    return 1 if reported else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
