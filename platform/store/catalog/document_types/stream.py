"""Data streams as documents. The worker registers a stream when it opens it for the first time."""

from msgspec import Struct

from ..document_type import ARCHIVING, DocumentType


class StreamBody(Struct, frozen=True):
    """The tag of a data stream, and the policy that let it in."""

    tag: str
    policy: str


TYPE = DocumentType(
    name="stream",
    body=StreamBody,
    states=("published", "archived"),
    transitions=ARCHIVING,
    revisions_kept=10,
    edits=("retitle",),
    plural="data streams",
    list_command="windvane ls streams",
)
