"""The files that the linters read: those that git tracks, found without starting git."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# As .gitignore has them; folders with a leading dot are skipped, too.
_UNTRACKED = {"__pycache__", "build", "dist", "node_modules"}
# Input from outside, kept unchanged; machine-written files; the word lists themselves.
_SKIPPED = (
    "tests/field/",
    "tests/processors/saved_states/",
    "lint/words",
    "tests/lint/",
    "platform/web/ui/package",
    "platform/web/ui/api-types/",
    "platform/web/ui/src/api/schema.ts",
)


def tracked_files(*suffixes: str) -> Iterator[Path]:
    """Yields the files with one of these suffixes, relative to the root and sorted within a folder."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            each
            for each in folders
            if each not in _UNTRACKED and not each.startswith(".") and not each.endswith(".egg-info")
        )
        for name in sorted(names):
            path = (Path(folder) / name).relative_to(ROOT)
            if path.suffix in suffixes and not str(path).startswith(_SKIPPED):
                yield path
