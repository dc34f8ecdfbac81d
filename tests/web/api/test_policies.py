import asyncio
from typing import Any

import pytest

from tests.web.served_home import Client, Home, following, problem, quoted

VOICE: dict[str, Any] = {
    "reference": "voice",
    "title": "Voices",
    "tags": ["voice.**"],
    "format": "raw",
    "pipeline": [{"operation": "wav"}, {"operation": "spectrum", "length": 512}],
}


async def test_a_policy_is_made_read_listed_replaced_and_removed(client: Client, home: Home) -> None:
    made = await client.post("/api/v1/policies", json=VOICE)
    assert (made.status, made.headers["Location"]) == (201, "/api/v1/policies/voice")
    policy = await made.json()
    assert policy["tags"] == ["voice.**"]
    assert policy["pipeline"][1]["length"] == 512

    read = await client.get("/api/v1/policies/voice")
    assert await read.json() == policy
    assert read.headers["ETag"] == made.headers["ETag"]
    assert await (await client.get("/api/v1/policies")).json() == [policy]

    replaced = await client.put("/api/v1/policies/voice", json={**VOICE, "title": "More voices"})
    assert (replaced.status, (await replaced.json())["title"]) == (200, "More voices")
    assert replaced.headers["ETag"] != made.headers["ETag"]
    assert (await home.catalog.get("policy", "voice")).title == "More voices"

    removed = await client.delete("/api/v1/policies/voice")
    assert (removed.status, await removed.read()) == (204, b"")
    await problem(await client.get("/api/v1/policies/voice"), 404)
    await problem(await client.delete("/api/v1/policies/voice"), 404)


async def test_what_one_reads_can_be_sent_back_unchanged(client: Client) -> None:
    made = await (await client.post("/api/v1/policies", json=VOICE)).json()
    again = await client.put("/api/v1/policies/voice", json=made)
    assert await again.json() == made


async def test_put_makes_a_policy_and_the_address_names_it(client: Client) -> None:
    body = {name: value for name, value in VOICE.items() if name != "reference"}
    made = await client.put("/api/v1/policies/other", json=body)
    assert (made.status, (await made.json())["reference"]) == (201, "other")
    members = await problem(await client.put("/api/v1/policies/third", json=VOICE), 422)
    assert members["detail"].startswith("reference: ")


async def test_a_second_policy_of_one_reference_is_a_conflict(client: Client) -> None:
    await client.post("/api/v1/policies", json=VOICE)
    members = await problem(await client.post("/api/v1/policies", json={**VOICE, "title": "Mine"}), 409)
    assert "PUT /api/v1/policies/voice" in members["detail"]
    assert (await (await client.get("/api/v1/policies/voice")).json())["title"] == "Voices"


async def test_of_many_who_make_the_same_policy_at_once_one_succeeds(client: Client) -> None:
    answers = await asyncio.gather(*(client.post("/api/v1/policies", json=VOICE) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7


async def test_a_change_to_an_outdated_revision_is_rejected(client: Client) -> None:
    etag = (await client.post("/api/v1/policies", json=VOICE)).headers["ETag"]
    mine = await client.put(
        "/api/v1/policies/voice", json={**VOICE, "title": "1"}, headers={"If-Match": etag}
    )
    assert mine.status == 200
    late = await client.put(
        "/api/v1/policies/voice", json={**VOICE, "title": "2"}, headers={"If-Match": etag}
    )
    await problem(late, 412)
    await problem(await client.delete("/api/v1/policies/voice", headers={"If-Match": etag}), 412)
    assert (await (await client.get("/api/v1/policies/voice")).json())["title"] == "1"
    now = {"If-Match": mine.headers["ETag"]}
    assert (await client.delete("/api/v1/policies/voice", headers=now)).status == 204


async def test_conditions_on_there_being_a_policy_or_none_hold(client: Client) -> None:
    await problem(await client.put("/api/v1/policies/voice", json=VOICE, headers={"If-Match": "*"}), 412)
    await problem(await client.put("/api/v1/policies/voice", json=VOICE, headers={"If-Match": '"no"'}), 412)
    none = {"If-None-Match": "*"}
    assert (await client.put("/api/v1/policies/voice", json=VOICE, headers=none)).status == 201
    await problem(await client.put("/api/v1/policies/voice", json=VOICE, headers=none), 412)
    assert (await client.put("/api/v1/policies/voice", json=VOICE, headers={"If-Match": "*"})).status == 200


async def test_an_unchanged_policy_is_not_resent(client: Client) -> None:
    etag = (await client.post("/api/v1/policies", json=VOICE)).headers["ETag"]
    answer = await client.get("/api/v1/policies/voice", headers={"If-None-Match": etag})
    assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "xml"}, "format"),
        ({"limits": {"chunk_bytes": -1}}, "limits.chunk_bytes"),
        ({"limits": {"chunk_byte": 1}}, "chunk_byte"),
        ({"tags": "voice"}, "tags"),
        ({"colour": "red"}, "colour"),
        ({"reference": "no spaces"}, "reference"),
        ({"pipeline": [{"operation": "wavv"}]}, "wavv"),
        ({"pipeline": [{"operation": "wav"}, {"operation": "spectrum", "lenght": 9}]}, "lenght"),
        ({"pipeline": [{"operation": "spectrum"}]}, "spectrum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_invalid_policy_is_rejected_with_the_path_of_what_is_wrong_and_the_old_one_stays(
    client: Client, change: dict[str, Any], named: str
) -> None:
    await client.post("/api/v1/policies", json=VOICE)
    before = await (await client.get("/api/v1/policies")).json()
    for answer in (
        await client.put(
            f"/api/v1/policies/{quoted(change.get('reference', 'voice'))}",
            json={**VOICE, **change},
        ),
        await client.post("/api/v1/policies", json={**VOICE, "reference": "new", **change}),
    ):
        members = await problem(answer, 422)
        assert named in members["detail"]
        assert members["type"] == "urn:windvane:problem:policy-invalid"
    assert await (await client.get("/api/v1/policies")).json() == before


async def test_a_body_that_is_not_a_json_object_is_rejected(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    await problem(await client.post("/api/v1/policies", data=b"{", headers=headers), 400)
    await problem(await client.post("/api/v1/policies", data=b"[]", headers=headers), 422)
    await problem(await client.post("/api/v1/policies", data={"reference": "voice"}), 415)


async def test_a_body_over_the_limit_is_rejected(client: Client) -> None:
    body = b'{"title": "' + b"x" * (5 * 1024 * 1024) + b'"}'
    answer = await client.post("/api/v1/policies", data=body, headers={"Content-Type": "application/json"})
    await problem(answer, 413)


async def test_the_list_comes_in_pages(client: Client) -> None:
    for number in range(5):
        await client.post("/api/v1/policies", json={**VOICE, "reference": f"p{number}"})
    first = await client.get("/api/v1/policies?limit=3")
    second = await client.get(following(first))
    found = [policy["reference"] for policy in [*await first.json(), *await second.json()]]
    assert found == ["p0", "p1", "p2", "p3", "p4"]
    assert following(second) == ""
