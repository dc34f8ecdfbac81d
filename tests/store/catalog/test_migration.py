"""The upgrade of a catalog of an earlier version is atomic."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from windvane.errors import CatalogUnavailable
from windvane.store.catalog.alarm_book import AlarmBook, alarm_of
from windvane.store.catalog.catalog import Catalog

VERSION_1 = Path(__file__).parent / "old" / "catalog_1.sql"
"""A catalog of the version before numeric IDs: two policies (one a draft), a stream, an array, an alarm.
A third policy was deleted. Its last revision is 8.
"""
CREATED = [
    ("policy", "voice"),
    ("policy", "wind"),
    ("stream", "voice"),
    ("array", "voice:spectrum"),
    ("alarm", "turbine.1:condition:01234567:41"),
]
"""Its documents in the order of their creation."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1.read_text())
    return path


async def check_upgraded(catalog: Catalog, other: Catalog) -> None:
    """Nothing is lost, every document has a numeric ID, and both catalogs continue with them."""
    documents = await catalog.list()
    assert sorted((each.type, each.reference) for each in documents) == sorted(CREATED)
    numbers = {(each.type, each.reference): each.id for each in documents}
    assert numbers == {key: number for number, key in enumerate(CREATED, start=1)}
    wind = await catalog.get("policy", "wind")
    assert (wind.state, wind.title, wind.revision) == ("draft", "Größe", 8)
    assert wind.body["tags"] == ["wind"]
    assert [each.reference for each in await catalog.list(text="GRÖSSE")] == ["wind"]
    assert alarm_of((await AlarmBook(catalog).latest())[0]).history
    assert await catalog.revision() == await catalog.revision("policy") == 8
    assert [each.revision for each in await catalog.history.list(wind)] == [8]

    put = await other.put("policy", "new", body={})
    assert (put.revision, put.id) == (9, 6)
    assert await catalog.changes(8) == [put]
    changed = await other.put("policy", "wind", body={"n": 2})
    assert (changed.id, changed.created_ns) == (wind.id, wind.created_ns)
    assert await catalog.revision("stream") == 8


async def test_a_catalog_of_version_1_is_upgraded(file: Path) -> None:
    catalogs = [await Catalog.open(f"sqlite:///{file}") for _ in range(2)]
    await check_upgraded(*catalogs)
    for catalog in catalogs:
        await catalog.close()


async def test_several_processes_may_upgrade_at_once(file: Path) -> None:
    catalogs = await asyncio.gather(*(Catalog.open(f"sqlite:///{file}") for _ in range(4)))
    await check_upgraded(catalogs[0], catalogs[3])
    for catalog in catalogs:
        await catalog.close()


async def test_an_upgrade_that_fails_leaves_the_catalog_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(connection: object) -> None:
        raise OSError("the process ends here")

    monkeypatch.setattr("windvane.store.catalog.tables._note_types", fail)
    with pytest.raises(CatalogUnavailable):
        await Catalog.open(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(documents)")]
        assert database.execute("SELECT value FROM catalog_revision").fetchall() == [(8,)]
    assert "id" not in columns
    monkeypatch.undo()
    catalog = await Catalog.open(f"sqlite:///{file}")
    await check_upgraded(catalog, catalog)
    await catalog.close()


async def test_a_catalog_that_is_up_to_date_is_opened_without_a_write(file: Path) -> None:
    await (await Catalog.open(f"sqlite:///{file}")).close()
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement.split()[0])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    await (await Catalog.open(f"sqlite:///{file}")).close()
    sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert set(statements) <= {"SELECT", "PRAGMA"}
