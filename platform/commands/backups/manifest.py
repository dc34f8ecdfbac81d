"""The manifest of a backup: which files the home had, where their copies are, and their checksums.

`manifest.json` is replaced in one step when everything that it names is durable. A folder without one is not
a backup, and while another backup is made into a folder, the former one stays whole.
"""

import os
from pathlib import Path
from typing import TypeAlias

import msgspec

from ...directories import sync_directory
from ...errors import BackupInvalid

FORMAT = 1
NAME = "manifest.json"

Identity: TypeAlias = tuple[int, int]
"""Size in bytes and time of change in ns: a file that keeps both has not changed."""


class Copied(msgspec.Struct, frozen=True):
    """One file of the home.

    `folder` is the folder of the backup that has the copy, below which it has its path of the home. `mode`
    and `modified_ns` are those of the file in the home; `crc32c` is the CRC32C of its content. If it
    `is_sealed`, every later change of it has another time of change.
    """

    folder: str
    size: int
    crc32c: int
    mode: int
    modified_ns: int
    is_sealed: bool = False

    @property
    def identity(self) -> Identity:
        """See `Identity`."""
        return self.size, self.modified_ns


class Position(msgspec.Struct, frozen=True):
    """Messages of a partition below `next_offset` are part of the streams of the backup."""

    log: str
    topic: str
    partition: int
    next_offset: int


class Manifest(msgspec.Struct, frozen=True):
    """A whole backup.

    `taken_ns` is the time of the checkpoint, in ns since the epoch. `absent` are the outputs that the
    checkpoint covers and that were damaged or removed in the home itself. `files` are by their path in the
    home.
    """

    format: int
    windvane: str
    taken_ns: int
    home: str
    bus: str
    positions: list[Position]
    absent: list[str]
    files: dict[str, Copied]

    @property
    def size_bytes(self) -> int:
        """The bytes of all files, holes included."""
        return sum(each.size for each in self.files.values())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a backup. Raises BackupInvalid."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BackupInvalid(
            f"{folder} is not a backup: it has no {NAME}, which is written last, so that an interrupted "
            "backup has none. Give the folder of a backup that has finished"
        ) from None
    try:
        found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found.get("format", msgspec.Raw(b"null")), type=int)
        if version > FORMAT:
            raise BackupInvalid(
                f"{folder} has format {version}, and this Windvane knows format {FORMAT}. Use the Windvane "
                "that wrote it, or a later one"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
        for name, copied in manifest.files.items():
            _require_inside(name)
            _require_inside(copied.folder)
    except (msgspec.DecodeError, ValueError) as error:
        if isinstance(error, BackupInvalid):
            raise
        raise BackupInvalid(
            f"{path} is damaged: {error}. The files next to it are unchanged; use another backup"
        ) from error
    return manifest


def _require_inside(name: str) -> None:
    parts = Path(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ValueError(f"{name!r} is not a path below a home")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest, durably. Raises OSError."""
    draft = folder / f"{NAME}.new"
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / NAME)
    sync_directory(folder)
