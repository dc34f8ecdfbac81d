"""Whatever becomes of a session's bytes, it is taken or its connection ends; its neighbours do not notice.

A session is a handshake and several messages in any mode. Its bytes are flipped, inserted, deleted, cut off,
repeated, and mixed with those of another session; then the peer says that it has no more to send.
"""

import asyncio
import gzip
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ingest.forward.forward_site import EVENT, Peer, packed, ping
from tests.ingest.wire.combinations import COMPRESSIONS, forward, single
from tests.ingest.wire.combinations import packed as packed_combinations
from tests.ingest.wire.json_text import JSON
from tests.ingest.wire.well_formed import WELL_FORMED
from tests.ingest.wire.wire_site import MARKER_TAG, WireSite, wire_site

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECURITY = 'shared_key = "k3y"\n[[user]]\nname = "north"\npassword = "p1"\n'
MIB = 1 << 20
MAX_GROWTH_BYTES = 48 * MIB

MESSAGES = [
    combination.message
    for combination in chain(
        *(islice(packed_combinations(how), 0, None, 97) for how in COMPRESSIONS),
        islice(forward(), 0, None, 97),
        islice(single(), 0, None, 17),
    )
] + [fixture.sent for fixture in WELL_FORMED if fixture.sent]
JSON_MESSAGES = [fixture.sent for fixture in JSON]


@dataclass(frozen=True)
class Mutation:
    """One thing that happens to the bytes; `place` and `size` are taken modulo what there is."""

    kind: str
    place: int
    size: int
    new: bytes

    def apply(self, data: bytes, other: bytes) -> bytes:
        at = self.place % (len(data) + 1)
        end = at + self.size
        match self.kind:
            case "flip":
                flipped = bytes(byte ^ (self.size or 1) & 0xFF for byte in data[at : at + 1])
                return data[:at] + flipped + data[at + 1 :]
            case "overwrite":
                return data[:at] + self.new + data[at + len(self.new) :]
            case "insert":
                return data[:at] + self.new + data[at:]
            case "delete":
                return data[:at] + data[end:]
            case "truncate":
                return data[:at]
            case "repeat":
                return data[:end] + data[at:end] + data[end:]
            case _:
                start = self.place % (len(other) + 1)
                return data[:at] + other[start : start + self.size] + data[at:]


KINDS = ["flip", "overwrite", "insert", "delete", "truncate", "repeat", "splice"]
# Headers that announce something, besides bytes that are nothing of the kind.
TELLING = [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
mutations = st.builds(
    Mutation,
    kind=st.sampled_from(KINDS),
    place=st.integers(0, 1 << 16),
    size=st.integers(0, 300),
    new=st.sampled_from([*TELLING, b"\xc1", b"\xc0", b"\x91" * 2000]) | st.binary(max_size=8),
)


@pytest.mark.parametrize("kind", ["handshake", "open", "json"])
def test_any_mutation_is_taken_or_ends_its_connection_alone(tmp_path: Path, kind: str) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        security = SECURITY if kind == "handshake" else None
        site = runner.run(stack.enter_async_context(wire_site(tmp_path, security=security)))
        neighbour = runner.run(stack.enter_async_context(site.forward.connected()))
        if security:
            runner.run(neighbour.shake_hands(b"k3y", hostname=b"n", user=b"north", password=b"p1"))
        before = resident_bytes()

        @settings(
            deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], derandomize=True
        )
        @given(
            st.lists(st.sampled_from(JSON_MESSAGES if kind == "json" else MESSAGES), min_size=1, max_size=5),
            st.lists(mutations, max_size=4),
        )
        def session(messages: list[bytes], changes: list[Mutation]) -> None:
            runner.run(play(site, neighbour, messages, changes, has_handshake=security is not None))

        session()
        grown = resident_bytes() - before
        print(f"{kind}: resident memory grew by {grown / MIB:.1f} MiB")
        assert grown < MAX_GROWTH_BYTES
        runner.run(stack.aclose())


async def play(
    site: WireSite, neighbour: Peer, messages: list[bytes], changes: list[Mutation], *, has_handshake: bool
) -> None:
    site.taken()
    site.forward.chunks.clear()
    rejected_before = site.forward.telemetry.rejected_total
    data = b"".join(messages)
    async with site.forward.connected() as peer:
        if has_handshake:
            _, options = await peer.value()
            data = ping(options, b"k3y", user=b"north", password=b"p1") + data
        for change in changes:
            data = change.apply(data, MESSAGES[change.place % len(MESSAGES)] + data[::-1])
        await peer.send(data)
        peer.writer.write_eof()
        answered = await peer.closed()
        assert await neighbour.acked(packed(MARKER_TAG, EVENT, chunk="n")) == b"n"
    await site.forward.until(lambda: site.forward.telemetry.connections == 1)
    # A rejected chunk is kept a moment after its connection ended; a repeated one is counted.
    rejected = site.forward.telemetry.rejected_total - rejected_before
    await site.forward.until(lambda: sum(letter.times for letter in site.letters.list()) == rejected)
    assert site.forward.gateway.budget.receiving.used_bytes == 0
    assert site.forward.telemetry.pending_bytes() == 0
    check_claims(site, answered, changes)


def check_claims(site: WireSite, answered: bytes, changes: list[Mutation]) -> None:
    """What is acked is on the bus or in the dead letters, unless it was empty."""
    letters = [site.letters.get(letter.id) for letter in site.letters.list()]
    claimed = [acked for acked in acks_in(answered) if acked is not None]
    kept: set[bytes | None] = {stored.chunk_id for stored in site.stored}
    kept |= {letter.chunk_id for letter in letters}
    sent = [chunk for chunk in site.forward.chunks if chunk.tag != MARKER_TAG]
    # A letter of equal bytes is kept once, under the id that came first.
    equal = {letter.payload for letter in letters}
    kept |= {chunk.chunk_id for chunk in sent if bytes(chunk.payload) in equal}
    neither = set(claimed) - kept
    assert all(
        holds_nothing(bytes(chunk.payload), chunk.compression) for chunk in sent if chunk.chunk_id in neither
    )
    assert neither <= {chunk.chunk_id for chunk in sent}
    if not changes:
        assert not letters or {letter.code for letter in letters} == {"not-logs"}
        assert len(claimed) == sum(chunk.chunk_id is not None for chunk in sent)
        assert site.stored or not any(chunk.events for chunk in sent)


def acks_in(answered: bytes) -> list[bytes | None]:
    if answered[:1] == b"{":
        return [part.split(b'"}')[0] for part in answered.split(b'{"ack":"')[1:]]
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(answered)
    return [value.get(b"ack") if isinstance(value, dict) else None for value in unpacker]


def holds_nothing(payload: bytes, compression: str) -> bool:
    if payload and compression == "gzip":
        return gzip.decompress(payload) == b""
    if payload and compression == "zstd":
        return zstd.decompress(payload) == b""
    return payload == b""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
