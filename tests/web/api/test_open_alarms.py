"""Lists of streams show open alarms and failing steps."""

from pathlib import Path
from typing import Any

import pytest
from windvane.errors import CatalogUnavailable
from windvane.runtime.announcements import announce
from windvane.store.catalog import alarms
from windvane.store.catalog.alarm_book import ALARM, AlarmBook
from windvane.store.catalog.catalog import Catalog, Document
from windvane.web import open_alarms, shared_refresh
from windvane.web.open_alarms import OpenAlarms

from tests.store.catalog.test_alarms import event
from tests.web.api.test_listings import start_worker
from tests.web.served_home import Client, Home

NOW_NS = 5
FAILURE = {"stream": "a", "step": "model", "message": "boom", "time_ns": 7, "times": 3, "recovered_ns": None}


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list queries the catalog."""
    monkeypatch.setattr(shared_refresh, "FRESH_S", 0.0)


class Book:
    """Alarms of streams, each by a name of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self._book = AlarmBook(catalog)
        self._numbers: dict[str, int] = {}

    async def record(self, stream: str, name: str, transition: str, grade: int) -> str:
        number = self._numbers[stream] = self._numbers.get(stream, 0) + 1
        reference = f"{stream}:{name}:01234567:1"
        await self._book.record(
            event(number, transition, grade, alarm=reference, stream=stream, name=name, row=1)
        )
        return reference

    async def act(self, reference: str, action: Any, **said: Any) -> None:
        await self._book.change(reference, lambda alarm: action(alarm, by="ada", now_ns=NOW_NS, **said))


@pytest.fixture
def book(home: Home) -> Book:
    return Book(home.catalog)


async def listed(client: Client) -> dict[str, dict[str, Any] | None]:
    return {one["reference"]: one["alarm"] for one in await (await client.get("/api/v1/streams")).json()}


async def test_a_stream_shows_the_worst_of_its_open_alarms(
    client: Client, home: Home, book: Book, no_pause: None
) -> None:
    for reference in ("a", "b"):
        home.stream(reference, b"abc")
    assert await listed(client) == {"a": None, "b": None}
    warning = await book.record("a", "warning", "raised", 1)
    danger = await book.record("a", "danger", "raised", 2)
    worst = {"reference": danger, "grade": 2, "state": "raised", "open": 2}
    assert await listed(client) == {"a": worst, "b": None}
    assert (await (await client.get("/api/v1/streams/a")).json())["alarm"] == worst
    await book.act(danger, alarms.acknowledge)
    assert await listed(client) == {"a": {**worst, "state": "acknowledged"}, "b": None}, "still the worst"
    await book.act(danger, alarms.shelve, until_ns=10**16)
    assert (await listed(client))["a"] == {"reference": warning, "grade": 1, "state": "raised", "open": 2}
    await book.record("a", "warning", "cleared", 0)
    assert (await listed(client))["a"] == {**worst, "state": "shelved", "open": 1}
    await book.act(danger, alarms.clear)
    assert await listed(client) == {"a": None, "b": None}


@pytest.mark.parametrize("page", [1, 2, 500])
async def test_alarms_of_before_the_server_started_are_known_whatever_the_page(
    start: Any, home: Home, book: Book, no_pause: None, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(open_alarms, "PAGE", page)
    for number in range(5):
        home.stream(f"s{number}", b"abc")
        await book.record(f"s{number}", "x", "raised", 2)
    await book.record("s3", "x", "cleared", 0)
    client = await start()
    assert [alarm is not None for alarm in (await listed(client)).values()] == [True, True, True, False, True]
    for number in (0, 1, 2):
        await book.record(f"s{number}", "x", "cleared", 0)
    assert [alarm is not None for alarm in (await listed(client)).values()] == [False] * 4 + [True]


class Counting:
    """A catalog that counts the documents it returns, and can be made unavailable."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.given = 0
        self.away = False

    async def revision(self) -> int:
        if self.away:
            raise CatalogUnavailable("away")
        return await self._catalog.revision()

    async def by_change(self, type: str, **asked: Any) -> list[Document]:
        found = await self._catalog.by_change(type, **asked)
        self.given += len(found)
        return found


async def test_only_changes_are_read_and_known_alarms_stay_while_the_catalog_is_unavailable(
    home: Home, book: Book, no_pause: None
) -> None:
    catalog = Counting(home.catalog)
    known = OpenAlarms(catalog)  # type: ignore[arg-type]
    for number in range(20):
        await book.record(f"s{number}", "x", "raised", 1)
    await known.refresh()
    await known.refresh()
    assert catalog.given == 20
    await home.catalog.put("policy", "p", body={})
    await book.record("s1", "y", "raised", 2)
    await known.refresh()
    assert catalog.given == 21
    catalog.away = True
    await known.refresh()
    assert known.of("s1") is not None
    assert known.of("s0") is not None


async def test_a_catalog_from_a_backup_is_read_from_its_beginning(
    home: Home, book: Book, no_pause: None, tmp_path: Path
) -> None:
    catalog = Counting(home.catalog)
    known = OpenAlarms(catalog)  # type: ignore[arg-type]
    await book.record("a", "x", "raised", 1)
    await book.record("a", "y", "raised", 2)
    await known.refresh()
    older = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'older.sqlite'}")
    await Book(older).record("b", "x", "raised", 2)
    catalog._catalog = older
    await known.refresh()
    assert known.of("a") is None
    assert known.of("b") is not None
    await older.close()


async def test_what_is_kept_is_bounded(
    home: Home, book: Book, no_pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_alarms, "MAX_OPEN", 3)
    known = OpenAlarms(home.catalog)
    await known.refresh()
    for number in range(5):
        await book.record(f"s{number}", "x", "raised", 2)
    await known.refresh()
    assert [known.of(f"s{number}") is not None for number in range(5)] == [False, False, True, True, True]
    assert len(await home.catalog.by_change(ALARM)) == 5


async def test_a_stream_names_its_failing_steps(client: Client, home: Home) -> None:
    for reference in ("a", "b"):
        home.stream(reference, b"abc")
    earlier = {**FAILURE, "step": "bands", "time_ns": 3}
    recovered = {**FAILURE, "step": "pcm", "recovered_ns": 9}
    await start_worker(home, {"failures": [earlier, FAILURE, recovered, "nonsense", {"stream": "a"}]})
    a, b = await (await client.get("/api/v1/streams")).json()
    assert [(step["step"], step["message"], step["times"]) for step in a["failing"]] == [
        ("model", "boom", 3),
        ("bands", "boom", 3),
    ]
    assert b["failing"] == []


async def test_the_status_names_the_installation(client: Client, home: Home) -> None:
    status = await (await client.get("/api/v1/status")).json()
    assert status["installation"] == {"home": str(home.path.resolve()), "forward": []}
    announce(home.run_dir / "gateway.json", {"forward": "127.0.0.1:4711"})
    announce(home.run_dir / "gateway-2.json", {"forward": "0.0.0.0:4712"})
    status = await (await client.get("/api/v1/status")).json()
    assert status["installation"]["forward"] == ["127.0.0.1:4711", "0.0.0.0:4712"]
