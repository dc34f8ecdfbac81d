"""The gateway with its real ports: acked chunks are on the bus, rejected chunks are in the dead letters."""

import asyncio
import base64
import gzip
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_from_bytes

import aiohttp
import msgpack
import msgspec
import pytest
from windvane.bus import open_bus
from windvane.bus.interface import TopicPartition
from windvane.bus.messages.chunks import ChunkMessage, decode_chunk
from windvane.config import GatewaySettings, Settings
from windvane.ingest import tier
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.dead_letter import KeptDeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters

EVENT = msgpack.packb([msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 7)), {"message": b"hello"}])


class Site:
    """A gateway that runs, and what a test looks at."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.forward = ("", 0)
        self.stop = asyncio.Event()

    async def policy(self, reference: str, **settings: Any) -> None:
        catalog = await Catalog.open(self.settings.catalog_url)
        body = policy_to_mapping(policy_from_mapping({"reference": reference, **settings}))
        await catalog.put("policy", reference, body=body)
        await catalog.close()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.forward)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def send(self, *messages: bytes, acks: int = 1) -> list[Any]:
        """Sends on a connection of its own; the ids that were acked, in the order of the acks."""
        async with self.connected() as (reader, writer):
            writer.write(b"".join(messages))
            return [await read_ack(reader) for _ in range(acks)]

    @asynccontextmanager
    async def http(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.UnixConnector(str(self.settings.run_dir / "gateway.sock"))
        async with aiohttp.ClientSession("http://gateway", connector=connector) as session:
            yield session

    async def chunks(self, topic: str) -> list[ChunkMessage]:
        """All that is on the bus, read by a consumer of its own."""
        bus = open_bus("embedded:", self.settings.home)
        consumer = bus.consumer("test", FromTheBeginning())
        consumer.subscribe([topic])
        found = []
        while messages := await consumer.poll(timeout_s=0.3):
            found += [decode_chunk(message.value) for message in messages]
        await bus.close()
        return found

    def letters(self) -> DeadLetters:
        return SqlDeadLetters(self.settings.dead_letter_file)

    async def kept_letter(self) -> KeptDeadLetter:
        """The one dead letter, once it is written: a connection is closed before its bytes are on disk."""
        letters = self.letters()
        async with asyncio.timeout(10):
            while not letters.list():
                await asyncio.sleep(0.01)
        [letter] = letters.list()
        return letters.get(letter.id)


class FromTheBeginning:
    async def assigned(self, partitions: Any) -> dict[TopicPartition, int | None]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Any) -> None:
        pass


async def read_ack(reader: asyncio.StreamReader) -> Any:
    unpacker = msgpack.Unpacker()
    while True:
        piece = await asyncio.wait_for(reader.read(1), 10)
        if not piece:
            raise ConnectionResetError("closed instead of acked")
        unpacker.feed(piece)
        with suppress(msgpack.OutOfData):
            return unpacker.unpack()["ack"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        yield site


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Site]:
    site = Site(settings)
    addresses: dict[str, str] = {}
    ready = asyncio.Event()

    def became_ready(report: dict[str, str]) -> None:
        addresses.update(report)
        ready.set()

    serving = asyncio.ensure_future(tier.serve(settings, ready=became_ready, stop=site.stop))
    serving.add_done_callback(lambda _: ready.set())
    await ready.wait()
    if serving.done():
        serving.result()
    host, _, port = addresses["forward"].rpartition(":")
    site.forward = (host, int(port))
    try:
        yield site
    finally:
        site.stop.set()
        await serving


def packed(tag: str, payload: bytes, **option: Any) -> bytes:
    return bytes(msgpack.packb([tag, payload, *([option] if option else [])]))


@pytest.mark.parametrize(
    "message",
    [
        packed("t", EVENT * 3, chunk="id", size=3),
        packed("t", EVENT * 3, chunk="id"),
        packed("t", EVENT * 3, chunk="id", size=700),
        packed("t", gzip.compress(EVENT * 3), chunk="id", compressed="gzip"),
        packed("t", gzip.compress(EVENT) * 3, chunk="id", compressed="gzip", size=3),
        packed("t", gzip.compress(EVENT * 3) + bytes(512), chunk="id", compressed="gzip"),
        packed("t", gzip.compress(EVENT * 3) + b"\n", chunk="id", compressed="gzip"),
        b"\x93\xa1t\x93" + EVENT * 3 + msgpack.packb({"chunk": "id"}),
    ],
    ids=[
        *("packed", "no size", "wrong size", "gzip", "three gzip members", "gzip and zeros"),
        *("gzip and a line break", "forward"),
    ],
)
async def test_an_acked_chunk_is_on_the_bus(site: Site, message: bytes) -> None:
    await site.policy("t")
    assert await site.send(message) == ["id"]
    [chunk] = await site.chunks("t")
    assert (chunk.tag, chunk.payload, chunk.events, chunk.chunk_id) == ("t", EVENT * 3, 3, b"id")


async def test_message_mode_is_stored_and_acked_where_it_asks(site: Site) -> None:
    await site.policy("t")
    plain = b"\x93\xa1t" + EVENT[1:]
    asking = b"\x94\xa1t" + EVENT[1:] + msgpack.packb({"chunk": "id"})
    assert await site.send(plain, plain, asking) == ["id"]
    chunks = await site.chunks("t")
    assert b"".join(chunk.payload for chunk in chunks) == EVENT * 3
    assert sum(chunk.events for chunk in chunks) == 3


async def test_heartbeats_and_empty_chunks_store_nothing(site: Site) -> None:
    await site.policy("t")
    empty = packed("t", b"", chunk="empty", size=0)
    assert await site.send(b"\xc0", empty, b"\xc0\xc0") == ["empty"]
    assert await site.chunks("t") == []


async def test_the_ack_echoes_any_bytes_typed_str(site: Site) -> None:
    await site.policy("t")
    async with site.connected() as (reader, writer):
        for chunk_id, head in [
            (b"a\xff\n", b"\xa3"),
            (b"x" * 40, b"\xd9\x28"),
            (b"y" * 300, b"\xda\x01\x2c"),
        ]:
            writer.write(b"\x93\xa1t" + msgpack.packb(EVENT) + b"\x81\xa5chunk" + msgpack.packb(chunk_id))
            expected = b"\x81\xa3ack" + head + chunk_id
            assert await asyncio.wait_for(reader.readexactly(len(expected)), 10) == expected


async def test_a_retransmission_is_acked_again_and_stored_once(site: Site) -> None:
    await site.policy("t")
    message = packed("t", EVENT, chunk="id")
    assert await site.send(message, message, acks=2) == ["id", "id"]
    assert await site.send(message) == ["id"]
    other = packed("t", EVENT, chunk="other")
    assert await site.send(other) == ["other"]
    assert len(await site.chunks("t")) == 2


async def test_an_unknown_tag_is_not_acked_until_its_policy_is_made(site: Site) -> None:
    async with site.connected() as (reader, writer):
        message = packed("new.tag", EVENT, chunk="id")
        writer.write(message)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.5)
        await site.policy("new", tags=["new.**"])
        writer.write(message)
        assert await read_ack(reader) == "id"
    letter = await site.kept_letter()
    assert (letter.code, letter.tag, letter.payload) == ("no-policy", "new.tag", EVENT)
    assert len(await site.chunks("new")) == 1


REFUSED = [
    ("malformed", packed("t", b"\xc1" + EVENT, chunk="id"), b"\xc1" + EVENT),
    ("malformed", packed("t", EVENT[:-1], chunk="id", size=1), EVENT[:-1]),
    ("malformed", packed("t", b"no gzip", chunk="id", compressed="gzip"), b"no gzip"),
    ("unsupported-compression", packed("t", b"?", chunk="id", compressed="lzma"), b"?"),
    ("too-large", packed("t", EVENT * 100, chunk="id"), EVENT * 100),
    (
        "too-large",
        packed("t", gzip.compress(bytes(2000)), chunk="id", compressed="gzip"),
        gzip.compress(bytes(2000)),
    ),
    ("too-many-events", packed("t", b"\x92\0\0" * 20, chunk="id"), b"\x92\0\0" * 20),
    ("not-logs", packed("t", b"\x80", chunk="id", fluent_signal=1), b"\x80"),
    ("bad-tag", packed("t:x", EVENT, chunk="id"), EVENT),
]


@pytest.mark.parametrize(
    ("code", "message", "payload"), REFUSED, ids=[f"{r[0]} {i}" for i, r in enumerate(REFUSED)]
)
async def test_a_rejected_chunk_is_kept_and_its_neighbours_are_stored(
    site: Site, caplog: pytest.LogCaptureFixture, code: str, message: bytes, payload: bytes
) -> None:
    await site.policy("t", limits={"chunk_bytes": 1000, "events_per_chunk": 15})
    before, after = packed("t", EVENT, chunk="before"), packed("t", EVENT, chunk="after")
    with caplog.at_level(logging.WARNING):
        acked = await site.send(before, message, after, acks=3)
    assert sorted(acked) == ["after", "before", "id"]
    [letter] = site.letters().list()
    assert letter.code == code
    assert site.letters().get(letter.id).payload == payload
    assert letter.reason in caplog.text
    assert [chunk.chunk_id for chunk in await site.chunks("t")] == [b"before", b"after"]


async def test_a_broken_connection_is_closed_alone_and_its_bytes_are_kept(site: Site) -> None:
    await site.policy("t")
    async with site.connected() as (reader, writer), site.connected() as (neighbour, to_gateway):
        good = packed("t", EVENT, chunk="good")
        writer.write(good + b"\x81\x00\x00 this is not a message")
        assert await read_ack(reader) == "good"
        assert await asyncio.wait_for(reader.read(), 10) == b""
        to_gateway.write(packed("t", EVENT, chunk="neighbour"))
        assert await read_ack(neighbour) == "neighbour"
    letter = await site.kept_letter()
    assert letter.code == "framing"
    assert letter.payload == b"\x81\x00\x00 this is not a message"


async def test_a_message_over_the_limit_closes_its_connection_and_its_head_is_kept(tmp_path: Path) -> None:
    small = GatewaySettings(max_message_bytes=10_000)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=small)) as site:
        await site.policy("t")
        async with site.connected() as (reader, writer):
            writer.write(packed("t", EVENT * 1000, chunk="id"))
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
        assert await site.send(packed("t", EVENT, chunk="neighbour")) == ["neighbour"]
        letter = await site.kept_letter()
        assert (letter.code, "limit of 10000" in letter.reason) == ("framing", True)


async def test_a_flood_of_garbage_costs_one_log_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        async with site.connected() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.wait_for(reader.read(), 10)
    assert len([r for r in caplog.records if r.name == "windvane.gateway" and "0x47" in r.getMessage()]) == 1


async def test_a_peer_that_reads_no_acks_is_read_no_further(site: Site) -> None:
    await site.policy("t")
    async with site.connected() as (_, writer):
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        sent = 0
        for n in range(3000):  # 180 MB of acks, if it took them all
            message = packed("t", EVENT, chunk=f"{n:08}" * 7500)
            writer.write(message)
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                break
            sent += len(message)
        assert sent < 60_000_000
        transport.abort()
    assert await site.send(packed("t", EVENT, chunk="neighbour")) == ["neighbour"]


async def test_tiny_chunks_count_for_what_they_cost(tmp_path: Path) -> None:
    bounded = GatewaySettings(connection_window_bytes=100 * 2048, pending_bytes=1000 * 2048)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=bounded)) as site:
        await site.policy("t")
        message = b"\x92\xa1t\xa3\0\0\0"  # not an event: rejected, and kept in the dead letters
        async with site.connected() as (_, writer), site.http() as http:
            writer.write(message * 1500)
            most = 0
            while True:
                async with http.get("/status") as answer:
                    status = await answer.json()
                most = max(most, status["pending_bytes"])
                if status["refused_total"] == 1500:
                    break
        assert 0 < most <= 101 * (2048 + 3)


async def test_an_end_of_file_loses_nothing_that_was_sent_before_it(tmp_path: Path) -> None:
    narrow = GatewaySettings(connection_window_bytes=4096)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=narrow)) as site:
        await site.policy("t")
        async with site.connected() as (reader, writer):
            writer.write(b"".join(packed("t", EVENT) for _ in range(500)))
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert len(await site.chunks("t")) == 500


async def test_stopping_acks_what_was_taken_in(site: Site) -> None:
    await site.policy("t")
    async with site.connected() as (reader, writer):
        writer.write(b"".join(packed("t", EVENT * 500, chunk=str(i)) for i in range(50)))
        acked = {await read_ack(reader)}
        site.stop.set()
        with suppress(ConnectionError):
            while True:
                acked.add(await read_ack(reader))
    stored = {chunk.chunk_id.decode() for chunk in await site.chunks("t") if chunk.chunk_id}
    assert acked <= stored


async def test_a_policy_is_changed_while_traffic_runs_and_a_broken_one_changes_nothing(site: Site) -> None:
    await site.policy("t", limits={"chunk_bytes": 10})
    assert await site.send(packed("t", EVENT * 9, chunk="large")) == ["large"]
    assert await site.chunks("t") == []
    await site.policy("t", limits={"chunk_bytes": 10_000})
    while not await site.chunks("t"):
        await site.send(packed("t", EVENT * 9, chunk="now it fits"))
    catalog = await Catalog.open(site.settings.catalog_url)
    await catalog.put("policy", "t", body={"reference": "t", "format": "nonsense"})
    await catalog.close()
    await asyncio.sleep(0.6)  # two polls of the catalog: nothing to be seen is the point
    assert await site.send(packed("t", EVENT, chunk="still")) == ["still"]
    assert {c.chunk_id for c in await site.chunks("t")} == {b"now it fits", b"still"}


async def test_what_the_wendelin_plugin_posts_is_durable_with_204(site: Site) -> None:
    await site.policy("wind", tags=["park.**"])
    path = "/erp5/portal_ingestion_policies/wind/ingest?reference=park.t1"
    form = b"data_chunk=" + quote_from_bytes(EVENT).encode()
    form_base64 = b"data_chunk=" + quote_from_bytes(base64.b64encode(EVENT)).encode()
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    as_octets = {"Content-Type": "application/octet-stream"}
    async with site.http() as http:
        for body, headers in [
            (EVENT, as_octets),
            (base64.encodebytes(EVENT), as_octets),
            (form, as_form),
            (form_base64, as_form),
        ]:
            async with http.post(path, data=body, headers=headers) as answer:
                assert answer.status == 204, await answer.text()
        async with http.post("/ingest/wind?reference=park.t1", data=EVENT) as answer:
            assert answer.status == 204
    chunks = await site.chunks("wind")
    assert [(c.tag, c.payload) for c in chunks] == [("park.t1", EVENT)] * 5


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/ingest/none?reference=t", EVENT, 404, "no-policy"),
        ("/ingest/wind?reference=t", EVENT, 403, "tag-not-allowed"),
        ("/ingest/wind", EVENT, 400, None),
        ("/ingest/wind?reference=park.t1", EVENT * 100, 413, "too-large"),
        ("/ingest/wind?reference=park.t1", b"\xc1", 422, "malformed"),
        ("/ingest/wind?reference=park.t1", b"PK\x03\x04", 422, "malformed"),
    ],
)
async def test_http_says_why_not(site: Site, path: str, body: bytes, status: int, code: str | None) -> None:
    await site.policy("wind", tags=["park.**"], limits={"chunk_bytes": 1000})
    async with site.http() as http, http.post(path, data=body) as answer:
        problem = msgspec.json.decode(await answer.read())
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        assert problem["status"] == status
        assert problem.get("code") == code
    assert [letter.code for letter in site.letters().list()] == ([code] if code else [])
