"""An event without a valid time costs itself alone in JSON too, over HTTP and on the forward port."""

import json
from collections.abc import Callable

import msgpack
import pytest
from windvane.ingest.bodies.formats import BodyFormat
from windvane.ingest.chunk import IncomingChunk, Outcome, PostedBody
from windvane.ingest.forward.json_events import JsonReader
from windvane.records.events import iterate_events

from tests.ingest.test_policies import NOW_S, House, chunk, house  # noqa: F401

BAD_TIMES = ["noon", "", -1, 5_000_000_000, 1e300, None, True, [], {"a": 1}, "x" * 500, "\ud800"]


def posted(data: bytes, media_type: str) -> IncomingChunk:
    body = PostedBody(data, "text", BodyFormat(media_type, time_key="t"), arrived_ns=1)
    return chunk(b"", body=body, policy="t", outcome=Outcome())


def of_http(times: list[object]) -> IncomingChunk:
    records = [{"t": time, "n": n} for n, time in enumerate(times)]
    return posted(json.dumps(records).encode(), "application/json")


def of_http_in_lines(times: list[object]) -> IncomingChunk:
    lines = [json.dumps({"t": time, "n": n, "x": float("nan")}) for n, time in enumerate(times)]
    return posted("\n".join(lines).encode(), "application/x-ndjson")


def of_msgpack(times: list[object]) -> IncomingChunk:
    packed = (
        msgpack.packb({"t": time, "n": n}, unicode_errors="surrogatepass") for n, time in enumerate(times)
    )
    return posted(b"".join(packed), "application/msgpack")


def of_forward(times: list[object]) -> IncomingChunk:
    message = json.dumps(["t", [[0 if time is None else time, {"n": n}] for n, time in enumerate(times)]])
    (read,) = JsonReader(message.encode(), max_message_bytes=1 << 20).messages()
    return chunk(bytes(read.payload), events=read.events, outcome=Outcome())


@pytest.mark.parametrize("door", [of_http, of_http_in_lines, of_msgpack, of_forward])
@pytest.mark.parametrize("bad", BAD_TIMES, ids=lambda bad: f"{bad!r:.20}")
async def test_the_others_are_durable(
    house: House,  # noqa: F811
    door: Callable[[list[object]], IncomingChunk],
    bad: object,
) -> None:
    if door is of_forward and bad is None:
        return  # null is the time of a sender without a clock there
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    sent = door([NOW_S, bad, f"{NOW_S}.000000007"])
    await gateway.submit(sent)
    [stored] = await house.chunks("t")
    assert [(ns, record[b"n"]) for ns, record in iterate_events(stored.payload)] == [
        (NOW_S * 10**9, 0),
        (NOW_S * 10**9 + 7, 2),
    ]
    assert sent.outcome is not None
    assert (sent.outcome.stored_events, sent.outcome.rejected_events) == (2, 1)
    [letter] = house.kept()
    assert letter.code == "invalid-event"
    ((_, record),) = [msgpack.unpackb(letter.payload, raw=True)]
    assert record[b"n"] == 1
