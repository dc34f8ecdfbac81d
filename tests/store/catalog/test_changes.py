"""Revisions, changes, earlier revisions, numeric IDs and attachments; on PostgreSQL by test_postgresql.py."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from windvane.errors import (
    AttachmentNotFound,
    ChangesForgotten,
    DocumentInvalid,
    DocumentNotFound,
    RevisionConflict,
)
from windvane.store.catalog.catalog import Catalog, Deletion
from windvane.store.catalog.document_type import AttachmentRules, DocumentType, register, unregister

NOTE = DocumentType(
    name="note",
    body=dict[str, Any],
    states=("draft", "published"),
    search_fields=("words",),
    attachments=AttachmentRules(("image/*", "text/plain"), max_bytes=1000, max_count=2),
    revisions_kept=3,
)


@pytest.fixture(autouse=True)
def note() -> Iterator[DocumentType]:
    register(NOTE)
    yield NOTE
    unregister("note")


async def test_a_change_of_one_type_leaves_the_revision_of_another(catalog: Catalog) -> None:
    await catalog.put("policy", "a", body={})
    before = await catalog.revision("policy")
    await catalog.put("stream", "a", body={})
    await catalog.delete("stream", "a")
    assert await catalog.revision("policy") == before
    assert await catalog.revision("stream") == await catalog.revision() == before + 2
    assert await catalog.revision("array") == 0


async def test_changes_since_a_revision_are_the_last_ones_of_each_document(catalog: Catalog) -> None:
    a = await catalog.put("policy", "a", body={"n": 1})
    await catalog.put("stream", "s", body={})
    gone = await catalog.put("policy", "gone", body={})
    a2 = await catalog.put("policy", "a", body={"n": 2})
    await catalog.delete("policy", "gone")
    b = await catalog.put("policy", "b", body={}, state="draft")
    found = await catalog.changes(0, type="policy")
    assert [(type(each).__name__, each.reference) for each in found] == [
        ("Document", "a"),
        ("Deletion", "gone"),
        ("Document", "b"),
    ]
    assert found[0] == a2
    assert isinstance(found[1], Deletion)
    assert found[1].id == gone.id
    assert await catalog.changes(b.revision, type="policy") == []
    assert await catalog.changes(a2.revision, type="policy", state="published") == [found[1]]
    assert [each.reference for each in await catalog.changes(a.revision)] == ["s", "a", "gone", "b"]
    paged: list[Any] = []
    while page := await catalog.changes(paged[-1].revision if paged else 0, limit=1):
        paged += page
    assert paged == await catalog.changes(0)
    with pytest.raises(ChangesForgotten):
        await catalog.changes(b.revision + 1)


async def test_writers_of_several_connections_miss_no_change_and_share_no_number(
    catalog: Catalog,
) -> None:
    other = await Catalog.open(str(catalog.database._engine.url.render_as_string(hide_password=False)))

    async def write(to: Catalog, name: str) -> None:
        for number in range(10):
            await to.put("stream", f"{name}{number}", body={})

    async def follow() -> list[str]:
        found: list[Any] = []
        while len(found) < 20:
            found += await catalog.changes(found[-1].revision if found else 0, type="stream", limit=3)
            await asyncio.sleep(0)
        return [each.reference for each in found]

    async with asyncio.timeout(60):
        seen, *_ = await asyncio.gather(follow(), write(catalog, "a"), write(other, "b"))
    assert sorted(seen) == sorted(f"{name}{number}" for name in "ab" for number in range(10))
    assert {each.id for each in await catalog.list("stream")} == set(range(1, 21))
    await other.close()


async def test_a_numeric_id_is_never_given_twice(catalog: Catalog) -> None:
    first = await catalog.put("policy", "a", body={})
    assert await catalog.get_by_id("policy", first.id) == first
    with pytest.raises(DocumentNotFound):
        await catalog.get_by_id("stream", first.id)
    with pytest.raises(DocumentNotFound):
        await catalog.get_by_id("policy", 10**30)
    await catalog.delete("policy", "a")
    assert (await catalog.put("policy", "a", body={})).id == first.id + 1


async def test_earlier_revisions_are_kept_up_to_a_bound(catalog: Catalog) -> None:
    for number in range(6):
        latest = await catalog.put("note", "n", title=f"v{number}", body={"n": number})
    found = await catalog.history.list(latest)
    assert [(each.title, each.action) for each in found] == [(f"v{n}", "saved") for n in (5, 4, 3, 2)]
    assert [each.title for each in await catalog.history.list(latest, before=found[1].revision)] == [
        "v3",
        "v2",
    ]
    assert (await catalog.history.at(latest, found[2].revision)).body == {"n": 3}
    assert await catalog.history.at(latest, latest.revision) == latest
    with pytest.raises(DocumentNotFound):
        await catalog.history.at(latest, 1)


async def test_a_pattern_is_the_whole_of_one_text_in_any_case(catalog: Catalog) -> None:
    await catalog.put("note", "gadget_worklist.js", title="Größe", body={"words": ["Fan", "rotor blade"]})
    await catalog.put("note", "worklist", body={"words": "fan%"})

    async def found(pattern: str) -> list[str]:
        return [each.reference for each in await catalog.list("note", pattern=pattern)]

    assert await found("%WORKLIST%") == ["gadget_worklist.js", "worklist"]
    assert await found("worklist%") == ["worklist"]
    assert await found("gadget_%") == ["gadget_worklist.js"]
    assert await found("gadgetx%") == []
    assert await found("grö%") == ["gadget_worklist.js"]
    assert await found("fan") == ["gadget_worklist.js"]
    assert await found("rotor%") == ["gadget_worklist.js"]
    assert await found("%\\%") == []


async def test_attachments_belong_to_their_document(catalog: Catalog) -> None:
    page = await catalog.put("note", "page", body={})
    png = bytes(range(256))
    put = await catalog.attachments.put(page, "a.png", content=png, media_type="image/png")
    now = await catalog.get("note", "page")
    assert now.revision == put.revision > page.revision
    assert await catalog.attachments.get(page, "a.png") == put
    assert put.content == png
    assert [each.action for each in await catalog.history.list(now)] == ["attached a.png", "saved"]
    copy = await catalog.put("note", "copy", body={}, attachments_of=page.id)
    assert (await catalog.attachments.get(copy, "a.png")).content == png
    await catalog.delete("note", "page")
    with pytest.raises(AttachmentNotFound):
        await catalog.attachments.get(page, "a.png")
    with pytest.raises(AttachmentNotFound):
        await catalog.attachments.put(page, "b.png", content=png, media_type="image/png")
    assert [each.name for each in await catalog.attachments.list(copy)] == ["a.png"]
    await catalog.attachments.delete(copy, "a.png")
    with pytest.raises(AttachmentNotFound):
        await catalog.attachments.delete(copy, "a.png")


async def test_an_attachment_is_replaced_only_at_the_revision_that_was_read(catalog: Catalog) -> None:
    page = await catalog.put("note", "page", body={})

    async def put(content: bytes, if_revision: int | None = None) -> int:
        done = await catalog.attachments.put(
            page, "t", content=content, media_type="text/plain", if_revision=if_revision
        )
        return done.revision

    first = await put(b"1", 0)
    with pytest.raises(RevisionConflict):
        await put(b"2", 0)
    await put(b"2", first)
    with pytest.raises(RevisionConflict):
        await put(b"3", first)
    assert (await catalog.attachments.get(page, "t")).content == b"2"


@pytest.mark.parametrize(
    ("name", "media_type", "size_bytes", "message"),
    [
        ("a", "application/pdf", 1, r"image/\*, text/plain"),
        ("a", "image/png\n", 1, "takes attachments"),
        ("a", "image/png", 1001, "at most 1000 bytes"),
        ("a/b", "image/png", 1, "not a valid name"),
        ("..", "image/png", 1, "not a valid name"),
        ("a" * 201, "image/png", 1, "not a valid name"),
    ],
)
async def test_an_attachment_that_the_type_does_not_allow_is_rejected(
    catalog: Catalog, name: str, media_type: str, size_bytes: int, message: str
) -> None:
    page = await catalog.put("note", "page", body={})
    with pytest.raises(DocumentInvalid, match=message):
        await catalog.attachments.put(page, name, content=bytes(size_bytes), media_type=media_type)
    assert await catalog.attachments.list(page) == []
    assert await catalog.revision() == page.revision


async def test_the_number_of_attachments_is_bounded(catalog: Catalog) -> None:
    page = await catalog.put("note", "page", body={})
    for name in ("a", "b", "b"):
        await catalog.attachments.put(page, name, content=b"", media_type="text/plain")
    with pytest.raises(DocumentInvalid, match="2 attachments, which is the limit"):
        await catalog.attachments.put(page, "c", content=b"", media_type="text/plain")
    policy = await catalog.put("policy", "p", body={})
    with pytest.raises(DocumentInvalid, match="policies have no attachments"):
        await catalog.attachments.put(policy, "a", content=b"", media_type="text/plain")
