"""Replay of dead letters: through the current policy, once, and only if nothing is stored twice."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from windvane.config import Settings
from windvane.errors import StoreFailed
from windvane.records.events import iterate_events
from windvane.rejections import REJECTIONS, RejectionCode
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.ingest.test_gateway import EVENT, Site, packed, running

LETTER = DeadLetter(
    code="no-policy",
    reason="no policy takes it",
    tag="app.log",
    sender="10.0.0.7",
    policy=None,
    payload=EVENT,
    time_ns=1_790_000_000_000_000_007,
)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        yield site


async def replay(site: Site, number: int | str) -> tuple[int, dict[str, Any]]:
    async with site.http() as http, http.post(f"/dead-letters/{number}/replay") as answer:
        text = await answer.read()
        return answer.status, msgspec.json.decode(text) if text else {}


async def test_what_had_no_policy_enters_once_there_is_one(site: Site) -> None:
    number = site.letters().add(replace(LETTER, payload=EVENT * 3, chunk_id=b"its id"))
    status, problem = await replay(site, number)
    assert (status, problem["code"]) == (422, "no-policy")
    [kept] = site.letters().list()
    assert (kept.id, kept.times) == (number, 1)  # a second rejection adds no letter and is not counted
    await site.policy("logs", tags=["app.**"])
    assert (await replay(site, number))[0] == 204
    [chunk] = await site.chunks("logs")
    assert (chunk.sender, chunk.tag, chunk.payload) == ("10.0.0.7", "app.log", EVENT * 3)
    assert chunk.chunk_id == b"its id"
    assert site.letters().list() == []
    assert (await replay(site, number))[0] == 404


async def test_a_chunk_that_its_sender_resent_in_the_meantime_is_not_stored_twice(site: Site) -> None:
    async with site.connected() as (_, writer):
        writer.write(packed("app.log", EVENT, chunk="id"))
        letter = await site.kept_letter()
    await site.policy("logs", tags=["app.**"])
    assert await site.send(packed("app.log", EVENT, chunk="id")) == ["id"]
    assert (await replay(site, letter.id))[0] == 204
    assert len(await site.chunks("logs")) == 1
    assert site.letters().list() == []


async def test_a_letter_without_an_id_is_stored_once_however_often_it_is_replayed(site: Site) -> None:
    await site.policy("logs", tags=["app.**"])
    number = site.letters().add(LETTER)
    statuses = [status for status, _ in await asyncio.gather(*(replay(site, number) for _ in range(5)))]
    assert sorted(statuses) == [204, 404, 404, 404, 404]
    [chunk] = await site.chunks("logs")
    assert chunk.chunk_id is not None


@pytest.mark.parametrize("code", [code for code, kind in REJECTIONS.items() if kind.was_published])
@pytest.mark.parametrize("suppress", ["chunk-id", "content"])
async def test_replay_of_a_chunk_that_the_worker_could_not_archive_is_not_a_retransmission(
    site: Site, suppress: str, code: RejectionCode
) -> None:
    await site.policy("logs", tags=["app.**"], suppress_repeats=suppress)
    assert await site.send(packed("app.log", EVENT, chunk="id")) == ["id"]
    number = site.letters().add(replace(LETTER, code=code, chunk_id=b"id", policy="logs"))
    assert (await replay(site, number))[0] == 204
    first, second = await site.chunks("logs")
    assert first.payload == second.payload
    assert first.chunk_id != second.chunk_id


@pytest.mark.parametrize(
    ("letter", "says"),
    [
        (replace(LETTER, code="step-failed", detail="Traceback"), "archived already"),
        (replace(LETTER, code="framing"), "no chunk"),
        (replace(LETTER, code="bad-envelope"), "no chunk"),
        (replace(LETTER, code="too-large", size=10_000_000), "only the first"),
    ],
)
async def test_a_letter_that_is_stored_already_or_is_not_a_chunk_is_not_replayed(
    site: Site, letter: DeadLetter, says: str
) -> None:
    await site.policy("logs", tags=["app.**"])
    number = site.letters().add(letter)
    status, problem = await replay(site, number)
    assert (status, problem["code"]) == (409, "not-replayable")
    assert says in problem["detail"]
    assert [kept.id for kept in site.letters().list()] == [number]
    assert await site.chunks("logs") == []


async def test_a_compressed_chunk_and_one_of_another_signal_are_replayed_as_what_they_are(site: Site) -> None:
    await site.policy("logs", tags=["app.**"])
    compressed = replace(LETTER, payload=gzip.compress(EVENT * 5), compression="gzip")
    assert (await replay(site, site.letters().add(compressed)))[0] == 204
    [chunk] = await site.chunks("logs")
    assert chunk.payload == EVENT * 5
    status, problem = await replay(site, site.letters().add(replace(LETTER, payload=b"\x80", signal=1)))
    assert (status, problem["code"]) == (422, "not-logs")


async def test_a_posted_body_is_read_again_with_the_time_at_which_it_came(site: Site) -> None:
    body = gzip.compress(json.dumps([{"t": 1790000000, "a": 1}, {"a": 2}]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Idempotency-Key": "k"}
    address = "/ingest/logs/app.log?time_key=t"
    async with site.http() as http, http.post(address, data=body, headers=headers) as answer:
        assert answer.status == 404
    letter = await site.kept_letter()
    await site.policy("logs", tags=["app.**"])
    assert (await replay(site, letter.id))[0] == 204
    [chunk] = await site.chunks("logs")
    arrived_ns = letter.time_ns
    (first_ns, _), (second_ns, record) = iterate_events(chunk.payload)
    assert (first_ns, second_ns, record) == (1_790_000_000_000_000_000, arrived_ns, {b"a": 2})
    assert chunk.chunk_id == b"k"


async def test_a_posted_body_goes_to_the_policy_that_it_named_and_a_forwarded_one_where_its_tag_goes(
    site: Site,
) -> None:
    await site.policy("logs", tags=["app.**"])
    await site.policy("all", tags=["**"])  # the last: where the gateway knows it, it knows both
    posted = replace(LETTER, policy="all", payload=b'{"a":1}', format="application/json")
    for letter in (posted, replace(LETTER, policy="all")):
        assert (await replay(site, site.letters().add(letter)))[0] == 204
    assert len(await site.chunks("all")) == 1
    assert len(await site.chunks("logs")) == 1


async def test_of_a_letter_that_is_partly_valid_now_the_rest_is_a_letter(site: Site) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "message", "type": "bytes"}]}
    await site.policy("logs", tags=["app.**"], schema=schema)
    invalid = EVENT.replace(b"message", b"massage")
    number = site.letters().add(replace(LETTER, payload=EVENT + invalid))
    status, told = await replay(site, number)
    assert (status, told["stored_events"], told["rejected_events"]) == (200, 1, 1)
    assert "massage" in told["reason"]
    [chunk] = await site.chunks("logs")
    assert chunk.payload == EVENT
    [rest] = site.letters().list()
    assert site.letters().get(rest.id).payload == invalid
    status, problem = await replay(site, rest.id)
    assert (status, [letter.id for letter in site.letters().list()]) == (422, [rest.id])
    assert "massage" in problem["detail"] or "message" in problem["detail"]


MILLISECONDS = b"\x92\xcf\x00\x00\x01\xa0\xc4\x50\xfc\x00\x80"
ARRAY_AS_KEY = b"\x92\x01\x81\x90\x01"
DEEP = b"\x92\x01" + b"\x91" * 1100 + b"\x01"


@pytest.mark.parametrize("bad", [MILLISECONDS, ARRAY_AS_KEY, DEEP, b"\x93\x01\x80\x80", EVENT[:-3]])
@pytest.mark.parametrize("code", ["malformed", "not-archived"])
async def test_a_replay_says_what_no_worker_could_store(site: Site, bad: bytes, code: RejectionCode) -> None:
    """Letters of a version that rejected chunks whole: what replays as durable must be stored."""
    await site.policy("logs", tags=["app.**"])
    number = site.letters().add(replace(LETTER, code=code, policy="logs", payload=EVENT + bad, chunk_id=b"1"))
    status, told = await replay(site, number)
    assert (status, told["stored_events"], told["rejected_events"]) == (200, 1, 1)
    assert [chunk.payload for chunk in await site.chunks("logs")] == [EVENT]
    [rest] = site.letters().list()
    assert (rest.code, site.letters().get(rest.id).payload) == ("invalid-event", bad)
    assert (await replay(site, rest.id))[0] == 422
    assert [letter.id for letter in site.letters().list()] == [rest.id]
    assert len(await site.chunks("logs")) == 1


async def test_a_replay_looks_for_the_field_that_a_raw_policy_archives(site: Site) -> None:
    await site.policy("logs", tags=["app.**"], format="raw", field="samples")
    number = site.letters().add(replace(LETTER, code="not-archived", policy="logs"))
    status, problem = await replay(site, number)
    assert (status, problem["code"]) == (422, "invalid-event")
    assert "no field 'samples'" in problem["detail"]
    assert [letter.id for letter in site.letters().list()] == [number]


async def test_invalid_events_go_back_to_the_policy_that_was_named(site: Site) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "massage", "type": "bytes"}]}
    await site.policy("named", tags=["**"], schema=schema)
    await site.policy("by-tag", tags=["app.log"])
    valid = EVENT.replace(b"message", b"massage")
    async with site.http() as http, http.post("/ingest/named/app.log", data=EVENT + valid) as answer:
        assert answer.status == 204
    letter = await site.kept_letter()
    await site.policy("named", tags=["**"])
    async with asyncio.timeout(10):
        while (await replay(site, letter.id))[0] != 204:  # until the edit is in force
            pass
    assert [chunk.payload for chunk in await site.chunks("named")] == [valid, EVENT]


@pytest.mark.parametrize("number", ["99", "x", "9" * 40, "-1", "²"])
async def test_a_letter_that_is_not_kept_is_404(site: Site, number: str) -> None:
    assert (await replay(site, number))[0] == 404


@pytest.mark.parametrize("number", ["0" * 5_000 + "999", "9" * 19, "9" * 5_000, "x", "²"])
async def test_an_id_of_any_length_is_looked_for_or_not_found(site: Site, number: str) -> None:
    status, problem = await replay(site, number)
    assert (status, problem["status"]) == (404, 404)


@pytest.mark.parametrize("rejection", ["chunk", "events"])
@pytest.mark.parametrize("ids", [(None, None, None), ("a", "b", "c")], ids=["no ids", "ids"])
async def test_equal_events_that_were_not_resent_are_all_replayed(
    site: Site, rejection: str, ids: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise StoreFailed("the process ends here")

    tag = "late.tag"
    if rejection == "events":
        schema = {"type": "record", "name": "r", "fields": [{"name": "other", "type": "long"}]}
        await site.policy("late", tags=["late.**"], schema=schema)
    async with site.connected() as (_, writer):
        for id in ids:
            writer.write(packed(tag, EVENT, chunk=id) if id else packed(tag, EVENT))
        async with asyncio.timeout(30):
            while sum(letter.times for letter in site.letters().list()) < 3:
                await asyncio.sleep(0.01)
    letters = site.letters().list()
    assert [letter.times for letter in letters] == [1, 1, 1]
    await site.policy("late", tags=["late.**"])
    for letter in letters:
        with monkeypatch.context() as dying:  # between storing it and dropping the letter
            dying.setattr(SqlDeadLetters, "drop", failing)
            async with asyncio.timeout(30):
                while (await replay(site, letter.id))[0] == 422:  # the policy is not in force yet
                    await asyncio.sleep(0.01)
        assert (await replay(site, letter.id))[0] == 204
    assert site.letters().list() == []
    chunks = await site.chunks("late")
    assert [chunk.payload for chunk in chunks] == [EVENT] * 3
    assert len({chunk.chunk_id for chunk in chunks}) == 3


async def test_a_chunk_that_is_resent_and_rejected_again_is_one_letter(site: Site) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "other", "type": "long"}]}
    await site.policy("late", tags=["late.**"], schema=schema)
    for _ in range(2):
        assert await site.send(packed("late.tag", EVENT, chunk="same")) == ["same"]
    assert len(site.letters().list()) == 1
