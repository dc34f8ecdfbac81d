"""Types of documents: the content of a document, its states, and its permitted changes.

A `DocumentType` is all that a new type needs. Routes, commands, search, revisions and change feeds are
derived from it, so one file defines a type:

    class Machine(msgspec.Struct, forbid_unknown_fields=True):
        maker: str
        rated_kw: float | None = None

    MACHINE = DocumentType(
        name="machine",
        body=Machine,
        states=("draft", "published"),
        transitions=(Transition("publish", sources=("draft",), target="published", roles=("author",)),),
        search_fields=("maker",),
    )

The built-in types are the modules of `document_types/`. Any package adds its own with an entry point:

    [project.entry-points."windvane.document_types"]
    machine = "windvane_machine:MACHINE"
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...errors import (
    ConfigInvalid,
    DocumentInvalid,
    ExtensionInvalid,
    TransitionNotFound,
    TransitionRejected,
)
from ...extensions import DOCUMENT_TYPES
from .references import check_new_reference

Role: TypeAlias = Literal["viewer", "operator", "author", "admin"]
Edit: TypeAlias = Literal["create", "replace", "retitle", "delete"]

MAX_ATTACHMENT_BYTES = 16 * 1024 * 1024
"""Size limit of one attachment. Attachments are read and written whole."""
MAX_ATTACHMENTS = 100
"""Limit for one document."""

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


class Content(Struct, frozen=True):
    """The parts of a document that a change can modify."""

    state: str
    title: str
    body: dict[str, Any]


class NoArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a transition without arguments."""


class Transition(Struct, frozen=True):
    """A named change of a document's state, permitted to `roles`.

    It is allowed in the states `sources` and leads to `target`. With `apply`, the target is omitted (None):
    the function gets the reference, the content, the arguments (an instance of `arguments`) and the time (ns
    since the epoch), returns the new content, and may raise WindvaneError to reject.
    """

    name: str
    sources: tuple[str, ...]
    target: str | None
    roles: tuple[Role, ...]
    arguments: type[Struct] = NoArguments
    apply: Callable[[str, Content, Any, int], Content] | None = None
    summary: str = ""

    def result(self, reference: str, content: Content, arguments: Any, now_ns: int) -> Content:
        """The content after the transition. Raises TransitionRejected in a state that is not a source."""
        if content.state not in self.sources:
            raise TransitionRejected(
                f'"{reference}" is {content.state}; "{self.name}" is possible when it is '
                f"{' or '.join(self.sources)}"
            )
        if self.apply is not None:
            return self.apply(reference, content, arguments, now_ns)
        assert self.target is not None
        return msgspec.structs.replace(content, state=self.target)


class AttachmentRules(Struct, frozen=True):
    """Which files may be attached to a document: `media_types` such as "image/png" or "image/*"."""

    media_types: tuple[str, ...]
    max_bytes: int = MAX_ATTACHMENT_BYTES
    max_count: int = MAX_ATTACHMENTS

    def allows(self, media_type: str) -> bool:
        """Whether `media_type`, without parameters, is allowed."""
        return any(
            media_type == allowed or (allowed.endswith("/*") and media_type.startswith(allowed[:-1]))
            for allowed in self.media_types
        )


ARCHIVING = (
    Transition("archive", sources=("published",), target="archived", roles=("author", "admin")),
    Transition("restore", sources=("archived",), target="published", roles=("author", "admin")),
)
"""Transitions between "published" and "archived"."""


class DocumentType(Struct, frozen=True, kw_only=True):
    """A type of document.

    `body` is the struct that a body must match. `states` are the workflow states; a new document has
    `initial_state`, by default the first. `search_fields` are members of the body that a search looks
    through, besides reference and title: strings, or lists of strings. Without `attachments`, documents
    have none. `revisions_kept` earlier revisions of each document are retained; 0 retains only the current.

    `edits` are what users with one of `edit_roles` may do besides transitions; documents that a tier
    registers (alarms, streams) allow fewer. `normalize` takes the reference, the title and the body that
    users give, and returns the title and body to store; it raises WindvaneError for an invalid body. By
    default the body is converted to `body` and back, so that defaults are spelled out. If `normalize` checks
    the references of new documents, `own_references` is true; otherwise `references.py` has the rules.
    """

    name: str
    body: Any
    states: tuple[str, ...]
    initial_state: str = ""
    transitions: tuple[Transition, ...] = ()
    search_fields: tuple[str, ...] = ()
    attachments: AttachmentRules | None = None
    revisions_kept: int = 100
    edits: tuple[Edit, ...] = ("create", "replace", "retitle", "delete")
    edit_roles: tuple[Role, ...] = ("author", "admin")
    normalize: Callable[[str, str, Mapping[str, Any]], tuple[str, dict[str, Any]]] | None = None
    own_references: bool = False
    plural: str = ""
    list_command: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigInvalid for a type that contradicts itself."""
        defaults = {
            "initial_state": self.states[0] if self.states else "",
            "plural": f"{self.name}s",
            "list_command": f"windvane document list {self.name}",
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                msgspec.structs.force_setattr(self, name, value)
        self._check()

    def _check(self) -> None:
        named = {state for each in self.transitions for state in (*each.sources, each.target) if state}
        names = [each.name for each in self.transitions]
        mistakes = {
            "name: must be lower-case letters, digits and underscores": not _NAME.fullmatch(self.name),
            "states: at least one is required": not self.states,
            f"initial_state: {self.initial_state!r} is not a state": self.initial_state not in self.states,
            f"transitions: {sorted(named - {*self.states})} are not states": bool(named - {*self.states}),
            "transitions: two have the same name": len(set(names)) < len(names),
            "transitions: each has either a target or a function": any(
                (each.target is None) == (each.apply is None) for each in self.transitions
            ),
            "revisions_kept: must not be negative": self.revisions_kept < 0,
        }
        for mistake, is_made in mistakes.items():
            if is_made:
                raise ConfigInvalid(f"document type {self.name!r}: {mistake}")

    def checked(self, reference: str, title: str, body: Any) -> tuple[str, dict[str, Any]]:
        """The title and the body to store. Raises DocumentInvalid, or what `normalize` raises."""
        if not isinstance(body, Mapping):
            raise DocumentInvalid(f'{self.name} "{reference}": the body must be an object')
        if self.normalize is not None:
            return self.normalize(reference, title, body)
        try:
            stored = msgspec.to_builtins(msgspec.convert(body, self.body))
        except msgspec.ValidationError as error:
            raise DocumentInvalid(f'{self.name} "{reference}": the body is not valid: {error}') from error
        return title, stored

    def check_new_reference(self, reference: str) -> None:
        """Raises ReferenceInvalid for a reference that users may not give to a new document."""
        if not self.own_references:
            check_new_reference(self.name, reference)

    def check_state(self, state: str) -> None:
        """Raises DocumentInvalid if there is no such state."""
        if state not in self.states:
            raise DocumentInvalid(
                f'"{state[:60]}" is not a state of a {self.name}; there are: {", ".join(self.states)}'
            )

    def transition(self, name: str) -> Transition:
        """The transition of that name. Raises TransitionNotFound."""
        for each in self.transitions:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.transitions) or "none"
        raise TransitionNotFound(f'"{name[:60]}" is not a transition of a {self.name}; there are: {known}')

    def searched_text(self, body: Mapping[str, Any]) -> list[str]:
        """The texts of the body that a search looks through."""
        found: list[str] = []
        for name in self.search_fields:
            value = body.get(name)
            values = value if isinstance(value, list | tuple) else [value]
            found += [each.replace("\n", " ") for each in values if isinstance(each, str)]
        return found


_registered: dict[str, DocumentType] = {}
_lock = threading.Lock()


def register(added: DocumentType) -> DocumentType:
    """Add a type in this process only. Raises ConfigInvalid if another type has its name."""
    with _lock:
        known = _installed_types().get(added.name) or _registered.setdefault(added.name, added)
        if known is not added:
            raise ConfigInvalid(f"there are two document types {added.name!r}; rename one of them")
    return added


def unregister(name: str) -> None:
    """Remove a type that was added by `register`."""
    with _lock:
        _registered.pop(name, None)


def document_types() -> Mapping[str, DocumentType]:
    """All types by name, in the order of their names: the built-in ones and those of other packages."""
    return MappingProxyType(dict(sorted({**_installed_types(), **_registered}.items())))


@cache
def _installed_types() -> Mapping[str, DocumentType]:
    """The types that packages register. A type that cannot be loaded is skipped; the others stay usable."""
    found: dict[str, DocumentType] = {}
    for name, extension in DOCUMENT_TYPES.extensions.items():
        try:
            loaded = load_document_type(name)
        except ExtensionInvalid as error:
            if extension.is_built_in:
                raise
            _logger.error("%s", error)
        else:
            found[name] = loaded
    return found


def load_document_type(name: str) -> DocumentType:
    """The type that a package registers under this name. Raises ExtensionInvalid, LookupError."""
    loaded = DOCUMENT_TYPES.load(name)
    extension = DOCUMENT_TYPES.extensions[name]
    if not isinstance(loaded, DocumentType):
        raise ExtensionInvalid(
            extension.unusable(f"{extension.target} is a {type(loaded).__name__}, not a DocumentType")
        )
    if loaded.name != name:
        raise ExtensionInvalid(extension.unusable(f"the type calls itself {loaded.name!r}"))
    return loaded


def document_states() -> tuple[str, ...]:
    """The states of all types, in the order of the types."""
    return tuple(dict.fromkeys(state for kind in document_types().values() for state in kind.states))


def document_type(name: str) -> DocumentType:
    """The type of that name. Raises DocumentInvalid."""
    types = document_types()
    try:
        return types[name]
    except KeyError:
        raise DocumentInvalid(
            f'"{name[:60]}" is not a type of document; there are {", ".join(types)}'
        ) from None
