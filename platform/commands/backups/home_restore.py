"""Restores a backup into an empty home.

The file `restore-unfinished` is durable before anything else is created in the home, and is removed when
everything else is durable. While it exists no command and no tier opens the home (`home.require_whole_home`):
after a crash there is either a whole home, or one that says that it is not.

Each file is compared with the manifest while it is copied. Then each output is cut back to its checkpoint,
which checks that all bytes are there that the checkpoint covers.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ...config import Settings
from ...directories import sync_directory, synced_at_end
from ...errors import BackupInvalid, ConfigInvalid
from ...home import UNFINISHED_RESTORE, make_home
from ...store.repair.local_store import open_local_store
from ...store.repair.roll_back import roll_back
from ..common.home_check import read_checkpoints
from .consistency import start_of
from .file_copy import copy_file
from .manifest import Copied, Manifest, read_manifest
from .verification import difference

_MAY_BE_THERE = frozenset({"lost+found"})


def restore_home(
    folder: Path, settings: Settings, *, done: Callable[[int], object] = lambda _: None
) -> Manifest:
    """Restore the backup in `folder` into the home of `settings`.

    Raises ConfigInvalid for a home that is not empty, BackupInvalid if the backup is damaged, OSError. Then,
    and after Ctrl-C, the home is empty.
    """
    manifest = read_manifest(folder)
    home = settings.home
    _require_empty(home)
    make_home(settings)
    mark = home / UNFINISHED_RESTORE
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    sync_directory(home)
    try:
        with synced_at_end(home):
            for path, copied in manifest.files.items():
                _restore(folder, home, path, copied, done)
            _roll_back(folder, settings, manifest)
    except BaseException:
        _empty(home)
        mark.unlink()
        raise
    mark.unlink()
    sync_directory(home)
    return manifest


def _require_empty(home: Path) -> None:
    try:
        names = sorted(set(os.listdir(home)) - _MAY_BE_THERE)
    except FileNotFoundError:
        return
    if names:
        raise ConfigInvalid(
            f"{home} is not empty (it has {names[0]}), and a restore overwrites nothing; give --home a new "
            "directory, or an empty one"
        )


def _restore(folder: Path, home: Path, path: str, copied: Copied, done: Callable[[int], object]) -> None:
    source, target = folder / copied.folder / path, home / path
    _make_folders(home, target.parent)
    try:
        problem = difference(copied, *copy_file(source, target, mode=copied.mode, done=done))
    except FileNotFoundError as error:
        if target.parent.is_dir() and not source.exists():
            problem = "it is missing"
        else:
            raise error
    if problem:
        raise BackupInvalid(
            f"{source} is damaged: {problem}. Nothing was restored; `windvane backup --verify {folder}` "
            "lists all damaged files. Use another backup"
        )


def _make_folders(home: Path, folder: Path) -> None:
    # Not `parents=True`, which gives the parents the default mode.
    if folder != home and not folder.is_dir():
        _make_folders(home, folder.parent)
        folder.mkdir(mode=0o700)


def _roll_back(folder: Path, settings: Settings, manifest: Manifest) -> None:
    name = settings.checkpoint_file.name
    if (copied := manifest.files.get(name)) is None:
        return
    taken = read_checkpoints(folder / copied.folder / name)
    with closing(open_local_store(settings.store, settings.home)) as store:
        for checkpoint in taken.streams.values():
            for reference, length in checkpoint.outputs.items():
                if not (length.length or length.chunks) or reference in manifest.absent:
                    continue
                if ":" in reference:
                    store.put_rebuilt_in_place(reference, length.uid)
                if start_of(store, reference, length.uid) is None:
                    raise BackupInvalid(
                        f"{reference} is not in this backup as its checkpoint describes it. Nothing was "
                        "restored; use another backup"
                    )
                roll_back(store, reference, length, database_id=taken.database_id)


def _empty(home: Path) -> None:
    for name in os.listdir(home):
        if name in _MAY_BE_THERE or name == UNFINISHED_RESTORE:
            continue
        path = home / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
