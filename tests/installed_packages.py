"""Packages as pip leaves them, without pip: modules, and the metadata that says what they register."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from windvane.extensions import EXTENSION_POINTS


class InstalledPackages:
    """A folder of `sys.path` with packages in it; forgotten at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(self, package: str, entry_points: Mapping[str, Mapping[str, str]], **modules: str) -> None:
        """Write the modules, and metadata with the entry points: by group, then by name."""
        metadata = self._folder / f"{package.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [
            line
            for group, names in entry_points.items()
            for line in (f"[{group}]", *(f"{name} = {target}" for name, target in names.items()))
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        for name, text in modules.items():
            (self._folder / f"{name}.py").write_text(text)
        forget_extensions()


def forget_extensions() -> None:
    """As in a process that has just started."""
    for point in EXTENSION_POINTS:
        point.forget()


@pytest.fixture
def installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstalledPackages]:
    """`InstalledPackages`; what they register, and their modules, are gone at the end."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield InstalledPackages(folder)
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    monkeypatch.undo()
    forget_extensions()
