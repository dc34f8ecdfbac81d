"""The commands of ingestion policies: `policy create|list|show|delete` and `apply`.

They write to the catalog; a running gateway applies changes within a second.
"""

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config import Settings
from ..errors import DocumentNotFound, PolicyInvalid
from ..home import make_home
from .common.options import home_options
from .data import print_policies, require_home

if TYPE_CHECKING:
    from ..store.catalog.catalog import Catalog
    from ..store.catalog.policy import Policy
    from .policy_files import Change

Result = TypeVar("Result")


@click.group(short_help="Create, list, show and delete ingestion policies.")
def policy() -> None:
    """Ingestion policies: which tags may enter, and what becomes of them.

    \b
    Examples:
      windvane policy create voice --tag voice --preset audio
      windvane policy list
      windvane policy show voice
    """


@policy.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--tag", "tags", metavar="PATTERN", multiple=True, help="Tags it matches; repeatable.  [default: REF]"
)
@click.option("--title", help="Title.")
@click.option(
    "--preset",
    type=click.Choice(["audio", "vibration", "sensors", "logs"]),
    help="Start from a ready format and pipeline.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "msgpack", "json"]),
    help="What an event appends to the data stream.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The policy, or the rest of it, in TOML or JSON.",
)
@click.option("--replace", is_flag=True, help="Replace the policy REF if it exists.")
@home_options
@click.pass_context
def create(
    context: click.Context,
    settings: Settings,
    reference: str,
    tags: tuple[str, ...],
    title: str | None,
    preset: str | None,
    format_: str | None,
    file: Path | None,
    replace: bool,
) -> None:
    """Create the ingestion policy REF.

    Tag patterns are fluentd's: `*` is one part, `**` any number of parts, `{a,b}` alternatives. What is given
    here wins over the file, and the file over the preset.

    Where several policies take a tag, it goes to the one with the most specific pattern: a tag spelt out
    before `*`, `*` before `**`; then the longer text outside of wildcards, then the smaller REF.

    \b
    Presets:
      audio      raw; a WAVE file in pieces; its samples, spectrum, features, anomaly score
      vibration  raw; int16 samples, one channel at 25.6 kHz; spectrum, features, condition
      sensors    json; records with numbers; a row of them for each record, anomaly score
      logs       json; records of any kind; nothing, they are kept

    \b
    Examples:
      windvane policy create voice --tag voice --preset audio
      windvane policy create gearbox --tag 'turbine.*.gearbox' --preset vibration --title Gearboxes
      windvane policy create scada --tag 'turbine.*.scada' --file scada.toml
    """
    from ..processors.operations.base.user_operations import UserOperations
    from . import policy_files

    mapping: dict[str, Any] = {}
    if file is not None:
        mapping, *more = policy_files.read_policies(file)
        if more:
            raise PolicyInvalid(
                f"{file}: holds {1 + len(more)} policies; take them all with `windvane apply {file}`"
            )
        if mapping.get("reference", reference) != reference:
            raise PolicyInvalid(
                f"{file}: holds the policy {mapping['reference']!r}, not {reference!r}; use that name, or "
                "take `reference` out of the file"
            )
    given = {
        "reference": reference,
        "tags": list(tags) or None,
        "title": title,
        "preset": preset,
        "format": format_,
    }
    mapping = {**mapping, **{name: value for name, value in given.items() if value is not None}}
    made = policy_files.complete_policy(mapping, UserOperations(settings.operations_dir))

    async def put(catalog: "Catalog") -> tuple["Change", list[str]]:
        change: Change = "created"
        if replace:
            change = await policy_files.put(catalog, made)
        else:
            await policy_files.create(catalog, made)
        return change, await policy_files.overlaps(catalog, [made])

    change, overlaps = _with_catalog(settings, put)
    click.echo(f"{change} policy {policy_files.describe(made)}")
    _print_overlaps(overlaps)
    click.echo(f"try it: {_send_line(made, home=context.params['home'], preset=mapping.get('preset'))}")


@policy.command("list")
@home_options
def list_policies(settings: Settings) -> None:
    """List the policies, as `windvane ls policies` does.

    \b
    Examples:
      windvane policy list
    """
    print_policies(settings)


@policy.command()
@click.argument("reference", metavar="REF")
@home_options
def show(settings: Settings, reference: str) -> None:
    """Print the policy REF as JSON, which `policy create --file` and `apply` can read again.

    \b
    Examples:
      windvane policy show voice
      windvane policy show voice > voice.json
    """

    require_home(settings, what="policies")

    async def get(catalog: "Catalog") -> dict[str, Any]:
        try:
            return (await catalog.get("policy", reference)).body
        except DocumentNotFound:
            raise await _not_found(catalog, reference) from None

    click.echo(json.dumps(_with_catalog(settings, get), indent=2, ensure_ascii=False))


@policy.command()
@click.argument("reference", metavar="REF")
@home_options
def delete(settings: Settings, reference: str) -> None:
    """Delete the policy REF: its tags may no longer enter. What was recorded stays.

    \b
    Examples:
      windvane policy delete voice
    """

    require_home(settings, what="policies")

    async def remove(catalog: "Catalog") -> None:
        try:
            await catalog.delete("policy", reference)
        except DocumentNotFound:
            raise await _not_found(catalog, reference) from None

    _with_catalog(settings, remove)
    click.echo(f"deleted policy {reference}; its data streams and arrays stay")


@click.command(short_help="Create or replace the policies in files.")
@click.argument(
    "files",
    metavar="FILE…",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@home_options
def apply(settings: Settings, files: tuple[Path, ...]) -> None:
    """Create or replace the policies in files: all of them, or none if one is invalid.

    A TOML file holds [[policy]] tables; JSON is what `policy show` prints. `preset = "…"` in a policy puts
    the preset below it.

    \b
    Examples:
      windvane apply policies.toml
      windvane apply park/*.toml
    """
    from ..processors.operations.base.user_operations import UserOperations
    from . import policy_files

    operations = UserOperations(settings.operations_dir)
    made: dict[str, Policy] = {}
    origin: dict[str, Path] = {}
    for file in files:
        for mapping in policy_files.read_policies(file):
            try:
                each = policy_files.complete_policy(mapping, operations)
            except PolicyInvalid as error:
                raise PolicyInvalid(f"{file}: {error}") from error
            if each.reference in made:
                raise PolicyInvalid(
                    f"{file}: the policy {each.reference!r} is in {origin[each.reference]} too; keep one"
                )
            made[each.reference], origin[each.reference] = each, file

    async def put_all(catalog: "Catalog") -> tuple[list["Change"], list[str]]:
        changes = [await policy_files.put(catalog, each) for each in made.values()]
        return changes, await policy_files.overlaps(catalog, made.values())

    changes, overlaps = _with_catalog(settings, put_all)
    for change, each in zip(changes, made.values(), strict=True):
        click.echo(f"{change:9}  {policy_files.describe(each)}")
    _print_overlaps(overlaps)


def _print_overlaps(overlaps: list[str]) -> None:
    for line in overlaps:
        click.echo(f"note: {line}", err=True)


def _with_catalog(settings: Settings, use: Callable[["Catalog"], Awaitable[Result]]) -> Result:
    from ..store.catalog.catalog import Catalog

    async def run() -> Result:
        catalog = await Catalog.open(settings.catalog_url)
        try:
            return await use(catalog)
        finally:
            await catalog.close()

    if not settings.has_catalog_elsewhere:
        make_home(settings)
    return asyncio.run(run())


async def _not_found(catalog: "Catalog", reference: str) -> DocumentNotFound:
    known = ", ".join(document.reference for document in await catalog.list("policy", limit=20))
    next_step = f"there are {known}" if known else "create one with `windvane policy create`"
    return DocumentNotFound(f"there is no policy {reference!r}; {next_step}")


def _send_line(made: "Policy", *, home: Path | None, preset: str | None) -> str:
    spelt_out = next((tag for tag in made.tags if not set(tag) & set("*{\\")), None)
    if made.format == "raw":
        rest = "FILE --format raw"
    elif preset == "logs":
        rest = "FILE --format lines"
    else:
        rest = "FILE.csv --format csv"
    where = f" --home {shlex.quote(str(home))}" if home is not None else ""
    line = f"windvane send {shlex.quote(spelt_out) if spelt_out else 'TAG'} {rest}{where}"
    return line if spelt_out else f"{line}   (TAG: one that {' or '.join(made.tags)} matches)"
