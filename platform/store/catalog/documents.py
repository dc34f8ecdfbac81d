"""What users do to documents, by the rules of their types: create, replace, clone, delete, transitions."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...errors import DocumentNotFound, RevisionConflict, TransitionRejected
from .catalog import Catalog, Document, not_found
from .document_type import Content, DocumentType, Edit, document_type

MAX_ATTEMPTS = 100
"""How often a change is retried if other processes change the same document."""
_LONGEST_PAUSE_S = 0.05

Check: TypeAlias = Callable[[dict[str, Any]], None]
"""Raises WindvaneError for a body that a higher layer cannot use, such as a pipeline that cannot run."""


class Documents:
    """The documents of a catalog, with the rules of their types.

    `checks` are further checks of a body, by type; they run in a thread. `if_revision` is the revision that a
    change is for, 0 if there must be none: otherwise RevisionConflict. Methods raise DocumentNotFound for a
    document that does not exist, and CatalogUnavailable as the catalog does.
    """

    def __init__(self, catalog: Catalog, checks: Mapping[str, Check] | None = None) -> None:
        self.catalog = catalog
        self._checks = dict(checks or {})

    async def find(self, type: str, name: str) -> Document:
        """The document of that reference, or else of that numeric ID."""
        try:
            return await self.catalog.get(type, name)
        except DocumentNotFound:
            if not (name.isascii() and name.isdigit() and len(name) < 20):
                raise
        try:
            return await self.catalog.get_by_id(type, int(name))
        except DocumentNotFound:
            raise not_found(type, name) from None

    async def create(self, type: str, reference: str, *, title: str = "", body: Any) -> Document:
        """A new document in the initial state. Raises RevisionConflict if there is one, DocumentInvalid."""
        kind = document_type(type)
        _require(kind, "create")
        kind.check_new_reference(reference)
        title, checked = await self._checked(kind, reference, title, body)
        return await self.catalog.put(
            type, reference, title=title, body=checked, if_revision=0, action="created"
        )

    async def replace(
        self,
        type: str,
        name: str,
        *,
        body: Any = None,
        title: str | None = None,
        if_revision: int | None = None,
    ) -> Document:
        """Replace body and title; None keeps the current value. A document that does not exist is created.

        The state stays. Raises DocumentInvalid, TransitionRejected if the type does not allow it.
        """
        kind = document_type(type)
        _require(kind, "retitle" if body is None else "replace")
        try:
            reference = (await self.find(type, name)).reference
        except DocumentNotFound:
            if body is None:
                raise
            _require(kind, "create")
            reference = name
        return await self.put(type, reference, body=body, title=title, if_revision=if_revision)

    async def put(
        self,
        type: str,
        reference: str,
        *,
        body: Any,
        title: str | None = None,
        if_revision: int | None = None,
    ) -> Document:
        """The same, by the reference alone, which may look like a numeric ID."""
        kind = document_type(type)
        if body is not None:
            given_title, body = await self._checked(kind, reference, title or "", body)
            title = given_title if kind.normalize is not None else title

        def change(old: Content | None) -> Content:
            if old is None:
                if body is None:
                    raise not_found(type, reference)
                kind.check_new_reference(reference)
                return Content(kind.initial_state, title or "", body)
            return Content(
                old.state, old.title if title is None else title, old.body if body is None else body
            )

        document = await change_document(self.catalog, type, reference, change, if_revision=if_revision)
        assert document is not None
        return document

    async def _checked(
        self, kind: DocumentType, reference: str, title: str, body: Any
    ) -> tuple[str, dict[str, Any]]:
        title, checked = kind.checked(reference, title, body)
        if (check := self._checks.get(kind.name)) is not None:
            await asyncio.to_thread(check, checked)
        return title, checked

    async def delete(self, type: str, name: str, *, if_revision: int | None = None) -> None:
        """Delete a document with its revisions and attachments."""
        _require(document_type(type), "delete")
        document = await self.find(type, name)
        await self.catalog.delete(type, document.reference, if_revision=if_revision)

    async def clone(self, type: str, name: str, *, reference: str, title: str | None = None) -> Document:
        """A copy with its attachments under another reference, in the first state of the type.

        Raises RevisionConflict if there is a document of that reference.
        """
        kind = document_type(type)
        _require(kind, "create")
        kind.check_new_reference(reference)
        source = await self.find(type, name)
        # A body may name its document, as that of a policy does.
        body = {key: value for key, value in source.body.items() if (key, value) != _named(source)}
        title, checked = await self._checked(kind, reference, source.title if title is None else title, body)
        return await self.catalog.put(
            type,
            reference,
            title=title,
            body=checked,
            state=kind.states[0],
            if_revision=0,
            action=f"cloned from {source.reference}",
            attachments_of=source.id,
        )

    async def transition(
        self, type: str, name: str, transition: str, arguments: Any, *, if_revision: int | None = None
    ) -> Document:
        """Take a transition; `arguments` is an instance of its `arguments`.

        Raises TransitionNotFound, TransitionRejected, and what the transition raises.
        """
        taken = document_type(type).transition(transition)
        document = await self.find(type, name)

        def change(content: Content | None) -> Content:
            if content is None:
                raise not_found(type, name)
            return taken.result(document.reference, content, arguments, time.time_ns())

        changed = await change_document(
            self.catalog, type, document.reference, change, if_revision=if_revision, action=transition
        )
        assert changed is not None
        return changed


def _require(kind: DocumentType, edit: Edit) -> None:
    if edit not in kind.edits:
        allowed = ", ".join([*kind.edits, *(each.name for each in kind.transitions)])
        raise TransitionRejected(f"users cannot {edit} {kind.plural}; they can: {allowed}")


def _named(document: Document) -> tuple[str, str]:
    return "reference", document.reference


async def change_document(
    catalog: Catalog,
    type: str,
    reference: str,
    change: Callable[[Content | None], Content | None],
    *,
    if_revision: int | None = None,
    action: str = "saved",
) -> Document | None:
    """Change a document by a function of its content, None if it does not exist; it may run several times.

    The change applies to the revision that was read, and is retried on the current one if another process was
    faster: concurrent changes are not lost. Returns the changed document, None if `change` returned None.
    Raises what `change` raises, and RevisionConflict if the document is not at `if_revision`.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            found: Document | None = await catalog.get(type, reference)
        except DocumentNotFound:
            found = None
        revision = 0 if found is None else found.revision
        if if_revision not in (None, revision):
            raise RevisionConflict(
                f'{type} "{reference}" is at revision {revision}, revision {if_revision} was expected; '
                "read it again and repeat the change"
            )
        changed = change(None if found is None else Content(found.state, found.title, found.body))
        if changed is None:
            return None
        try:
            return await catalog.put(
                type,
                reference,
                title=changed.title,
                body=changed.body,
                state=changed.state,
                if_revision=revision,
                action=action,
            )
        except RevisionConflict:
            if attempt + 1 == MAX_ATTEMPTS or if_revision is not None:
                raise
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_S))
    raise AssertionError("the last attempt returns or raises")
