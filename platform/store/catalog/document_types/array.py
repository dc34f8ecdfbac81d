"""Data arrays as documents. The worker registers an array when it opens it for the first time."""

from typing import Any

from msgspec import Struct

from ..document_type import ARCHIVING, DocumentType


class ArrayBody(Struct, frozen=True):
    """The data stream of an array, its dtype as in .npy files, and the shape of one row."""

    stream: str
    dtype: str | list[Any]
    row_shape: list[int]


TYPE = DocumentType(
    name="array",
    body=ArrayBody,
    states=("published", "archived"),
    transitions=ARCHIVING,
    revisions_kept=10,
    edits=("retitle",),
    plural="data arrays",
    list_command="windvane ls arrays",
)
