"""No function over 60 lines: `python -m lint.functions`. ruff checks the complexity (C901, at most 15)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lint.tracked import ROOT, tracked_files

MAX_LINES = 60

# Longer functions, each with the reason.
ALLOWED: dict[str, str] = {}

# Longer functions that are still to be split; a test says which are short by now.
PENDING: frozenset[str] = frozenset(
    {
        "platform/commands/policy.py::create",
        "platform/commands/send.py::send",
        "platform/processors/worker/tier.py::serve",
        "platform/processors/worker/worker.py::Worker.__init__",
    }
)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of `lines` lines, signature and docstring included; decorators are not."""

    path: Path
    line: int
    name: str
    lines: int

    @property
    def key(self) -> str:
        """As `ALLOWED` names it: `path::name`."""
        return f"{self.path}::{self.name}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} has {self.lines} lines: split it, at most {MAX_LINES}"


def functions_of(path: Path, source: str) -> Iterator[Function]:
    """Yields the functions of a file, methods and inner ones too; the name of a method has its class."""

    def walk(node: ast.AST, prefix: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            inside = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{prefix}{child.name}."
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (child.end_lineno or child.lineno) - child.lineno + 1
                yield Function(path, child.lineno, inside[:-1], lines)
            yield from walk(child, inside)

    yield from walk(ast.parse(source), "")


def long_functions() -> list[Function]:
    """Gives all functions in git that are too long."""
    return [
        function
        for path in tracked_files(".py")
        for function in functions_of(path, (ROOT / path).read_text(encoding="utf-8"))
        if function.lines > MAX_LINES
    ]


def main() -> int:
    """Prints the functions that are neither allowed nor pending; 1 if there are any."""
    reported = [each for each in long_functions() if each.key not in ALLOWED and each.key not in PENDING]
    for function in reported:
        print(function)
    return 1 if reported else 0


if __name__ == "__main__":
    sys.exit(main())
