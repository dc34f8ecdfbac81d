"""The options of `send` that say how records are to be read."""

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast, get_args

import click

from .csv_dialect import DELIMITERS
from .csv_numbers import ColumnType, Mark
from .csv_table import TableOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_TYPES: tuple[str, ...] = tuple(name for name in get_args(ColumnType) if name != "empty")
_MARKS: Mapping[str, Mark] = {"point": ".", "comma": ","}
_FORMATS_OF: Mapping[str, tuple[str, ...]] = {
    "--time-field": ("csv", "jsonl"),
    "--keep-time-field": ("csv", "jsonl"),
    "--type": ("csv",),
    "--delimiter": ("csv",),
    "--decimal": ("csv",),
    "--encoding": ("csv",),
}


class _Word(click.Choice[str]):
    """A choice by its word, or by the mark that the word stands for."""

    def __init__(self, marks: Mapping[str, str]) -> None:
        super().__init__(sorted(marks))
        self._words = {mark: word for word, mark in marks.items()}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word."""
        mark = "\t" if value == "\\t" else value
        return super().convert(self._words.get(mark, value), param, ctx)


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """These options, as they were given."""

    given: Mapping[str, Any]
    """By the name of the option; None or empty for one that was not."""

    def of(self, format: str) -> TableOptions:
        """What they say about a source of `format`. Raises click.UsageError for one that would do nothing."""
        for name, formats in _FORMATS_OF.items():
            if self.given[name] and format not in formats:
                raise click.UsageError(
                    f"{name} does not go with --format {format}: it is for {' and '.join(formats)}"
                )
        if self.given["--keep-time-field"] and self.given["--time-field"] is None:
            raise click.UsageError("--keep-time-field goes with --time-field")
        delimiter, decimal = self.given["--delimiter"], self.given["--decimal"]
        return TableOptions(
            time_field=self.given["--time-field"],
            keep_time_field=self.given["--keep-time-field"],
            types=_types(self.given["--type"]),
            delimiter=None if delimiter is None else DELIMITERS[delimiter],
            mark=None if decimal is None else _MARKS[decimal],
            encoding=self.given["--encoding"],
        )


def record_options(command: Command) -> Command:
    """Give the command these options, and pass them on as `record_options`."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name.lstrip("-").replace("-", "_")) for name in _FORMATS_OF}
        return command(*args, record_options=RecordOptions(given), **kwargs)

    for option in (
        click.option(
            "--encoding",
            metavar="NAME",
            callback=_known_encoding,
            help="Encoding, such as cp1252 (csv).  [default: UTF-8, or UTF-16 by its mark]",
        ),
        click.option(
            "--decimal",
            type=_Word(_MARKS),
            help="Decimal mark (csv), or `,` or `.`.  [default: comma if a column can mean nothing else]",
        ),
        click.option(
            "--delimiter",
            type=_Word(DELIMITERS),
            help="What separates cells (csv), or the character, or `\\t`.  [default: found out]",
        ),
        click.option(
            "--type",
            multiple=True,
            metavar="NAME=TYPE",
            help=f"Type of a column (csv): {', '.join(_TYPES)}; may be repeated.  [default: by its cells]",
        ),
        click.option("--keep-time-field", is_flag=True, help="Leave the field with the time in the record."),
        click.option(
            "--time-field",
            metavar="NAME",
            help="Field with the time of a record, which is removed from it (csv, jsonl).  [default: now]",
        ),
    ):
        wrapped = option(wrapped)
    return cast(Command, wrapped)


def _known_encoding(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        codecs.getincrementaldecoder(value)
        "".encode(value)  # base64 and its like are codecs, and not encodings of text
    except LookupError:
        raise click.BadParameter(f"{value!r} is not a known encoding; cp1252 is one") from None
    return value


def _types(values: tuple[str, ...]) -> Mapping[str, ColumnType]:
    types: dict[str, ColumnType] = {}
    for value in values:
        name, equals, kind = value.rpartition("=")
        if not equals or not name or kind not in _TYPES:
            raise click.BadParameter(
                f"{value!r} is not NAME=TYPE with one of {', '.join(_TYPES)}", param_hint="--type"
            )
        types[name] = cast(ColumnType, kind)
    return types
