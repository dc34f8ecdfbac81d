"""The commands of documents of any type: `document types|list|show|put|clone|transition|delete`.

They work on the catalog, as the web tier does, so they need no running tier.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config import Settings
from ..errors import DocumentInvalid, ReferenceInvalid
from ..home import make_home
from ..toml_lines import explain_toml_error
from .common.options import home_options
from .data import format_time, print_table, require_home

if TYPE_CHECKING:
    from ..store.catalog.document_type import DocumentType
    from ..store.catalog.documents import Documents

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")


@click.group(short_help="List, show, put and change documents of any type.")
def document() -> None:
    """Documents of the catalog: policies, alarms, streams, arrays, and the types of installed packages.

    REF is a reference, or the numeric ID that `document list` shows.

    \b
    Examples:
      windvane document types
      windvane document list policy
      windvane document show policy voice
      windvane document transition policy voice withdraw
    """


def _one(command: Command) -> Command:
    """Give the command TYPE and REF."""
    for option in (
        home_options,
        click.argument("reference", metavar="REF"),
        click.argument("type_name", metavar="TYPE"),
    ):
        command = option(command)
    return command


@document.command("types")
def list_types() -> None:
    """List the types of documents, with their states and transitions.

    \b
    Examples:
      windvane document types
    """
    from ..store.catalog.document_type import document_types

    print_table(
        ("type", "states", "transitions"),
        [
            (name, " ".join(kind.states), " ".join(each.name for each in kind.transitions))
            for name, kind in document_types().items()
        ],
        empty="no types of documents",
    )


@document.command("list")
@click.argument("type_name", metavar="TYPE")
@click.option("--state", metavar="STATE", help="Only documents in this state.")
@click.option(
    "--query",
    "-q",
    default="",
    metavar="TEXT",
    help="A part of the reference or title; with %, for any characters, the whole of one of them.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most this many."
)
@home_options
def list_documents(settings: Settings, type_name: str, state: str | None, query: str, limit: int) -> None:
    """List the documents of a type, in the order of their references.

    A table on a terminal; elsewhere one line each, without a heading, columns between tabs, times in UTC.

    \b
    Examples:
      windvane document list stream
      windvane document list policy --state draft
      windvane document list array -q '%:spectrum' | cut -f 2
    """
    kind = _kind(type_name)
    if state is not None:
        kind.check_state(state)
    chosen = {"pattern" if "%" in query else "text": query or None}
    found = _with_documents(
        settings,
        lambda documents: documents.catalog.list(kind.name, state=state, limit=limit, **chosen),
    )
    print_table(
        ("id", "reference", "state", "revision", "modified", "title"),
        [
            (one.id, one.reference, one.state, one.revision, format_time(one.modified_ns), one.title)
            for one in found
        ],
        empty=f"no {kind.plural} match",
    )


@document.command()
@_one
def show(settings: Settings, type_name: str, reference: str) -> None:
    """Print a document as JSON, as the HTTP API gives it: its ID, state, title, revision and body.

    \b
    Examples:
      windvane document show stream voice
      windvane document show policy 3 | jq .body
    """
    import msgspec

    from ..web.answers import document_info

    kind = _kind(type_name)
    found = _with_documents(settings, lambda documents: documents.find(kind.name, reference))
    shown = msgspec.to_builtins(document_info(found))
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@document.command()
@_one
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The body, in TOML or JSON (by its suffix).",
)
@click.option("--title", metavar="TEXT", help="The title.")
def put(settings: Settings, type_name: str, reference: str, file: Path | None, title: str | None) -> None:
    """Create a document, or replace its body, its title, or both. The state stays.

    \b
    Examples:
      windvane document put policy voice --file voice.json
      windvane document put stream voice --title 'Voice of the lobby'
    """
    kind = _kind(type_name)
    if file is None and title is None:
        raise click.UsageError("give --file, --title or both")
    body = None if file is None else _read_body(file)
    saved = _with_documents(
        settings,
        lambda documents: documents.replace(kind.name, reference, body=body, title=title),
        makes_home=True,
    )
    click.echo(
        f"saved {kind.name} {saved.reference}: ID {saved.id}, {saved.state}, revision {saved.revision}"
    )


@document.command()
@_one
@click.argument("new_reference", metavar="NEW_REF")
@click.option("--title", metavar="TEXT", help="The title.  [default: that of the original]")
def clone(settings: Settings, type_name: str, reference: str, new_reference: str, title: str | None) -> None:
    """Copy a document with its attachments to NEW_REF.

    \b
    Examples:
      windvane document clone policy voice voice2
    """
    kind = _kind(type_name)
    made = _with_documents(
        settings,
        lambda documents: documents.clone(kind.name, reference, reference=new_reference, title=title),
    )
    click.echo(f"created {kind.name} {made.reference}: ID {made.id}, {made.state}")


@document.command()
@_one
@click.argument("name", metavar="TRANSITION")
@click.option(
    "--argument",
    "-a",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument of the transition; VALUE is JSON or plain text. Repeatable.",
)
def transition(settings: Settings, type_name: str, reference: str, name: str, given: tuple[str, ...]) -> None:
    """Take a transition of a document; `windvane document types` lists them.

    \b
    Examples:
      windvane document transition policy voice withdraw
      windvane document transition alarm 17 acknowledge -a by=ada -a text='on my way'
    """
    import msgspec

    kind = _kind(type_name)
    taken = kind.transition(name)
    try:
        arguments = msgspec.convert(dict(map(_argument, given)), taken.arguments)
    except msgspec.ValidationError as error:
        names = ", ".join(taken.arguments.__struct_fields__) or "none"
        raise DocumentInvalid(f"{name}: {error}; its arguments are: {names}") from error
    changed = _with_documents(
        settings, lambda documents: documents.transition(kind.name, reference, name, arguments)
    )
    click.echo(f"{kind.name} {changed.reference} is {changed.state}")


@document.command()
@_one
def delete(settings: Settings, type_name: str, reference: str) -> None:
    """Delete a document with its revisions and attachments. Recorded data stays.

    \b
    Examples:
      windvane document delete policy voice
    """
    kind = _kind(type_name)
    _with_documents(settings, lambda documents: documents.delete(kind.name, reference))
    click.echo(f"deleted {kind.name} {reference}")


def _kind(name: str) -> "DocumentType":
    from ..store.catalog.document_type import document_type

    return document_type(name)


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--argument {text}: write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read_body(file: Path) -> Any:
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, reason = explain_toml_error(text, error)
        raise DocumentInvalid(f"{file}, line {line}: the TOML is not valid: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise DocumentInvalid(f"{file} is not valid JSON in UTF-8: {error}") from error


def _check_policy(settings: Settings, body: dict[str, Any]) -> None:
    from ..processors.operations.base.user_operations import UserOperations
    from ..store.catalog.policy import policy_from_mapping

    UserOperations(settings.operations_dir).check_pipeline(policy_from_mapping(body))


def _with_documents(
    settings: Settings, use: "Callable[[Documents], Awaitable[Result]]", *, makes_home: bool = False
) -> Result:
    from ..store.catalog.catalog import Catalog
    from ..store.catalog.documents import Documents

    if not makes_home:
        require_home(settings, what="policies")
    elif not settings.has_catalog_elsewhere:
        make_home(settings)

    async def run() -> Result:
        catalog = await Catalog.open(settings.catalog_url)
        try:
            return await use(Documents(catalog, checks={"policy": partial(_check_policy, settings)}))
        except ReferenceInvalid as error:
            raise click.UsageError(str(error)) from None
        finally:
            await catalog.close()

    return asyncio.run(run())
