"""What a type of document is written with: `from windvane.documents import DocumentType, Transition`.

A package registers its type by an entry point (`windvane.document_types`): docs/write-a-document-type.md.
"""

from .store.catalog.document_type import (
    AttachmentRules,
    Content,
    DocumentType,
    NoArguments,
    Transition,
)

__all__ = ["AttachmentRules", "Content", "DocumentType", "NoArguments", "Transition"]
