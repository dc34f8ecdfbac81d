"""Which dead letters leave when the database is full: those of codes that have more than their share.

The shares are those of `rejections.REJECTIONS`. A code may use all free room, up to `Share.at_most`. Letters
that are together within `Share.guaranteed` are not evicted for other codes. So a flood of one code costs
letters of that code, and what others have beyond their guarantee.
"""

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from ...rejections import REJECTIONS, share_of
from .dead_letter_schema import code_totals, contents, letters, totals

_OTHER_VERSIONS = ""
"""Represents all codes that this version does not know."""
_PAGE_LETTERS = 1000

_COSTS = sa.select(code_totals.c.code, code_totals.c.cost_bytes)
_DELETE_LETTER = sa.delete(letters).where(letters.c.id == sa.bindparam("of"))
_DELETE_CONTENT = sa.delete(contents).where(contents.c.id == sa.bindparam("of"))
_EVICT = sa.update(totals).values(
    letters=totals.c.letters - sa.bindparam("fewer"),
    cost_bytes=totals.c.cost_bytes - sa.bindparam("fewer_bytes"),
    evicted=totals.c.evicted + sa.bindparam("fewer"),
)


class DeadLetterShares:
    """The shares of a database of at most `max_bytes`; call every method in a transaction that writes.

    A letter is cut to `room_bytes` before it is kept; then `evict` never has to evict that letter itself.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def room_bytes(self, connection: sa.Connection, code: str) -> int:
        """The most that one letter of `code` may cost, so that others keep what they are guaranteed."""
        owner = _owner_of(code)
        others = sum(
            min(cost_bytes, self._guaranteed_bytes(other))
            for other, cost_bytes in _costs(connection).items()
            if other != owner
        )
        return min(self._at_most_bytes(owner), self._max_bytes - others)

    def evict(self, connection: sa.Connection, code: str, *, newest: int) -> None:
        """Evict letters until all are within the bound, and those of `code` within its share.

        The code that is furthest over its guarantee loses its oldest letter, again and again. Letter
        `newest`, which is of `code`, leaves only if its texts alone have no room.
        """
        owner = _owner_of(code)
        costs = _costs(connection)
        surplus_bytes = sum(costs.values()) - self._max_bytes
        oldest: dict[str, Iterator[tuple[int, int]]] = {}
        leaving: list[tuple[int, int]] = []
        newest_is_next = False
        while (is_over := costs[owner] > self._at_most_bytes(owner)) or surplus_bytes > 0:
            victim = (
                owner if is_over else self._furthest_over(costs, without=owner if newest_is_next else None)
            )
            if victim not in oldest:
                oldest[victim] = _oldest_first(connection, victim)
            id, cost_bytes = next(oldest[victim], (newest, costs[owner]))
            if id == newest and not newest_is_next:
                newest_is_next = True
                if not is_over:
                    continue
            leaving.append((id, cost_bytes))
            costs[victim] -= cost_bytes
            surplus_bytes -= cost_bytes
        _remove(connection, leaving)

    def _furthest_over(self, costs: Mapping[str, int], *, without: str | None) -> str:
        """The code with most bytes beyond its guarantee; `without`, if no other code has any."""
        over_bytes = {
            owner: cost_bytes - self._guaranteed_bytes(owner)
            for owner, cost_bytes in costs.items()
            if owner != without
        }
        furthest = max(over_bytes, key=over_bytes.__getitem__, default=without)
        assert furthest is not None
        return furthest if without is None or over_bytes.get(furthest, 0) > 0 else without

    def _guaranteed_bytes(self, owner: str) -> int:
        return int(self._max_bytes * share_of(owner).guaranteed)

    def _at_most_bytes(self, owner: str) -> int:
        return int(self._max_bytes * share_of(owner).at_most)


def _owner_of(code: str) -> str:
    return code if code in REJECTIONS else _OTHER_VERSIONS


def _costs(connection: sa.Connection) -> dict[str, int]:
    """What the letters of each code cost in bytes; of codes that this version does not know, together."""
    costs: dict[str, int] = {}
    for code, cost_bytes in connection.execute(_COSTS):
        owner = _owner_of(code)
        costs[owner] = costs.get(owner, 0) + cost_bytes
    return costs


def _oldest_first(connection: sa.Connection, owner: str) -> Iterator[tuple[int, int]]:
    """(id, cost in bytes) of the letters of a code, read a page at a time."""
    is_owned = letters.c.code == owner if owner else letters.c.code.not_in(list(REJECTIONS))
    pages = sa.select(letters.c.id, letters.c.cost_bytes).where(is_owned).order_by(letters.c.id)
    after = 0
    while page := connection.execute(pages.where(letters.c.id > after).limit(_PAGE_LETTERS)).all():
        yield from ((id, cost_bytes) for id, cost_bytes in page)
        after = page[-1].id


def _remove(connection: sa.Connection, leaving: Sequence[tuple[int, int]]) -> None:
    """Remove letters, given as (id, cost in bytes), and count them as evicted."""
    if not leaving:
        return
    ids = [{"of": id} for id, _ in leaving]
    connection.execute(_DELETE_LETTER, ids)
    connection.execute(_DELETE_CONTENT, ids)
    cost_bytes = sum(cost_bytes for _, cost_bytes in leaving)
    connection.execute(_EVICT, {"fewer": len(leaving), "fewer_bytes": cost_bytes})
