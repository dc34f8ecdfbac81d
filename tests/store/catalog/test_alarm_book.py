"""Alarms in the catalog: workers and users change the same document concurrently, and no change is lost."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from windvane.errors import DocumentNotFound, RevisionConflict
from windvane.store.catalog.alarm_book import AlarmBook, alarm_of
from windvane.store.catalog.alarms import acknowledge, comment, shelve
from windvane.store.catalog.catalog import Catalog

from tests.store.catalog.test_alarms import REFERENCE, event


@pytest.fixture
async def catalogs(tmp_path: Path) -> AsyncIterator[list[Catalog]]:
    """The same catalog, opened as by three processes."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}"
    opened = [await Catalog.open(url) for _ in range(3)]
    yield opened
    for catalog in opened:
        await catalog.close()


async def test_events_that_two_workers_repeat_make_one_alarm_and_keep_notes_of_operators(
    catalogs: list[Catalog],
) -> None:
    books = [AlarmBook(catalog) for catalog in catalogs]
    events = [event(0, "raised", 1)]
    events += [event(n, *[("escalated", 2), ("eased", 1)][n % 2]) for n in range(1, 21)]
    await books[0].record(events[0])

    async def tell(book: AlarmBook) -> None:
        for each in events:
            await book.record(each)

    async def talk() -> None:
        for number in range(20):
            await books[2].change(REFERENCE, partial(comment, by="ada", text=str(number), now_ns=9))

    await asyncio.gather(tell(books[0]), tell(books[1]), talk())
    [document] = await catalogs[0].list("alarm")
    alarm = alarm_of(document)
    by_worker = [entry for entry in alarm.history if entry.by == "windvane"]
    assert len(by_worker) == len(events)
    assert [entry.text for entry in alarm.history if entry.by == "ada"] == [str(n) for n in range(20)]
    assert [entry.number for entry in alarm.history] == list(range(len(events) + 20))


async def test_a_change_to_an_outdated_revision_is_rejected(catalogs: list[Catalog]) -> None:
    book = AlarmBook(catalogs[0])
    await book.record(event(0, "raised", 1))
    before = (await book.get(REFERENCE)).revision
    await book.change(REFERENCE, partial(acknowledge, by="ada", now_ns=9), if_revision=before)
    with pytest.raises(RevisionConflict, match="is at revision"):
        await book.change(REFERENCE, partial(comment, by="b", text="x", now_ns=9), if_revision=before)
    with pytest.raises(DocumentNotFound, match=r"there is no alarm.*`windvane alarm list` lists the alarms"):
        await book.change("t:x:1:2", partial(acknowledge, by="ada", now_ns=9))


async def test_lists_are_by_state_and_stream_the_last_change_first(catalogs: list[Catalog]) -> None:
    book = AlarmBook(catalogs[0])
    for stream, row in (("wind", 1), ("Wind", 2), ("wind", 3), ("wind.b", 4)):
        reference = f"{stream}:condition:01234567:{row}"
        await book.record(event(row, "raised", 1, alarm=reference, stream=stream, row=row))
    await book.change("wind:condition:01234567:1", partial(acknowledge, by="ada", now_ns=9))
    found = await book.latest(stream="wind")
    assert [alarm_of(document).row for document in found] == [1, 3]
    [first] = await book.latest(limit=1)
    rest = await book.latest(before_revision=first.revision)
    assert [alarm_of(document).row for document in [first, *rest]] == [1, 4, 3, 2]
    assert [alarm_of(d).row for d in await book.latest(states=("raised",))] == [4, 3, 2]


async def test_shelves_are_emptied_when_their_time_is_up_and_once(catalogs: list[Catalog]) -> None:
    books = [AlarmBook(catalog) for catalog in catalogs]
    await books[0].record(event(0, "raised", 1))
    await books[0].change(REFERENCE, partial(shelve, until_ns=100, by="ada", now_ns=9))
    assert await books[0].unshelve_due(99) == 0
    assert sum(await asyncio.gather(*(book.unshelve_due(100) for book in books))) == 1
    alarm = alarm_of(await books[0].get(REFERENCE))
    assert [entry.action for entry in alarm.history] == ["raised", "shelved", "unshelved"]
    assert alarm.state == "raised"


async def test_cleared_alarms_are_deleted_once_they_have_expired(catalogs: list[Catalog]) -> None:
    books = [AlarmBook(catalog) for catalog in catalogs]
    for row in range(4):
        reference = f"t:condition:01234567:{row}"
        await books[0].record(event(2 * row, "raised", 1, alarm=reference, row=row))
        if row != 1:
            await books[0].record(event(2 * row + 1, "cleared", 0, alarm=reference, row=row))
    cleared_ns = (await books[0].get("t:condition:01234567:2")).modified_ns
    assert await books[0].delete_cleared(before_ns=0) == 0
    deleted = await asyncio.gather(*(book.delete_cleared(before_ns=cleared_ns) for book in books))
    assert sum(deleted) == 1
    assert [alarm_of(document).row for document in await books[0].latest()] == [3, 2, 1]
    await books[0].change("t:condition:01234567:2", partial(comment, by="ada", text="x", now_ns=9))
    await books[0].delete_cleared(before_ns=cleared_ns + 1)
    assert [alarm_of(document).row for document in await books[0].latest()] == [2, 3, 1]
    await books[0].delete_cleared(before_ns=2**62)
    assert [alarm_of(document).row for document in await books[0].latest()] == [1]  # it is open
