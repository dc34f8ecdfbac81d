"""`windvane backup` and `windvane restore`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import DiskFull
from .common.options import home_options_of, tier_options
from .common.progress import amount, byte_progress, plural
from .data import require_home

if TYPE_CHECKING:
    from .backups.manifest import Manifest


@click.command(short_help="Copy the home, which may be running, into a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check the backup in DIR instead of making one.")
@tier_options("bus", "store", "database", "catalog", if_missing="ignore")
def backup(settings: Settings, folder: Path, verify: bool) -> None:
    """Copy the home into DIR, as one state that a worker can continue from. Tiers may run meanwhile.

    The backup has everything that was acked before its copy of the embedded log; with Kafka, the bus is not
    part of it. It has the secrets of the home too, so only this user can read it. A second backup into DIR
    copies what is new, and replaces the first one when it is whole: a backup that is interrupted leaves the
    former one.

    --verify reads every file of the backup and compares it with its checksum. Exit code 1 means damage.

    \b
    Examples:
      windvane backup /mnt/backup/turbines
      windvane backup --verify /mnt/backup/turbines
    """
    folder = folder.absolute()
    if verify:
        _verify(folder)
        return
    from .backups.backup_folder import BackupFolder
    from .backups.home_backup import HomeBackup, require_files_alone

    require_home(settings)
    require_files_alone(settings)
    with (
        _explained(folder),
        BackupFolder.locked(folder, home=settings.home) as into,
        byte_progress("copying", total_bytes=None) as progress,
    ):
        home_backup = HomeBackup(settings, into, done=progress.advance)
        manifest = home_backup.run()
    for reference in manifest.absent:
        click.echo(
            f"{reference} is damaged or missing in the home itself, and was copied as it is; "
            f"`windvane verify {reference.partition(':')[0]}` says more",
            err=True,
        )
    click.echo(
        f"{folder}: {plural(len(manifest.files), 'file')}, {amount(manifest.size_bytes)}, of which "
        f"{amount(home_backup.new_bytes)} were copied now"
    )
    if manifest.bus.startswith("kafka:"):
        click.echo("the messages of Kafka are not part of it: manifest.json has the offsets to continue from")


@click.command(short_help="Restore a backup into an empty home.")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@home_options_of(if_missing="create")
def restore(settings: Settings, folder: Path) -> None:
    """Restore the backup in DIR into the home, which must be empty or missing.

    Compares every file with its checksum. The home is usable when the command has said so; after a crash on
    the way, it cannot be started. With Kafka, start only one of the homes that have the same backup.

    \b
    Examples:
      windvane restore /mnt/backup/turbines --home /data/restored
      windvane up --home /data/restored
    """
    from .backups.home_restore import restore_home
    from .backups.manifest import read_manifest

    folder = folder.absolute()
    total_bytes = read_manifest(folder).size_bytes
    with _explained(settings.home), byte_progress("restoring", total_bytes=total_bytes) as progress:
        manifest = restore_home(folder, settings, done=progress.advance)
    click.echo(
        f"restored {plural(len(manifest.files), 'file')}, {amount(manifest.size_bytes)}, "
        f"into {settings.home}: the state of {_time(manifest)}"
    )
    click.echo(f"start it with: windvane up --home {settings.home}")


def _verify(folder: Path) -> None:
    from .backups.manifest import read_manifest
    from .backups.verification import damages

    manifest = read_manifest(folder)
    found = 0
    with byte_progress("verifying", total_bytes=manifest.size_bytes) as progress:
        for file, problem in damages(folder, manifest, done=progress.advance):
            found += 1
            click.echo(f"{file}: {problem}")
    checked = f"checked {plural(len(manifest.files), 'file')}, {amount(manifest.size_bytes)}"
    click.echo(f"{checked}: {plural(found, 'damage') if found else 'no damage'}; taken {_time(manifest)}")
    if found:
        raise click.exceptions.Exit(1)


def _time(manifest: "Manifest") -> str:
    return f"{datetime.fromtimestamp(manifest.taken_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """A full disk is that of the copy: say which, and that what was copied is removed."""
    import errno

    try:
        yield
    except OSError as error:
        if isinstance(error, DiskFull) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room for the copy on the disk of {place}; what was copied now is removed, and a former "
                "backup is unchanged. Make room, or choose another disk"
            ) from error
        raise
