"""`windvane verify --recompute`: rows computed again from the archive, against the stored ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..config import Settings
from .common.progress import byte_progress, plural
from .data import require_home

if TYPE_CHECKING:
    from ..processors.worker.reprocessing.recomputation import Recomputed
    from ..store.interface import StoreEngine

DIFFERS, NOT_COMPARED = 1, 3
"""Exit codes: rows differ; none does, but some could not be compared."""


def verify_by_recomputing(
    settings: Settings, references: Sequence[str], *, sample: int | None, is_json: bool
) -> None:
    """Compares all rows, or `sample` of each array, and prints the result; exits with the codes above."""
    from ..processors.operations.base.user_operations import UserOperations
    from ..store.interface import open_store

    require_home(settings)
    UserOperations(settings.operations_dir).refresh()
    store = open_store(settings.store, settings.home)
    found: list[Recomputed] = []
    for stream, arrays in _by_stream(store, references).items():
        results = _recompute(settings, store, stream, arrays, sample=sample, quiet=is_json)
        found += results
        if not is_json:
            for result in results:
                _show(result)
    if is_json:
        _print_json(found)
    else:
        equal = sum(each.is_equal for each in found)
        click.echo(f"{plural(equal, 'array')} of {len(found)} equal")
    if any(each.different for each in found):
        raise click.exceptions.Exit(DIFFERS)
    if any(each.reason for each in found):
        raise click.exceptions.Exit(NOT_COMPARED)


def _by_stream(store: "StoreEngine", references: Sequence[str]) -> dict[str, list[str]]:
    """The streams of the references, all without any, with the arrays that are named; none means all."""
    chosen: dict[str, list[str]] = {}
    for reference in references or store.streams():
        stream, colon, _ = reference.partition(":")
        store.stream(stream).close()
        arrays = chosen.setdefault(stream, [])
        if colon:
            arrays.append(reference)
    for reference in references:
        if ":" not in reference:
            chosen[reference] = []
    return chosen


def _recompute(
    settings: Settings,
    store: "StoreEngine",
    stream: str,
    arrays: Sequence[str],
    *,
    sample: int | None,
    quiet: bool,
) -> "list[Recomputed]":
    from ..processors.worker.reprocessing.recomputation import recompute
    from ..store.databases.committed import committed_checkpoint
    from .common.interrupts import interrupted_between_blocks
    from .common.policy_revisions import known_policies

    committed = committed_checkpoint(settings.checkpoint_place, stream)
    policies = known_policies(settings, committed)
    with store.stream(stream) as recorded:
        total = None if quiet else recorded.size
    with (
        byte_progress(f"recomputing {stream}", total_bytes=total) as progress,
        interrupted_between_blocks() as check,
    ):

        def each_chunk(bytes_done: int) -> None:
            if not quiet:
                progress.update(bytes_done)
            check()

        return recompute(
            store, stream, committed, policies, arrays=arrays, sample=sample, each_chunk=each_chunk
        )


def _show(result: "Recomputed") -> None:
    from .explain import lines_of

    compared = f"{result.array}: {result.rows:,} of {plural(result.rows_total, 'row')} compared"
    if result.different:
        click.echo(f"{compared}, {result.different:,} differ")
    elif result.reason:
        click.echo(compared)
    else:
        click.echo(f"{compared}, all equal")
    if result.first is not None:
        click.echo("the first that differs:")
        for line in lines_of(result.first):
            click.echo(f"  {line}")
    if result.reason:
        click.echo(f"  not compared: {result.reason}")


def _print_json(found: "Sequence[Recomputed]") -> None:
    import msgspec

    arrays = [
        {
            "array": each.array,
            "is_equal": each.is_equal,
            "rows": each.rows,
            "rows_total": each.rows_total,
            "different": each.different,
            "first": each.first,
            "reason": each.reason or None,
        }
        for each in found
    ]
    click.echo(msgspec.json.encode({"arrays": arrays}).decode())
