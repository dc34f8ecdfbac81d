"""`windvane verify`: what of a home is damaged or missing, and `--repair`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import ConfigInvalid, StoreLocked
from .common.options import tier_options
from .common.progress import amount, byte_progress, plural
from .data import require_home

if TYPE_CHECKING:
    from ..store.repair.set_aside import SetAside
    from .common.home_check import Checked, HomeCheck


@click.command(short_help="Check all data for damage; repair what can be repaired.")
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Repair what can be repaired; what it replaces is set aside.")
@click.option("--recompute", is_flag=True, help="Compute rows again from the archive, and compare them.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="With --recompute: N rows of each array."
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
@tier_options("bus", "store", "database", "catalog")
def verify(
    settings: Settings,
    references: tuple[str, ...],
    repair: bool,
    recompute: bool,
    sample: int | None,
    is_json: bool,
) -> None:
    """Read everything, or the data streams and data arrays REF, and name what is damaged or missing.

    Checks streams against the checksums of their chunks, arrays and heads against the checkpoints, the
    embedded log, and the databases. It only reads, and may run at any time. Exit code 1 means damage.

    --repair needs the worker stopped for streams, and Windvane stopped for databases. It copies or moves
    whatever it replaces to HOME/set-aside, and deletes nothing.

    --recompute replays the streams by the policies that they were processed by, and compares rows and times
    bit by bit. It shows where the first row that differs came from. Exit code 1 means that rows differ, 3
    that none does, but that some could not be computed again: the output says why. With --sample the replay
    ends with the last of the rows that were chosen.

    \b
    Examples:
      windvane verify
      windvane verify turbine.t01.gearbox --json
      windvane verify --repair
      windvane verify --recompute turbine.t01.gearbox:spectrum --sample 1000
    """
    if recompute or sample is not None:
        if repair or not recompute:
            raise ConfigInvalid("--sample needs --recompute, and --repair excludes it")
        from .recompute import verify_by_recomputing

        verify_by_recomputing(settings, references, sample=sample, is_json=is_json)
        return
    from .common.home_check import HomeCheck, as_json

    require_home(settings)
    check = HomeCheck(settings, references)
    found = _check(check, quiet=is_json)
    repaired: list[str] = []
    aside: list[Path] = []
    if repair and any(not each.is_known for each in found):
        if not is_json:
            _show(found, check)
        repaired, aside = _repair(settings, found)
        check = HomeCheck(settings, references)
        found = _check(check, quiet=is_json)
    if is_json:
        click.echo(as_json(found, check, repaired=repaired, aside=aside))
    else:
        for line in repaired:
            click.echo(f"repaired: {line}")
        for path in aside:
            click.echo(f"set aside: {path}")
        _show(found, check)
    if any(not each.is_known for each in found):
        raise click.exceptions.Exit(1)


def _check(check: "HomeCheck", *, quiet: bool) -> "list[Checked]":
    if quiet:
        return list(check.damages())
    with byte_progress("verifying", total_bytes=check.total_bytes) as progress:
        return list(check.damages(progress.update))


def _show(found: Sequence["Checked"], check: "HomeCheck") -> None:
    for damage, is_known in found:
        known = "known, repaired before: " if is_known else ""
        click.echo(f"{damage.file} at byte {damage.offset}: {known}{damage.reference}: {damage.missing}")
        if not is_known:
            click.echo(f"  {damage.remedy}")
    counts = check.counts
    checked = ", ".join(plural(counts[what], what[:-1]) for what in ("streams", "arrays", "databases"))
    fresh = sum(not each.is_known for each in found)
    result = f"{plural(fresh, 'damage')} found" if fresh else "no damage"
    click.echo(f"checked {checked}, {amount(counts['bytes'])}: {result}")


def _repair(settings: Settings, found: Sequence["Checked"]) -> tuple[list[str], list[Path]]:
    from ..store.repair.local_store import open_local_store
    from ..store.repair.set_aside import SetAside
    from ..store.repair.stream_repair import note_damages, repair_stream
    from .common.home_check import HomeCheck, read_checkpoints

    aside = SetAside(settings.home)
    done: list[str] = []
    damages = [each.damage for each in found if not each.is_known]
    for path in dict.fromkeys(damage.file for damage in damages if damage.code == "database"):
        done += _repair_database(settings, path, aside)
    for name in dict.fromkeys(damage.reference for damage in damages if damage.code == "log"):
        done += _repair_log(settings, name, aside)
    checkpoints = read_checkpoints(settings.checkpoint_place)
    directories = open_local_store(settings.store, settings.home).stream_directories()
    mendable = ("head", "segment", "arrivals", "events", "description", "bytes")
    for reference in dict.fromkeys(damage.reference for damage in damages if damage.code in mendable):
        directory = directories.get(reference)
        if directory is None:
            continue  # an array: `recover rebuild` makes it again
        of_stream = [each for each in damages if each.reference == reference and each.code in mendable]
        committed = checkpoints.committed(reference)
        done += [
            f"{reference}: {line}"
            for line in repair_stream(directory, reference, committed, of_stream, aside)
        ]
        left = [
            each.damage
            for each in HomeCheck(settings, [reference]).stream(reference, directory)
            if each.damage.code == "bytes"
        ]
        if left:
            note_damages(directory, left)
            done += [f"{reference}: noted as missing: {damage.missing}" for damage in left]
    return done, aside.paths


def _require_stopped(settings: Settings, tier: str) -> None:
    from .common.home_check import running_tiers

    running = [name for name in running_tiers(settings) if name.startswith(tier)]
    if running:
        raise StoreLocked(
            f"{', '.join(running)} of {settings.home} run; stop Windvane, then repair: nothing was changed"
        )


def _repair_database(settings: Settings, path: Path, aside: "SetAside") -> list[str]:
    from ..store.repair.database_repair import repair_catalog, repair_checkpoints, repair_dead_letters

    _require_stopped(settings, "worker" if path == settings.checkpoint_file else "")
    if path == settings.checkpoint_file:
        return repair_checkpoints(path, aside)
    if path == settings.dead_letter_file:
        return repair_dead_letters(path, aside)
    if path.name == "catalog.sqlite":
        return repair_catalog(path, aside, settings.policy_copy_file)
    return [f"{path}: not repaired; put a copy back"]


def _repair_log(settings: Settings, name: str, aside: "SetAside") -> list[str]:
    from ..bus.embedded.log_repair import repair_log
    from ..bus.interface import TopicPartition

    topic, _, number = name.rpartition("/")
    report = repair_log(settings.home / "bus", TopicPartition(topic, int(number)))
    aside.paths.extend(report.set_aside)
    return [
        f"{name}: messages {each.first} to {each.stop - 1} are lost; a worker that has not read "
        f"them resumes after `windvane recover skip-hole {name}`"
        if each.stop > each.first
        else f"{name}: {each.path.name} was written again"
        for each in report.damages
    ]
