"""Documents over HTTP: the routes of a type that one file defines, and of the built-in ones."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from windvane.store.catalog import revisions
from windvane.store.catalog.alarm_book import AlarmBook
from windvane.store.catalog.document_type import (
    AttachmentRules,
    DocumentType,
    Transition,
    register,
    unregister,
)

from tests.store.catalog.test_alarms import REFERENCE, event
from tests.web.served_home import Client, Home, StartClient, following, problem, quoted


class Machine(msgspec.Struct, forbid_unknown_fields=True):
    maker: str
    rated_kw: float = 0.0


MACHINE = DocumentType(
    name="machine",
    body=Machine,
    states=("draft", "published"),
    transitions=(Transition("publish", sources=("draft",), target="published", roles=("author",)),),
    search_fields=("maker",),
    attachments=AttachmentRules(("image/*",), max_bytes=100_000),
)
MACHINES = "/api/v1/documents/machine"


@pytest.fixture
def machine() -> Iterator[DocumentType]:
    yield register(MACHINE)
    unregister("machine")


@pytest.fixture
async def client(machine: DocumentType, start: StartClient) -> Client:
    return await start()


async def create(client: Client, reference: str, **more: Any) -> dict[str, Any]:
    answer = await client.post(MACHINES, json={"reference": reference, "body": {"maker": "Vent"}, **more})
    assert answer.status == 201, await answer.text()
    created: dict[str, Any] = await answer.json()
    return created


async def listed(client: Client, url: str) -> list[str]:
    """The references on all pages."""
    found = []
    while url:
        answer = await client.get(url)
        assert answer.status == 200, await answer.text()
        found += [entry["reference"] for entry in await answer.json()]
        url = following(answer)
    return found


async def test_a_document_is_created_and_found_by_reference_and_by_number(client: Client) -> None:
    answer = await client.post(
        MACHINES, json={"reference": "turbine.t07:gearbox", "title": "Größe", "body": {"maker": "Vent"}}
    )
    assert answer.status == 201
    created = await answer.json()
    assert (created["state"], created["id"], created["revision"]) == ("draft", 1, 1)
    assert created["body"] == {"maker": "Vent", "rated_kw": 0.0}
    assert answer.headers["ETag"] == '"1"'
    for url in (answer.headers["Location"], f"{MACHINES}/1", f"{MACHINES}/turbine.t07:gearbox"):
        assert await (await client.get(url)).json() == created
    assert (await client.get(f"{MACHINES}/1", headers={"If-None-Match": '"1"'})).status == 304
    await problem(
        await client.post(MACHINES, json={"reference": created["reference"], "body": {"maker": ""}}), 409
    )
    await problem(await client.get(f"{MACHINES}/2"), 404)
    await problem(await client.get(f"{MACHINES}/{'9' * 40}"), 404)
    await problem(await client.get(f"{MACHINES}/{quoted('a' + chr(0))}"), 404)
    await problem(await client.get("/api/v1/documents/engine/1"), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reference": "m", "body": {"maker": 1}}, 422),
        ({"reference": "m", "body": {"maker": "x", "colour": "red"}}, 422),
        ({"reference": "m", "body": []}, 422),
        ({"reference": "m"}, 422),
        ({"reference": "", "body": {"maker": "x"}}, 422),
        ({"reference": "a\nb", "body": {"maker": "x"}}, 422),
        ({"reference": "m", "body": {"maker": "x"}, "state": "published"}, 422),
        ({"reference": "m", "title": "x" * 501, "body": {"maker": "x"}}, 422),
        ([], 422),
    ],
)
async def test_what_the_type_does_not_allow_is_rejected(
    client: Client, home: Home, body: Any, status: int
) -> None:
    await problem(await client.post(MACHINES, json=body), status)
    assert await home.catalog.revision() == 0


RULES = {
    "": "needs a reference",
    "../x": "between slashes",
    ".": "between slashes",
    "a//b": "between slashes",
    "/a": "between slashes",
    "a\x7fb": "control characters",
    "ü" * 251: "at most 500 bytes",
    "123": "numeric ID",
}


@pytest.mark.parametrize(("reference", "rule"), RULES.items())
async def test_a_reference_without_an_address_of_its_own_is_rejected_by_name_of_the_rule(
    client: Client, home: Home, reference: str, rule: str
) -> None:
    body = {"maker": "x"}
    posted = await client.post(MACHINES, json={"reference": reference, "body": body})
    assert rule in (await problem(posted, 422))["detail"]
    await create(client, "m")
    cloned = await client.post(f"{MACHINES}/m/clone", json={"reference": reference})
    assert rule in (await problem(cloned, 422))["detail"]
    if reference not in ("", "."):  # which no client can put in a path
        put = await client.put(f"{MACHINES}/{quoted(reference)}", json={"body": body})
        assert rule in (await problem(put, 422))["detail"]
    assert await listed(client, MACHINES) == ["m"]


@pytest.mark.parametrize("reference", ["a/b", "12.5", "١٢", "..a", "0x1f"])
async def test_other_references_have_an_address(client: Client, reference: str) -> None:
    created = await create(client, reference)
    assert await (await client.get(f"{MACHINES}/{quoted(reference)}")).json() == created


@pytest.mark.parametrize("reference", ["../x", "a//b", "123"])
async def test_a_document_that_has_such_a_reference_can_be_read_changed_and_deleted(
    client: Client, home: Home, reference: str
) -> None:
    await home.catalog.put("machine", reference, body={"maker": "x"}, state="draft")
    url = f"{MACHINES}/{quoted(reference)}"
    assert (await (await client.get(url)).json())["reference"] == reference
    assert (await client.put(url, json={"body": {"maker": "y"}})).status == 200
    assert (await client.post(f"{url}/transitions/publish")).status == 200
    assert (await client.delete(url)).status == 204


async def test_policies_keep_their_own_rules(client: Client) -> None:
    created = await client.put("/api/v1/documents/policy/123", json={"body": {}})
    assert created.status == 201


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("GET", "/documents/engine", "alarm, array, machine, policy, stream"),
        ("POST", "/documents/engine", "alarm, array, machine, policy, stream"),
        ("PUT", "/documents/engine/1", "alarm, array, machine, policy, stream"),
        ("POST", "/documents/engine/1/transitions/publish", "alarm, array, machine, policy, stream"),
        ("POST", "/documents/machine/m/transitions/archive", "there are: publish"),
        ("POST", "/documents/policy/m/transitions/archive", "there are: publish, withdraw"),
    ],
)
async def test_a_type_or_a_transition_that_does_not_exist_names_those_that_do(
    client: Client, method: str, path: str, names: str
) -> None:
    found = await problem(await client.request(method, f"/api/v1{path}", json={}), 404)
    assert names in found["detail"]


async def test_a_method_that_a_type_does_not_have_is_named_as_before(client: Client) -> None:
    await problem(await client.request("DELETE", "/api/v1/documents/policy"), 405)
    await problem(await client.get(f"{MACHINES}/m/transitions/publish"), 405)
    await problem(await client.get(f"{MACHINES}/m/nonsense"), 404)


@pytest.mark.parametrize(
    ("url", "status", "names"),
    [
        ("/search?state=alive", 400, "cleared"),
        ("/documents?state=alive", 400, "cleared"),
        ("/search?type=machine&state=alive", 400, "it may be draft, published."),
        ("/documents?type=machine&state=archived", 422, "it may be draft, published."),
        ("/search?type=machine&state=archived", 422, "it may be draft, published."),
        ("/documents/machine?state=archived", 422, "it may be draft, published."),
        ("/search?type=engine&state=draft", 400, "it may be alarm, array, machine"),
    ],
)
async def test_a_state_that_does_not_exist_names_those_that_do(
    client: Client, url: str, status: int, names: str
) -> None:
    assert names in (await problem(await client.get(f"/api/v1{url}"), status))["detail"]


async def test_a_change_is_made_to_the_revision_that_was_read(client: Client) -> None:
    first = await create(client, "m")
    url = f"{MACHINES}/m"
    at_first = {"If-Match": f'"{first["revision"]}"'}
    answer = await client.put(url, json={"body": {"maker": "Wind"}, "title": "Mine"}, headers=at_first)
    second = await answer.json()
    assert (answer.status, second["title"], second["body"]["maker"]) == (200, "Mine", "Wind")
    await problem(await client.put(url, json={"body": {"maker": "x"}}, headers=at_first), 412)
    await problem(await client.delete(url, headers=at_first), 412)
    await problem(await client.put(url, json={"body": {"maker": "x"}}, headers={"If-None-Match": "*"}), 412)
    missing = await client.put(f"{MACHINES}/n", json={"body": {"maker": "x"}}, headers={"If-Match": "*"})
    await problem(missing, 412)
    third = await (await client.put(f"{MACHINES}/{first['id']}", json={"body": {"maker": "y"}})).json()
    assert (third["reference"], third["title"], third["id"]) == ("m", "Mine", first["id"])
    assert (await client.put(f"{MACHINES}/new", json={"body": {"maker": "y"}})).status == 201
    assert (await client.delete(url)).status == 204
    await problem(await client.get(url), 404)
    await problem(await client.delete(url), 404)


async def test_a_transition_changes_the_state_once(client: Client) -> None:
    created = await create(client, "m")
    publish = f"{MACHINES}/m/transitions/publish"
    await problem(await client.post(publish, headers={"If-Match": '"77"'}), 412)
    answer = await client.post(publish, headers={"If-Match": f'"{created["revision"]}"'})
    assert (answer.status, (await answer.json())["state"]) == (200, "published")
    assert "draft" in (await problem(await client.post(publish, json={}), 409))["detail"]
    await problem(await client.post(f"{MACHINES}/m/transitions/archive"), 404)
    await problem(await client.post(f"{MACHINES}/n/transitions/publish"), 404)
    answer = await client.put(f"{MACHINES}/m", json={"body": {"maker": "z"}})
    assert (await answer.json())["state"] == "published"


async def test_a_clone_has_the_attachments_and_begins_in_the_first_state(client: Client) -> None:
    await create(client, "m", title="Mine")
    await client.post(f"{MACHINES}/m/transitions/publish")
    png = bytes(1000)
    await client.put(f"{MACHINES}/m/attachments/a.png", data=png, headers={"Content-Type": "image/png"})
    answer = await client.post(f"{MACHINES}/m/clone", json={"reference": "copy"})
    copy = await answer.json()
    assert answer.status == 201
    assert (copy["state"], copy["title"], copy["body"]["maker"]) == ("draft", "Mine", "Vent")
    assert await (await client.get(f"{MACHINES}/copy/attachments/a.png")).read() == png
    await problem(await client.post(f"{MACHINES}/m/clone", json={"reference": "copy"}), 409)


async def test_the_revisions_are_listed_and_can_be_read(client: Client) -> None:
    first = await create(client, "m", title="v1")
    await client.put(f"{MACHINES}/m", json={"body": {"maker": "Wind"}, "title": "v2"})
    await client.post(f"{MACHINES}/m/transitions/publish")
    found = await (await client.get(f"{MACHINES}/m/revisions")).json()
    assert [(each["action"], each["title"], each["state"]) for each in found] == [
        ("publish", "v2", "published"),
        ("saved", "v2", "draft"),
        ("created", "v1", "draft"),
    ]
    page = await client.get(f"{MACHINES}/m/revisions?limit=2")
    assert len(await page.json()) == 2
    assert len(await (await client.get(following(page))).json()) == 1
    earlier = await (await client.get(f"{MACHINES}/m?revision={first['revision']}")).json()
    assert (earlier["title"], earlier["body"]["maker"]) == ("v1", "Vent")
    await problem(await client.get(f"{MACHINES}/m?revision=99"), 404)


async def test_documents_are_searched_by_parts_and_patterns(client: Client, home: Home) -> None:
    await create(client, "gadget_worklist", title="A list")
    await create(client, "worklist", body={"maker": "Nordex%"})
    await home.catalog.put("policy", "worklist", body={})
    assert await listed(client, f"{MACHINES}?q=LIST&limit=1") == ["gadget_worklist", "worklist"]
    assert await listed(client, f"{MACHINES}?q=work%25") == ["worklist"]
    assert await listed(client, f"{MACHINES}?q=%25_worklist") == ["gadget_worklist"]
    assert await listed(client, f"{MACHINES}?q=nordex%25") == ["worklist"]
    assert await listed(client, f"{MACHINES}?state=published") == []
    assert await listed(client, f"{MACHINES}?q=%00") == []
    assert await listed(client, "/api/v1/documents?q=%25worklist%25&limit=1") == [
        "gadget_worklist",
        "worklist",
        "worklist",
    ]
    assert await listed(client, "/api/v1/documents?type=policy&q=work") == ["worklist"]
    await problem(await client.get("/api/v1/documents?type=engine"), 400)
    await problem(await client.get("/api/v1/documents?since=-1"), 400)


async def test_changes_are_followed_by_type_with_deletions(
    client: Client, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(client, "a")
    await create(client, "b")
    first = await client.get(MACHINES)
    position = first.headers["ETag"]
    await home.catalog.put("policy", "other", body={})
    assert (await client.get(MACHINES, headers={"If-None-Match": position})).status == 304
    since = f"{MACHINES}?since={position.strip(chr(34))}"
    assert await (await client.get(since)).json() == []
    await client.delete(f"{MACHINES}/a")
    await create(client, "c")
    changes = await (await client.get(since)).json()
    assert [(each["reference"], each["deleted"]) for each in changes] == [("a", True), ("c", False)]
    assert await listed(client, f"{since}&limit=1") == ["a", "c"]
    assert await listed(client, "/api/v1/documents?since=2&limit=2") == ["other", "a", "c"]
    await problem(await client.get(f"{MACHINES}?since=99"), 410)
    monkeypatch.setattr(revisions, "MAX_DELETIONS", 0)
    await client.delete(f"{MACHINES}/b")
    await problem(await client.get(since), 410)


async def test_attachments_are_bounded_and_never_shown_as_pages(client: Client) -> None:
    await create(client, "m")
    url = f"{MACHINES}/m/attachments/{quoted('a b.svg')}"
    svg = {"Content-Type": "image/svg+xml"}
    answer = await client.put(url, data=b"<svg/>", headers=svg)
    assert (answer.status, (await answer.json())["size_bytes"]) == (200, 6)
    found = await client.get(url)
    assert (await found.read(), found.content_type) == (b"<svg/>", "image/svg+xml")
    assert found.headers["Content-Disposition"].startswith("attachment")
    etag = found.headers["ETag"]
    assert (await client.get(url, headers={"If-None-Match": etag})).status == 304
    await problem(await client.put(url, data=b"", headers={**svg, "If-None-Match": "*"}), 412)
    assert (await client.put(url, data=b"2", headers={**svg, "If-Match": etag})).status == 200
    await problem(await client.put(url, data=b"3", headers={**svg, "If-Match": etag}), 412)
    await problem(await client.put(url, data=bytes(100_001), headers=svg), 413)
    await problem(await client.put(url, data=b"x", headers={"Content-Type": "text/html"}), 415)
    await problem(await client.get(f"{MACHINES}/m/attachments/none"), 404)
    [entry] = await (await client.get(f"{MACHINES}/m/attachments")).json()
    assert entry["name"] == "a b.svg"
    assert (await client.delete(url)).status == 204
    await problem(await client.get(url), 404)


async def test_a_policy_is_a_document_too(client: Client, home: Home) -> None:
    url = "/api/v1/documents/policy"
    answer = await client.post(url, json={"reference": "voice", "title": "Voices", "body": {"format": "raw"}})
    assert answer.status == 201, await answer.text()
    policy = await (await client.get("/api/v1/policies/voice")).json()
    assert (policy["title"], policy["format"], policy["tags"]) == ("Voices", "raw", ["voice"])
    detail = await problem(
        await client.put(f"{url}/voice", json={"body": {"pipeline": [{"operation": "nonsense"}]}}), 422
    )
    assert "nonsense" in detail["detail"]
    assert (await (await client.post(f"{url}/voice/transitions/withdraw")).json())["state"] == "draft"
    await client.put("/api/v1/policies/voice", json={"title": "Voice"})
    document = await home.catalog.get("policy", "voice")
    assert (document.state, document.title) == ("draft", "Voice"), "a change leaves the state"
    clone = await (await client.post(f"{url}/voice/clone", json={"reference": "copy"})).json()
    assert (clone["body"]["reference"], clone["state"], clone["title"]) == ("copy", "draft", "Voice")


async def test_an_alarm_is_a_document_too(client: Client, home: Home) -> None:
    await AlarmBook(home.catalog).record(event(0, "raised", 1))
    url = f"/api/v1/documents/alarm/{quoted(REFERENCE)}"
    number = (await (await client.get(url)).json())["id"]
    answer = await client.post(
        f"/api/v1/documents/alarm/{number}/transitions/acknowledge", json={"by": "ada", "text": "on my way"}
    )
    assert (answer.status, (await answer.json())["state"]) == (200, "acknowledged")
    alarm = await (await client.get(f"/api/v1/alarms/{quoted(REFERENCE)}")).json()
    assert (alarm["acknowledged_by"], alarm["history"][-1]["text"]) == ("ada", "on my way")
    await problem(await client.post(f"{url}/transitions/acknowledge", json={"by": "bob"}), 409)
    await problem(await client.post(f"{url}/transitions/shelve", json={"by": "bob"}), 422)
    await problem(await client.post(f"{url}/transitions/clear"), 415)
    await problem(await client.put(url, json={"body": {}}), 405)
    await problem(await client.delete(url), 405)
    assert [each["revision"] for each in await (await client.get(f"{url}/revisions")).json()] == [2]


async def test_of_a_stream_users_change_title_and_state(client: Client, home: Home) -> None:
    body = {"tag": "voice", "policy": "p"}
    await home.catalog.put("stream", "voice", title="voice", body=body)
    url = "/api/v1/documents/stream/voice"
    answer = await client.put(url, json={"title": "The voice"})
    assert (answer.status, (await answer.json())["title"]) == (200, "The voice")
    await problem(await client.put(url, json={"title": "x", "body": {}}), 422)
    await problem(await client.put("/api/v1/documents/stream/none", json={"title": "x"}), 404)
    await problem(await client.delete(url), 405)
    assert (await (await client.post(f"{url}/transitions/archive")).json())["state"] == "archived"
    assert (await (await client.get(url)).json())["body"] == body


async def test_every_route_needs_the_token(start: StartClient, machine: DocumentType) -> None:
    client = await start(open_on_loopback=False)
    for method, path in (("GET", ""), ("GET", "/machine"), ("POST", "/machine"), ("GET", "/machine/1")):
        await problem(await client.request(method, f"/api/v1/documents{path}"), 401)
