"""The policies in force, as a tier uses them: built from each policy when it changes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec

from ...errors import WindvaneError
from .catalog import Catalog
from .follower import TypeChanges, TypeFollower

POLICY = "policy"
IN_FORCE = "published"

Made = TypeVar("Made")
Make = Callable[[str, dict[str, Any], Made | None], Made | None]
Prepare = Callable[[Sequence[Made]], Awaitable[None]]


async def _nothing(_changed: Sequence[Any]) -> None:
    return


class _Kept(msgspec.Struct, Generic[Made], frozen=True):
    body: dict[str, Any]
    made: Made


class PolicyFollower(Generic[Made]):
    """Follows the published policies of the catalog, each as the object that `make` builds from it.

    `make` receives the reference of the document, its body, and the previous object. It returns None for a
    policy that cannot be used: the previous one stays in force. `prepare` receives the objects of changed
    policies before they take effect; if it raises, nothing changes, and the next refresh retries.

    A catalog that cannot be read changes nothing. If it cannot be read at the start, the policies of the copy
    in the home are in force (`Catalog.fallback`), until it can; `fallback_cause` is the reason.
    """

    def __init__(self, catalog: Catalog, make: Make[Made], *, prepare: Prepare[Made] = _nothing) -> None:
        self._catalog = catalog
        self._follower = TypeFollower(catalog, POLICY)
        self._make = make
        self._prepare = prepare
        self._documents: dict[str, _Kept[Made]] = {}
        self._makes_all = False
        self.in_force: Mapping[str, Made] = MappingProxyType({})
        """By the reference of the document; a new object after each change."""
        self.fallback_cause: WindvaneError | None = None

    async def refresh(self) -> bool:
        """Apply the changes; returns whether there were any. Raises WindvaneError on failure."""
        try:
            changes = await self._follower.read()
        except WindvaneError as error:
            if self._documents or not (bodies := self._catalog.fallback()):
                raise
            await self._use_fallback(bodies)
            self.fallback_cause = error
            return True
        if changes is None:
            return False
        documents, changed = self._apply(changes)
        await self._prepare(changed)
        is_changed = bool(changed) or documents.keys() != self._documents.keys()
        self._use(documents)
        self._makes_all, self.fallback_cause = False, None
        self._follower.accept(changes)
        if is_changed or changes.is_complete:
            await self._catalog.keep_copy([kept.body for kept in documents.values()])
        return is_changed

    def make_all_again(self) -> None:
        """The next refresh rebuilds all policies: what they can refer to has changed."""
        self._makes_all = True
        self._follower.start_over()

    def _apply(self, changes: TypeChanges) -> tuple[dict[str, _Kept[Made]], list[Made]]:
        """The documents after the changes, and the objects built from them."""
        bodies = {each.reference: each.body for each in changes.changed if each.state == IN_FORCE}
        documents = dict(self._documents)
        gone = {*changes.deleted, *(each.reference for each in changes.changed if each.state != IN_FORCE)}
        if changes.is_complete:
            gone |= documents.keys() - bodies.keys()
        for reference in gone:
            documents.pop(reference, None)
        changed = []
        for reference, body in bodies.items():
            kept = documents.get(reference)
            if kept is not None and kept.body == body and not self._makes_all:
                continue
            made = self._make(reference, body, None if kept is None else kept.made)
            if made is None:
                continue
            documents[reference] = _Kept(body, made)
            if kept is None or made != kept.made:
                changed.append(made)
        return dict(sorted(documents.items())), changed

    def _use(self, documents: dict[str, _Kept[Made]]) -> None:
        self._documents = documents
        self.in_force = MappingProxyType({reference: kept.made for reference, kept in documents.items()})

    async def _use_fallback(self, bodies: Sequence[dict[str, Any]]) -> None:
        documents: dict[str, _Kept[Made]] = {}
        for body in bodies:
            reference = str(body.get("reference"))
            made = self._make(reference, body, None)
            if made is not None:
                documents[reference] = _Kept(body, made)
        await self._prepare([kept.made for kept in documents.values()])
        self._use(documents)
