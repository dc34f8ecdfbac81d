"""What references and titles of documents may be.

The catalog rejects what no database can store. References that users choose have further rules, so that each
document has an address of its own (`check_new_reference`).
"""

import re

from ...errors import DocumentInvalid, ReferenceInvalid

MAX_REFERENCE_BYTES = 500
MAX_TITLE_BYTES = 500

# Characters on which databases differ, such as NUL and lone surrogates.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_names(type: str, reference: str, title: str) -> None:
    """Raise ReferenceInvalid or DocumentInvalid for a reference or a title that the catalog cannot store."""
    if not reference:
        raise ReferenceInvalid(f"a {type} needs a reference")
    _check_text(type, "reference", reference, MAX_REFERENCE_BYTES, ReferenceInvalid)
    _check_text(type, "title", title, MAX_TITLE_BYTES, DocumentInvalid)


def check_new_reference(type: str, reference: str) -> None:
    """Raise ReferenceInvalid for a reference that a new document may not have; the message names the rule."""
    check_names(type, reference, title="")
    if reference.isascii() and reference.isdigit():
        raise ReferenceInvalid(
            f'"{reference[:60]}" cannot be the reference of a {type}: of digits alone, it would hide the '
            f"document with that numeric ID; add a letter"
        )
    if any(part in ("", ".", "..") for part in reference.split("/")):
        raise ReferenceInvalid(
            f'"{reference[:60]}" cannot be the reference of a {type}: no address leads to it if a part '
            'between slashes is empty, "." or ".."; leave that part out'
        )


def _check_text(kind: str, what: str, value: str, limit_bytes: int, error: type[DocumentInvalid]) -> None:
    if CONTROL_CHARACTERS.search(value):
        raise error(f"the {what} of a {kind} may not contain control characters: {value[:60]!r}")
    if len(value.encode()) > limit_bytes:
        raise error(f"the {what} of a {kind} has at most {limit_bytes} bytes: {value[:60]!r}…")
