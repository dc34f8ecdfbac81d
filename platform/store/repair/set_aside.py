"""HOME/set-aside: the folder in which repairs keep the files they replace. Windvane never removes any."""

import os
import shutil
import time
from pathlib import Path


class SetAside:
    """One repair's folder, `HOME/set-aside/2026-11-30T23-19-05Z/`; made with the first file it is given."""

    def __init__(self, home: Path) -> None:
        self._home = home
        stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        self.folder = home / "set-aside" / stamp
        number = 1
        while self.folder.exists():
            number += 1
            self.folder = home / "set-aside" / f"{stamp}-{number}"
        self.paths: list[Path] = []
        """The files that were set aside, by their present paths."""

    def copy(self, path: Path) -> None:
        """Keep a copy of a file that is to be changed in place, if it exists."""
        target = self._target(path)
        if path.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            with target.open("rb") as file:
                os.fsync(file.fileno())
            self.paths.append(target)

    def move(self, path: Path) -> Path:
        """Move a file or a directory here; returns its new path."""
        target = self._target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        self.paths.append(target)
        return target

    def _target(self, path: Path) -> Path:
        return self.folder / path.relative_to(self._home)
