"""`windvane recover`: decisions about streams and partitions that cannot continue without one."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..config import Settings
from ..errors import (
    CheckpointMissing,
    ConfigInvalid,
    OperationFailed,
    StoreLocked,
    StreamDamaged,
    StreamNotFound,
)
from .common.options import tier_options
from .common.progress import plural
from .data import require_home

if TYPE_CHECKING:
    from .common.home_check import HomeCheck


@click.group(short_help="Decide about streams and partitions that have stopped.")
def recover() -> None:
    """Recover streams and partitions that have stopped. Nothing is deleted.

    \b
    Examples:
      windvane recover list
      windvane recover adopt turbine.t01.gearbox
      windvane recover rebuild turbine.t01.gearbox
      windvane recover skip-hole turbine/0
    """


@recover.command("list")
@tier_options("bus", "store", "database", "catalog")
def list_stopped(settings: Settings) -> None:
    """List streams and partitions that have stopped, the reason, and the command that recovers each.

    Exit code 1 if anything has stopped.

    \b
    Examples:
      windvane recover list
    """
    from .common.bus_contents import halted_partitions
    from .common.home_check import HomeCheck

    require_home(settings)
    check = HomeCheck(settings)
    rows = []
    if check.has_lost_checkpoints:
        missing = f"the database is missing, and the store has {plural(len(check.streams), 'stream')}"
        remedy = "restore the latest copy first; if there is none: windvane verify --repair"
        rows.append([str(settings.checkpoint_file), missing, remedy])
    for reference, directory in check.streams.items():
        for damage, is_known in check.stops(reference, directory):
            if not is_known:
                rows.append([damage.reference, damage.missing, damage.remedy])
    if check.is_embedded:
        for partition, halted in asyncio.run(halted_partitions(settings)).items():
            name = f"{partition.topic}/{partition.partition}"
            remedy = f"windvane recover skip-hole {name} (resumes at message {halted.resume_at})"
            if halted.resume_at is None:
                remedy = "check the disk, then restart"
            rows.append([name, str(halted), remedy])
    if rows:
        for line in rows:
            click.echo("\t".join(line))
        raise click.exceptions.Exit(1)
    click.echo("nothing has stopped", err=True)


@recover.command()
@click.argument("reference", metavar="REF")
@tier_options("bus", "store", "database", "catalog")
def adopt(settings: Settings, reference: str) -> None:
    """Commit the data stream REF and its arrays as they are, and resume after them.

    Every complete chunk in the stream counts as processed. The bus is read from the position known for its
    partition, or from the beginning of the log; arrival records identify chunks that were stored before. The
    states of the pipeline's steps are lost with the checkpoint; `windvane reprocess REF` recomputes the
    outputs.

    \b
    Examples:
      windvane recover adopt turbine.t01.gearbox
    """
    from ..store.databases.checkpoint import SqlCheckpointDatabase
    from ..store.repair.adoption import adopt_stream
    from .common.home_check import HomeCheck

    require_home(settings)
    check = HomeCheck(settings, [reference])
    directory = _stream(check, reference)
    _require_checkpoints(check)
    arrays = check.store.array_directories(reference)
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        adopted = adopt_stream(reference, directory, arrays, checkpoints)
    stream = adopted.outputs[reference]
    click.echo(f"adopted {reference}: {stream.length} bytes in {plural(stream.chunks, 'chunk')}")
    for array, length in adopted.outputs.items():
        if array != reference:
            click.echo(f"adopted {array}: {plural(length.length, 'row')}")
    if adopted.cut_bytes:
        click.echo(
            f"the last {adopted.cut_bytes} bytes are not a complete chunk; they are read from the bus again"
        )
    if len(adopted.outputs) > 1:
        click.echo(
            f"the steps of its pipeline start over; `windvane reprocess {reference}` recomputes its arrays"
        )


@recover.command()
@click.argument("reference", metavar="REF")
@click.option("--partial", is_flag=True, help="Also if the bus no longer has every chunk.")
@tier_options("bus", "store", "database", "catalog")
def rebuild(settings: Settings, reference: str, partial: bool) -> None:
    """Rebuild the data stream REF or its arrays, and set aside the existing files.

    If the stream is intact, its arrays are recomputed from it while all tiers run. The arrays of earlier
    reprocessings, which `windvane reprocess` removes, are moved to HOME/set-aside. Otherwise the stream is
    moved to HOME/set-aside, and the worker, which must be stopped first, rebuilds all of it from the bus when
    it starts. If the bus no longer has every chunk, nothing is changed without --partial.

    \b
    Examples:
      windvane recover rebuild turbine.t01.gearbox
    """
    from .common.home_check import HomeCheck, running_tiers

    require_home(settings)
    check = HomeCheck(settings, [reference])
    directory = _stream(check, reference)
    _require_checkpoints(check)
    own = [each for each in check.stream(reference, directory) if each.damage.reference == reference]
    length = check.checkpoints.committed(reference).length
    if not own and length is not None:
        from ..store.repair.archiving_store import ArchivingStore
        from ..store.repair.set_aside import SetAside
        from .reprocess import reprocess_stream

        aside = SetAside(settings.home)
        # The replaced arrays, which may be the damaged ones, are kept in HOME/set-aside.
        reprocess_stream(settings, reference, force=True, store=ArchivingStore(check.store.root, aside))
        for path in aside.paths:
            click.echo(f"set aside: {path}")
        _set_damaged_aside(settings, check, reference)
        return
    if running := [name for name in running_tiers(settings) if name.startswith("worker")]:
        raise StoreLocked(
            f"{', '.join(running)} of {settings.home} runs, and {reference} is to be rebuilt from the bus. "
            "Stop the worker first; nothing was changed"
        )
    _rebuild_from_bus(settings, check, reference, directory, partial=partial)


def _set_damaged_aside(settings: Settings, check: "HomeCheck", reference: str) -> None:
    """Replaced arrays are named `~1`; a damaged one is of no use to readers."""
    from ..store.repair.array_scrub import ArrayScrub
    from ..store.repair.set_aside import SetAside

    aside = SetAside(settings.home)
    for array, folder in check.store.array_directories(reference).items():
        if "~" in array and any(ArrayScrub(folder, array, check.checkpoints.committed(array)).damages()):
            click.echo(f"set aside: {aside.move(folder)}")


def _rebuild_from_bus(
    settings: Settings, check: "HomeCheck", reference: str, directory: Path, *, partial: bool
) -> None:
    from ..store.databases.checkpoint import SqlCheckpointDatabase
    from ..store.interface import PART_OF_CHUNK
    from ..store.repair.set_aside import SetAside
    from .common.bus_contents import chunks_on_bus

    topic = _topic(check, reference, directory)
    try:
        with check.store.stream(reference) as stream:
            ids = [bytes(each["chunk_id"])[: int(each["chunk_id_size"])] for each in stream.arrivals]
    except (StreamNotFound, StreamDamaged):
        ids = []
    ids = [each for each in ids if each != PART_OF_CHUNK]  # the chunk's last events have its own
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        ids += checkpoints.held_chunk_ids(reference)
    partitions, on_bus = chunks_on_bus(settings, topic, reference)
    missing = None if on_bus is None or not ids else sum(not each or each not in on_bus for each in ids)
    if missing != 0 and not partial:
        lacks = (
            f"the bus lacks {missing} of its {len(ids)} chunks"
            if missing
            else "whether the bus still has all of its chunks is not known"
        )
        raise OperationFailed(
            f"{reference} was not changed: {lacks}. `windvane recover adopt {reference}` keeps the existing "
            "data; with --partial it is set aside, and rebuilt from what the bus has"
        )
    aside = SetAside(settings.home)
    moved = aside.move(directory.parent)
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        checkpoints.rewind(reference, partitions)
    click.echo(f"set aside: {moved}")
    if missing:
        click.echo(f"{plural(missing, 'chunk')} of {len(ids)} exist only there")
    click.echo(f"start the worker: it rebuilds {reference} from the bus")


def _topic(check: "HomeCheck", reference: str, directory: Path) -> str:
    from ..store.repair.local_store import stored_attrs

    checkpoint = check.checkpoints.streams.get(reference)
    if checkpoint is not None and checkpoint.partition is not None:
        return checkpoint.partition[0]
    policy = stored_attrs(directory).get("policy")
    if not isinstance(policy, str):
        raise ConfigInvalid(
            f"the policy of {reference} is unknown: neither a checkpoint nor its description names it; run "
            f"`windvane verify --repair {reference}` first"
        )
    return policy


@recover.command("skip-hole")
@click.argument("partition", metavar="TOPIC/PARTITION")
@click.option(
    "--resume-at", type=click.IntRange(min=0), help="The message to resume at.  [default: the next]"
)
@tier_options("bus", "database", "catalog")
def skip_hole(settings: Settings, partition: str, resume_at: int | None) -> None:
    """Skip messages that the bus has lost; applies to a running or stopped worker.

    The decision is kept with the checkpoints, and the gap is recorded in the streams that it may concern.

    \b
    Examples:
      windvane recover skip-hole turbine/0
    """
    from ..bus.interface import TopicPartition
    from ..store.databases.checkpoint import SqlCheckpointDatabase
    from ..store.databases.checkpoint_records import Hole
    from .common.bus_contents import halted_partitions, partition_extent
    from .common.home_check import HomeCheck

    require_home(settings)
    topic, _, number = partition.rpartition("/")
    if not topic or not number.isdecimal():
        raise ConfigInvalid(f"{partition!r} is not a partition; write TOPIC/PARTITION, such as turbine/0")
    wanted = TopicPartition(topic, int(number))
    _require_checkpoints(HomeCheck(settings))
    log, position, end = asyncio.run(partition_extent(settings, wanted))
    if settings.bus.startswith("embedded:"):
        halted = asyncio.run(halted_partitions(settings)).get(wanted)
        if halted is None:
            raise StreamNotFound(
                f"no hole in {partition} was found from its position on, so nothing is given up; `windvane "
                "recover list` shows what has stopped"
            )
        position, resume_at = halted.offset, halted.resume_at if resume_at is None else resume_at
        if halted.resume_at is not None and position < (resume_at or 0) < halted.resume_at:
            raise ConfigInvalid(
                f"--resume-at {resume_at} is inside the hole, which ends before message {halted.resume_at}; "
                f"without --resume-at, {partition} resumes there"
            )
    if resume_at is None:
        raise ConfigInvalid(
            f"it is unknown where {partition} can resume; give --resume-at, above {position}. If the "
            "disk reports errors, check it first"
        )
    if resume_at <= position:
        raise ConfigInvalid(
            f"--resume-at {resume_at} is not above {position}, the position of {partition}: no message would "
            "be passed over"
        )
    if end is not None and resume_at > end:
        raise ConfigInvalid(
            f"--resume-at {resume_at} is beyond the end of {partition}: its last message is {end - 1}; the "
            f"messages that arrive next would be given up. Choose at most {end}"
        )
    with closing(SqlCheckpointDatabase(settings.checkpoint_place)) as checkpoints:
        checkpoints.skip(Hole(log, topic, int(number), position, resume_at))
    click.echo(
        f"{partition}: messages {position} to {resume_at - 1} are skipped; reading resumes at {resume_at}"
    )


def _require_checkpoints(check: "HomeCheck") -> None:
    if check.has_lost_checkpoints:
        raise CheckpointMissing(
            f"{check.settings.checkpoint_file} is missing: restore the latest copy. If there is none, run "
            "`windvane verify --repair`, then retry. Nothing was changed"
        )


def _stream(check: "HomeCheck", reference: str) -> Path:
    if ":" in reference or reference not in check.streams:
        raise StreamNotFound(f"{reference!r} is not a data stream of this home; give a stream, not an array")
    return check.streams[reference]
