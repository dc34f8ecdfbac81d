"""A follower of one type reads only the changes of that type."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from windvane.errors import BusUnavailable, CatalogUnavailable
from windvane.processors.worker.pipeline import catalog_link
from windvane.processors.worker.pipeline.catalog_link import CatalogLink
from windvane.store.catalog import revisions
from windvane.store.catalog.alarm_book import AlarmBook
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.follower import TypeFollower
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.catalog.policy_follower import PolicyFollower

from tests.store.catalog.test_alarms import event


def policy_body(reference: str, **settings: Any) -> dict[str, Any]:
    return policy_to_mapping(policy_from_mapping({"reference": reference, **settings}))


async def put_policies(catalog: Catalog, count: int) -> None:
    for number in range(count):
        await catalog.put("policy", f"p{number}", body=policy_body(f"p{number}"))


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that databases execute."""
    noted: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        noted.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield noted
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references of the policies that the worker decodes."""
    noted: list[str] = []

    def decode(body: dict[str, Any]) -> Any:
        noted.append(body["reference"])
        return policy_from_mapping(body)

    monkeypatch.setattr(catalog_link, "policy_from_mapping", decode)
    return noted


async def test_an_unrelated_change_costs_a_worker_one_query_and_decodes_no_policy(
    catalog: Catalog, statements: list[str], decoded: list[str]
) -> None:
    await put_policies(catalog, 20)
    link = CatalogLink(catalog)
    await link.refresh()
    assert len(decoded) == 20
    policies = link.policies
    await AlarmBook(catalog).record(event(0, "raised", 1))
    await catalog.put("stream", "t", body={"tag": "t", "policy": "p0"})
    decoded.clear()
    statements.clear()
    await link.refresh()
    assert decoded == []
    assert len(statements) == 1
    assert link.policies is policies


async def test_a_changed_policy_is_the_only_one_that_is_read_and_decoded(
    catalog: Catalog, statements: list[str], decoded: list[str]
) -> None:
    await put_policies(catalog, 20)
    link = CatalogLink(catalog)
    await link.refresh()
    others = {reference: policy for reference, policy in link.policies.items() if reference != "p7"}
    await catalog.put("policy", "p7", body=policy_body("p7", title="changed"))
    await catalog.delete("policy", "p8")
    decoded.clear()
    statements.clear()
    await link.refresh()
    assert decoded == ["p7"]
    assert link.policies["p7"].title == "changed"
    del others["p8"]
    assert all(link.policies[reference] is policy for reference, policy in others.items())
    assert len(link.policies) == 19
    assert len(statements) <= 8


async def test_operations_that_changed_make_all_policies_be_checked_again(
    catalog: Catalog, decoded: list[str]
) -> None:
    await put_policies(catalog, 3)
    link = CatalogLink(catalog)
    await link.refresh()
    link.read_again()
    await link.refresh()
    assert decoded == ["p0", "p1", "p2"] * 2


async def test_changes_are_given_again_until_they_are_accepted(catalog: Catalog) -> None:
    follower = TypeFollower(catalog, "policy")
    await catalog.put("policy", "a", body={})
    first = await follower.read()
    assert first is not None
    assert first.is_complete
    assert [each.reference for each in first.changed] == ["a"]
    assert await follower.read() == first
    follower.accept(first)
    assert await follower.read() is None
    await catalog.put("policy", "b", body={})
    await catalog.delete("policy", "a")
    second = await follower.read()
    assert second is not None
    assert ([each.reference for each in second.changed], second.deleted) == (["b"], ["a"])
    assert not second.is_complete


async def test_a_document_that_was_deleted_and_created_again_exists(catalog: Catalog) -> None:
    follower = TypeFollower(catalog, "policy")
    await catalog.put("policy", "a", body={"n": 1})
    before = await follower.read()
    assert before is not None
    follower.accept(before)
    await catalog.delete("policy", "a")
    created = await catalog.put("policy", "a", body={"n": 2})
    after = await follower.read()
    assert after is not None
    assert (after.changed, after.deleted) == ([created], [])


async def test_who_is_further_behind_than_deletions_are_known_reads_everything(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "MAX_DELETIONS", 2)
    for name in "abcd":
        await catalog.put("stream", name, body={})
    near, far = TypeFollower(catalog, "stream"), TypeFollower(catalog, "stream")
    for follower in (near, far):
        changes = await follower.read()
        assert changes is not None
        follower.accept(changes)
    await catalog.delete("stream", "a")
    changes = await near.read()
    assert changes is not None
    near.accept(changes)
    for name in "bc":
        await catalog.delete("stream", name)
    known, forgotten = await near.read(), await far.read()
    assert known is not None
    assert forgotten is not None
    assert (known.is_complete, known.deleted) == (False, ["b", "c"])
    assert forgotten.is_complete
    assert [each.reference for each in forgotten.changed] == ["d"]


async def test_another_catalog_in_its_place_is_read_from_its_beginning(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = TypeFollower(catalog, "policy")
    await put_policies(catalog, 3)
    changes = await follower.read()
    assert changes is not None
    follower.accept(changes)
    older = await Catalog.open("sqlite://")
    await older.put("policy", "old", body={})
    monkeypatch.setattr(follower, "_catalog", older)
    changes = await follower.read()
    assert changes is not None
    assert changes.is_complete
    assert [each.reference for each in changes.changed] == ["old"]
    await older.close()


async def test_a_policy_is_in_force_while_it_is_published(catalog: Catalog) -> None:
    link = CatalogLink(catalog)
    await catalog.put("policy", "a", body=policy_body("a"), state="draft")
    await link.refresh()
    assert list(link.policies) == []
    await catalog.put("policy", "a", body=policy_body("a"), state="published")
    await link.refresh()
    assert list(link.policies) == ["a"]
    await catalog.put("policy", "a", body=policy_body("a"), state="draft")
    await link.refresh()
    assert list(link.policies) == []


async def test_nothing_comes_into_force_before_it_is_prepared(catalog: Catalog) -> None:
    prepared: list[str] = []
    is_unavailable = True

    async def prepare(changed: Any) -> None:
        if is_unavailable:
            raise BusUnavailable("away")
        prepared.extend(changed)

    follower: PolicyFollower[str] = PolicyFollower(
        catalog, lambda reference, _body, _former: reference, prepare=prepare
    )
    await catalog.put("policy", "a", body={})
    with pytest.raises(BusUnavailable):
        await follower.refresh()
    assert follower.in_force == {}
    is_unavailable = False
    assert await follower.refresh()
    assert (prepared, dict(follower.in_force)) == (["a"], {"a": "a"})
    assert not await follower.refresh()


async def test_a_policy_that_cannot_be_used_leaves_the_one_in_force(catalog: Catalog) -> None:
    follower: PolicyFollower[int] = PolicyFollower(
        catalog, lambda _reference, body, _former: body["n"] if body["n"] > 0 else None
    )
    await catalog.put("policy", "a", body={"n": 1})
    assert await follower.refresh()
    await catalog.put("policy", "a", body={"n": -1})
    await catalog.put("policy", "b", body={"n": -1})
    assert not await follower.refresh()
    assert dict(follower.in_force) == {"a": 1}


async def test_an_unavailable_catalog_changes_nothing(catalog: Catalog) -> None:
    follower: PolicyFollower[str] = PolicyFollower(catalog, lambda reference, _body, _former: reference)
    await catalog.put("policy", "a", body={})
    await follower.refresh()

    class Away:
        async def head(self, _type: str) -> Any:
            raise CatalogUnavailable("away")

    follower._follower._catalog = Away()  # type: ignore[assignment]
    with pytest.raises(CatalogUnavailable):
        await follower.refresh()
    assert dict(follower.in_force) == {"a": "a"}
