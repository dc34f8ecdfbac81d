"""Inspections as documents: planned, done by an operator with findings, and closed by an author."""

from datetime import date
from typing import Annotated

import msgspec
from windvane.documents import AttachmentRules, DocumentType, Transition


class Inspection(msgspec.Struct, forbid_unknown_fields=True):
    """What is inspected, when, and what was found."""

    turbine: Annotated[str, msgspec.Meta(min_length=1)]
    planned_on: date
    inspector: str = ""
    findings: list[str] = []


INSPECTION = DocumentType(
    name="inspection",
    body=Inspection,
    states=("planned", "done", "closed"),
    transitions=(
        Transition("finish", sources=("planned",), target="done", roles=("operator", "author", "admin")),
        Transition("close", sources=("done",), target="closed", roles=("author", "admin")),
        Transition("reopen", sources=("closed",), target="done", roles=("author", "admin")),
    ),
    search_fields=("turbine", "inspector", "findings"),
    attachments=AttachmentRules(media_types=("image/*", "application/pdf")),
)
