"""CSV (RFC 4180): times as ns since 1970; every number reads back as the same number."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..selection.columns import Column
from .column_names import distinct_names, element_names
from .rows_to_export import RowsToExport, unsupported

TIME_COLUMN = "time_ns"


def csv_names(export: RowsToExport) -> dict[str, str]:
    """The headings after `time_ns`, each with the array's own name."""
    own = [name for column in export.columns for name in element_names(column)]
    return dict(zip(distinct_names(TIME_COLUMN, own), own, strict=True))


def write_csv(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file; yields the count of rows of each block."""
    texts_of = [_texts_of(column) for column in export.columns]
    text = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=True)
    try:
        text.write(",".join(map(_cell, [TIME_COLUMN, *csv_names(export)])) + "\r\n")
        for rows, times_ns in export.blocks():
            cells = [_python_texts(times_ns)]
            for column, texts in zip(export.columns, texts_of, strict=True):
                cells += map(texts, column.of(rows).reshape(len(rows), -1).T)
            text.writelines(",".join(line) + "\r\n" for line in zip(*cells, strict=True))
            yield len(rows)
    finally:
        text.detach()


def _texts_of(column: Column) -> Callable[[NDArray[Any]], Sequence[str]]:
    kind = column.dtype.kind
    if kind in "US":
        return lambda values: [_text(value) for value in values.tolist()]
    if kind in "biu" or column.dtype.newbyteorder("=") == np.float64:
        return _python_texts
    if kind not in "fcmM":
        raise unsupported(column, format="CSV")
    return _numpy_texts


def _python_texts(values: NDArray[Any]) -> Sequence[str]:
    """The same text as NumPy gives for integers and float64."""
    return list(map(repr, values.tolist()))


def _numpy_texts(values: NDArray[Any]) -> Sequence[str]:
    """The shortest text that gives the same number again, in its precision."""
    return [str(text) for text in values.astype(str)]


def _text(value: str | bytes) -> str:
    return _cell(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value)


def _cell(text: str) -> str:
    if any(character in text for character in ',"\r\n'):
        doubled = text.replace('"', '""')
        return f'"{doubled}"'
    return text
