"""What a listing of a store promises: references page by page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Page:
    """References in their order; `more`: others follow. `matching` counts all, those in the making too."""

    references: list[str]
    more: bool
    matching: int


class Listing(ABC):
    """The content of a store, page by page, for long lists that are requested often. Thread-safe."""

    directories_read_total: int
    """How often names were read from the store, for metrics; 0 for an engine that keeps them in memory."""

    @abstractmethod
    def streams(self, *, after: str, limit: int, words: Sequence[str] = ()) -> Page:
        """At most `limit` streams whose references follow `after` and contain each of `words`, in any
        case.
        """

    @abstractmethod
    def arrays(self, *, after: str, limit: int) -> Page:
        """At most `limit` arrays whose references follow `after`; `matching` counts no further than these."""

    @abstractmethod
    def may_have_array(self, reference: str, *, as_of_s: float | None = None) -> bool:
        """Whether it is worth opening the array: False only if it is not there.

        The answer may be as old as `as_of_s` (of time.monotonic()), so that many questions cost one look;
        None: now.
        """
