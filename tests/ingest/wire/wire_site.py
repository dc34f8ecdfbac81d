"""A gateway behind its forward port that tells all that came of what a peer sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import msgspec
from windvane.bus.discard import DiscardProducer
from windvane.bus.interface import Buffer, Durability
from windvane.bus.messages.chunks import decode_chunk
from windvane.config import Settings
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters

from tests.ingest.forward.forward_site import EVENT, ForwardSite, Peer, forward_site, packed
from tests.ingest.wire.notation import Fixture, Outcome, Stored
from tests.waiting import until

TIMEOUT_S = 5.0  # only ends a test that fails
MARKER_TAG, MARK = "marker", "behind it all"
MARKS: dict[str, tuple[bytes, bytes]] = {  # a chunk, and its ack
    "msgpack": (packed(MARKER_TAG, EVENT, chunk=MARK), msgpack.packb({"ack": MARK})),
    "json": (
        msgspec.json.encode([MARKER_TAG, 1, {}, {"chunk": MARK}]),
        msgspec.json.encode({"ack": MARK}),
    ),
}


class KeepingProducer(DiscardProducer):
    """Remembers what was published, in order."""

    def __init__(self, next_offsets: dict[str, list[int]]) -> None:
        super().__init__(next_offsets)
        self.stored: list[Stored] = []

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        chunk = decode_chunk(b"".join(map(bytes, value)))
        self.stored.append(Stored(chunk.tag, bytes(chunk.payload), chunk.events, chunk.chunk_id))
        return super().publish(topic, key, *value, durability=durability)


@dataclass
class WireSite:
    """What a test looks at."""

    forward: ForwardSite
    letters: DeadLetters
    stored: list[Stored] = field(default_factory=list)

    async def play(self, fixture: Fixture, *, cut: int | None = None) -> Outcome:
        """Sends a fixture on its own connection, whole or in two parts, and waits for its outcome.

        The outcome also contains anything unexpected.
        """
        self.taken()
        server = self.forward.server
        async with asyncio.timeout(TIMEOUT_S), self.forward.connected() as peer:
            if cut is not None:
                await until(lambda: server._connections)
                [connection] = server._connections
                await peer.send(fixture.sent[:cut])
                await until(lambda: connection._timeouts.received_bytes >= cut)
            await peer.send(fixture.sent[cut or 0 :])
            answered = b"" if fixture.closes else await self._answer(peer, fixture)
            closed = peer.reader.at_eof() or fixture.closes
            if closed:
                answered += await peer.closed()
        async with asyncio.timeout(TIMEOUT_S):
            await until(lambda: not server._connections)
            await until(lambda: len(self.stored) >= len(fixture.stored))
            if fixture.rejected is not None:
                await until(self.letters.list)
        return Outcome(answered, *self.taken(), closed)

    async def play_and_leave(self, sent: bytes) -> Outcome:
        """Sends bytes and the end of them, as a peer that dies; gives what comes till the gateway is done."""
        async with asyncio.timeout(TIMEOUT_S), self.forward.connected() as peer:
            await peer.send(sent)
            peer.writer.write_eof()
            answered = await peer.closed()
        return Outcome(answered, *self.taken(), closed=True)

    def taken(self) -> tuple[tuple[Stored, ...], tuple[tuple[str, bytes], ...]]:
        """Returns what was stored and rejected since the last call; chunk IDs may then be reused."""
        kept = [self.letters.get(letter.id) for letter in self.letters.list()]
        self.letters.drop_all([letter.id for letter in kept])
        stored = tuple(stored for stored in self.stored if stored.tag != MARKER_TAG)
        self.stored.clear()
        self.forward.gateway._recent.clear()
        return stored, tuple((letter.code, letter.payload) for letter in kept)

    async def _answer(self, peer: Peer, fixture: Fixture) -> bytes:
        """What is written before a chunk behind all is acked, so that nothing more can come."""
        mark, ack = MARKS[fixture.speaks]
        with suppress(asyncio.IncompleteReadError):
            answered = await peer.reader.readexactly(len(fixture.answered))
            await peer.send(mark)
            return answered + (await peer.reader.readuntil(ack)).removesuffix(ack)
        return b""


@asynccontextmanager
async def wire_site(home: Path, *, security: str | None = None, **settings: Any) -> AsyncIterator[WireSite]:
    """Takes the tag `t`, whatever begins with it, and the markers."""
    async with forward_site(home, security=security, **settings) as forward:
        at = Settings(home=home)
        catalog = await Catalog.open(at.catalog_url)
        policy = policy_from_mapping({"reference": "t", "tags": ["*", "t.**"]})
        await catalog.put("policy", "t", body=policy_to_mapping(policy))
        await catalog.close()
        gateway = forward.gateway
        await gateway._policies.refresh()
        assert isinstance(gateway._producer, DiscardProducer)
        gateway._producer = keeping = KeepingProducer(gateway._producer._next_offsets)
        letters = SqlDeadLetters(at.dead_letter_file)
        yield WireSite(forward, letters, keeping.stored)
        letters.close()
