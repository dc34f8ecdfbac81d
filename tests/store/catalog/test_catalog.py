"""The catalog: documents that several processes change, and that are cheap to poll."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from windvane.errors import (
    CatalogUnavailable,
    ConfigInvalid,
    DocumentInvalid,
    DocumentNotFound,
    RevisionConflict,
    StoreFailed,
)
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.document_type import document_types

from tests.processes import started


async def references(catalog: Catalog, type: str | None = None, **filters: Any) -> list[str]:
    return [document.reference for document in await catalog.list(type, **filters)]


async def test_a_document_comes_back_as_it_was_put(catalog: Catalog) -> None:
    body = {
        "tags": ["größe.*", "東京"],
        "depth": {"n": 1.5, "big": 2**70, "none": None, "yes": True, "nul": "\0"},
    }
    before_ns = time.time_ns()
    put = await catalog.put("policy", "wind", title="Größe 東京", body=body, state="draft")
    got = await catalog.get("policy", "wind")
    assert got == put
    assert (got.type, got.reference, got.state, got.title) == ("policy", "wind", "draft", "Größe 東京")
    assert got.body == body
    assert before_ns <= got.created_ns == got.modified_ns <= time.time_ns()


async def test_putting_again_replaces_and_keeps_when_it_was_made(catalog: Catalog) -> None:
    first = await catalog.put("policy", "wind", title="old", body={"a": 1})
    second = await catalog.put("policy", "wind", body={"b": 2}, state="draft")
    assert (second.title, second.body, second.state) == ("", {"b": 2}, "draft")
    assert second.created_ns == first.created_ns
    assert second.modified_ns >= first.modified_ns
    assert second.revision > first.revision
    assert await catalog.list() == [second]


async def test_types_are_apart(catalog: Catalog) -> None:
    await catalog.put("policy", "wind", body={"is": "policy"})
    await catalog.put("stream", "wind", body={"is": "stream"})
    await catalog.delete("policy", "wind")
    assert (await catalog.get("stream", "wind")).body == {"is": "stream"}


async def test_documents_outlive_the_process(catalog: Catalog, file: Path) -> None:
    put = await catalog.put("array", "t1:spectrum", body={"shape": [0, 1025]})
    await catalog.close()
    again = await Catalog.open(f"sqlite:///{file}")
    assert await again.get("array", "t1:spectrum") == put
    assert await again.revision() == 1
    await again.close()


async def test_the_revision_rises_with_every_put_and_delete_and_with_nothing_else(catalog: Catalog) -> None:
    revisions = [await catalog.revision()]
    first = await catalog.put("policy", "wind", body={})
    revisions.append(await catalog.revision())
    await catalog.put("policy", "wind", body={})
    revisions.append(await catalog.revision())
    await catalog.delete("policy", "wind")
    revisions.append(await catalog.revision())
    assert revisions == [0, 1, 2, 3]
    with pytest.raises(DocumentNotFound):
        await catalog.delete("policy", "wind")
    with pytest.raises(RevisionConflict):
        await catalog.put("policy", "wind", body={}, if_revision=1)
    with pytest.raises(DocumentInvalid):
        await catalog.put("policy", "wind", body={"not": float("nan")})
    await catalog.list()
    assert await catalog.revision() == 3
    # A recreated document is not mistaken for the previous one.
    assert (await catalog.put("policy", "wind", body={})).revision not in (first.revision, 2)


async def test_what_is_not_there_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(DocumentNotFound, match='policy "wind"'):
        await catalog.get("policy", "wind")
    with pytest.raises(DocumentNotFound, match='policy "wind"'):
        await catalog.delete("policy", "wind")
    for type, command in (("alarm", "alarm list"), ("policy", "policy list"), ("stream", "ls streams")):
        with pytest.raises(DocumentNotFound, match=f"`windvane {command}` lists"):
            await catalog.get(type, "nope")


async def test_a_change_that_conflicts_with_another_client_is_rejected(catalog: Catalog) -> None:
    read = await catalog.put("policy", "wind", body={"n": 1})
    theirs = await catalog.put("policy", "wind", body={"n": 2})
    with pytest.raises(RevisionConflict, match="is at revision 2, revision 1 was expected"):
        await catalog.put("policy", "wind", body={"n": 3}, if_revision=read.revision)
    with pytest.raises(RevisionConflict):
        await catalog.delete("policy", "wind", if_revision=read.revision)
    assert await catalog.get("policy", "wind") == theirs
    await catalog.put("policy", "wind", body={"n": 3}, if_revision=theirs.revision)
    assert (await catalog.get("policy", "wind")).body == {"n": 3}


async def test_a_document_that_is_to_be_new_must_not_be_there(catalog: Catalog) -> None:
    await catalog.put("policy", "wind", body={"n": 1}, if_revision=0)
    with pytest.raises(RevisionConflict, match="was to be new"):
        await catalog.put("policy", "wind", body={"n": 2}, if_revision=0)
    with pytest.raises(RevisionConflict, match="does not exist"):
        await catalog.put("policy", "sea", body={}, if_revision=1)


async def test_lists_are_in_code_point_order_and_come_in_pages(catalog: Catalog) -> None:
    names = ["b", "B", "a.b", "a-b", "ä", "z", "東"]
    for name in names:
        await catalog.put("stream", name, body={})
        await catalog.put("policy", name, body={})
    assert await references(catalog, "stream") == sorted(names)
    paged: list[str] = []
    for _ in range(len(names)):
        paged += await references(catalog, "stream", limit=3, after=paged[-1] if paged else None)
    assert paged == sorted(names)


async def test_a_list_of_all_types_loses_none_between_its_pages(catalog: Catalog) -> None:
    for type in document_types():
        for name in ("one", "two/2", "three"):
            await catalog.put(type, name, body={}, state=document_types()[type].states[-1])
    everything = await catalog.list()
    assert [(document.type, document.reference) for document in everything] == sorted(
        (type, name) for type in document_types() for name in ("one", "two/2", "three")
    )
    paged = await catalog.list(limit=2)
    for _ in range(len(everything)):
        paged += await catalog.list(limit=2, after=f"{paged[-1].type}/{paged[-1].reference}")
    assert paged == everything


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("TURBINE", ["turbine.t07"]),
        ("größe", ["sea"]),
        ("GRÖSSE", ["sea"]),
        ("ürbine", ["sea"]),
        ("%", ["hundred%"]),
        ("_", ["under_score"]),
        ("\\", []),
        ("", ["hundred%", "sea", "turbine.t07", "under_score"]),
        ("nowhere", []),
    ],
)
async def test_text_is_found_in_reference_and_title_in_any_case(
    catalog: Catalog, text: str, found: list[str]
) -> None:
    await catalog.put("stream", "turbine.t07", body={"text": "nowhere"})
    await catalog.put("stream", "sea", title="Größe der TÜRBINE", body={})
    await catalog.put("stream", "hundred%", body={})
    await catalog.put("stream", "under_score", body={})
    assert await references(catalog, text=text) == found


async def test_a_list_can_ask_for_a_state(catalog: Catalog) -> None:
    await catalog.put("policy", "a", body={}, state="draft")
    await catalog.put("policy", "b", body={})
    assert await references(catalog, "policy", state="draft") == ["a"]
    assert await references(catalog, "stream", state="draft") == []


@pytest.mark.parametrize(
    ("type", "reference", "options", "message"),
    [
        ("polcy", "a", {}, r"not a type of document; there are alarm, array, .*stream"),
        ("policy", "a", {"state": "alive"}, "there are: draft, published"),
        ("policy", "", {}, "needs a reference"),
        ("policy", "a\nb", {}, "control characters"),
        ("policy", "a\ud800", {}, "control characters"),
        ("policy", "a", {"title": "nul \0"}, "title of a policy may not contain control characters"),
        ("policy", "ü" * 251, {}, "at most 500 bytes"),
        ("policy", "a", {"body": {"when": time}}, "must be JSON"),
        ("policy", "a", {"body": {"n": float("inf")}}, "must be JSON"),
    ],
)
async def test_a_document_that_the_catalog_cannot_keep_is_rejected(
    catalog: Catalog, type: str, reference: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DocumentInvalid, match=message):
        await catalog.put(type, reference, **{"body": {}, **options})
    assert await catalog.list() == []
    assert await catalog.revision() == 0


async def test_looking_at_the_revision_does_not_wait_for_a_writer(catalog: Catalog, file: Path) -> None:
    await catalog.put("policy", "wind", body={})
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE catalog_revision SET value = 77")
    # The writer ends only after these: if they waited for it, they would fail after the lock's timeout.
    assert await catalog.revision() == 1
    assert await references(catalog) == ["wind"]
    writer.execute("ROLLBACK")
    writer.close()


PUTTER = """
import asyncio, sys
from windvane.errors import RevisionConflict
from windvane.store.catalog.catalog import Catalog

async def main(url, name):
    catalog = await Catalog.open(url)
    for i in range(40):
        await catalog.put("stream", f"{name}.{i}", body={"i": i})
        while True:
            counter = await catalog.get("policy", "counter")
            try:
                counted = {"n": counter.body["n"] + 1}
                await catalog.put("policy", "counter", body=counted, if_revision=counter.revision)
                break
            except RevisionConflict:
                pass
    await catalog.close()

sys.stdin.readline()
asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.system
async def test_puts_of_two_processes_do_not_lose_each_other(catalog: Catalog, file: Path) -> None:
    await catalog.put("policy", "counter", body={"n": 0})
    together(PUTTER, [(f"sqlite:///{file}", name) for name in ("left", "right")])
    assert len(await catalog.list("stream")) == 80
    assert (await catalog.get("policy", "counter")).body == {"n": 80}
    assert await catalog.revision() == 161
    revisions = [document.revision for document in await catalog.list()]
    assert len(set(revisions)) == len(revisions)


OPENER = """
import asyncio, sys
from windvane.store.catalog.catalog import Catalog

async def main(url):
    catalog = await Catalog.open(url)
    await catalog.put("stream", sys.argv[2], body={})
    await catalog.close()

sys.stdin.readline()
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.system
async def test_processes_may_make_the_catalog_at_once(file: Path) -> None:
    together(OPENER, [(f"sqlite:///{file}", name) for name in ("a", "b", "c", "d")])
    catalog = await Catalog.open(f"sqlite:///{file}")
    assert await references(catalog) == ["a", "b", "c", "d"]
    assert await catalog.revision() == 4
    await catalog.close()


def together(script: str, arguments: list[tuple[str, ...]]) -> None:
    """Run the script in one process for each of the arguments, all started at the same moment."""
    with ExitStack() as running:
        children = [
            running.enter_context(started([sys.executable, "-c", script, *each], stdin=subprocess.PIPE))
            for each in arguments
        ]
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
    assert not any(child.returncode for child in children)


async def test_tasks_of_one_process_may_put_at_once(catalog: Catalog) -> None:
    await asyncio.gather(*(catalog.put("stream", f"s{i:02}", body={"i": i}) for i in range(30)))
    assert await references(catalog) == [f"s{i:02}" for i in range(30)]
    assert await catalog.revision() == 30


async def test_a_cancelled_put_has_happened_whole_or_not_at_all(catalog: Catalog, file: Path) -> None:
    async def put_cancelled_at(statement: int) -> bool:
        put = asyncio.create_task(catalog.put("stream", f"s{statement}", body={}))
        begun = 0

        def cancel(*of_statement: Any) -> None:
            nonlocal begun
            begun += 1
            if begun == statement:
                put.cancel()

        sa.event.listen(sa.Engine, "before_execute", cancel)
        await asyncio.wait([put])
        sa.event.remove(sa.Engine, "before_execute", cancel)
        return put.cancelled()

    statement = 1
    while await put_cancelled_at(statement):
        statement += 1
    assert statement - 1 >= len(["revision", "look", "insert"])
    # The file is not locked: this process and others can write to it.
    await catalog.put("stream", "last", body={})
    other = await Catalog.open(f"sqlite:///{file}")
    await other.put("stream", "of another", body={})
    await other.close()
    documents = await catalog.list()
    assert {document.reference for document in documents} >= {f"s{statement}", "last", "of another"}
    assert {document.revision for document in documents} == set(range(1, len(documents) + 1))
    assert await catalog.revision() == len(documents)


@pytest.fixture
def executed() -> Iterator[list[sa.ClauseElement]]:
    """The statements that SQLAlchemy receives, before they are compiled for one database."""
    statements: list[sa.ClauseElement] = []

    def note(connection: Any, statement: sa.ClauseElement, *more: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_execute", note)
    yield statements
    sa.event.remove(sa.Engine, "before_execute", note)


async def test_every_statement_is_one_for_postgresql_too(
    executed: list[sa.ClauseElement], file: Path
) -> None:
    catalog = await Catalog.open(f"sqlite:///{file}")
    await catalog.put("policy", "wind", body={})
    await catalog.put("policy", "wind", body={})
    await catalog.get("policy", "wind")
    await catalog.list("policy", state="draft", text="a%", after="a")
    await catalog.list(after="policy/a")
    await catalog.delete("policy", "wind")
    await catalog.close()
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    compiled = [str(statement.compile(dialect=dialect)) for statement in executed]
    assert len(compiled) >= 12
    assert all("PRAGMA" not in text and "sqlite" not in text for text in compiled)
    (table,) = [text for text in compiled if "CREATE TABLE IF NOT EXISTS documents" in text]
    assert 'reference VARCHAR COLLATE "C" NOT NULL' in table
    assert "created_ns BIGINT NOT NULL" in table


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing", "cannot be used"),
        ("oracle9://here/there", "cannot be used"),
        ("sqlite+pysqlite:///here.sqlite", "async"),
    ],
)
async def test_a_url_that_cannot_be_used_says_what_one_looks_like(url: str, message: str) -> None:
    with pytest.raises(ConfigInvalid, match=message) as caught:
        await Catalog.open(url)
    assert "postgresql://user:password@host/database" in str(caught.value)


async def test_a_file_that_is_not_a_database_is_named(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps(["no database"] * 100))
    with pytest.raises(StoreFailed, match=r"catalog\.sqlite"):
        await Catalog.open(f"sqlite:///{file}")


async def test_an_unavailable_database_is_reported(catalog: Catalog, file: Path) -> None:
    await catalog.put("policy", "wind", body={})
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE documents RENAME TO elsewhere")
    database.close()
    with pytest.raises(CatalogUnavailable, match="no such table: documents"):
        await catalog.get("policy", "wind")


async def test_a_catalog_in_memory_will_do_for_a_test() -> None:
    catalog = await Catalog.open("sqlite://")
    await catalog.put("policy", "wind", body={})
    assert await references(catalog) == ["wind"]
    await catalog.close()


async def test_a_cancelled_put_delays_no_other_call(tmp_path: Path) -> None:
    catalog = await Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    for turns in range(60):
        putting = asyncio.ensure_future(catalog.put("stream", f"s{turns}", body={}))
        for _ in range(turns):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait([putting])
        async with asyncio.timeout(10):
            await catalog.put("stream", "after", body={})
    await catalog.close()
