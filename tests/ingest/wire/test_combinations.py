"""The cross product of what the protocol allows: thousands of messages over few connections, all taken."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import chain, islice

import pytest
import pytest_asyncio
from windvane.ingest.forward.framing import MessageReader

from tests.ingest.wire.combinations import COMPRESSIONS, Combination, forward, packed, single
from tests.ingest.wire.wire_site import WireSite, wire_site

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODES: dict[str, Callable[[], Iterator[Combination]]] = {
    **{compression: partial(packed, compression) for compression in COMPRESSIONS},
    "Forward": forward,
    "Message": single,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WireSite]:
    async with wire_site(tmp_path_factory.mktemp("wire")) as site:
        yield site


@pytest.mark.parametrize("mode", MODES)
async def test_every_combination_is_taken(site: WireSite, mode: str) -> None:
    combinations: list[Combination] = list(MODES[mode]())
    async with site.forward.connected() as peer:
        sending = asyncio.ensure_future(peer.send(b"".join(each.message for each in combinations)))
        expected = b"".join(each.ack for each in combinations)
        answered = await peer.reader.readexactly(len(expected))
        await sending
        await site.forward.until(lambda: len(site.stored) >= len(combinations))
    assert sorted(answered.split(b"\x81\xa3ack")) == sorted(expected.split(b"\x81\xa3ack"))
    stored, rejected = site.taken()
    assert rejected == ()
    by_tag = {chunk.tag: chunk for chunk in stored}
    wrong = [each.name for each in combinations if by_tag.get(each.stored.tag) != each.stored]
    assert wrong == []
    assert len(stored) == len(combinations)


async def test_combinations_are_read_alike_byte_by_byte() -> None:
    """Equal framing leads to equal decisions of the gateway, so this checks only the framing."""
    every = chain.from_iterable(combinations() for combinations in MODES.values())
    for combination in islice(every, 0, None, 5):
        whole = values(combination.message, len(combination.message))
        assert len(whole) == 1, combination.name
        assert values(combination.message, 1) == whole, combination.name


def values(data: bytes, step: int) -> list[tuple[object, ...]]:
    reader = MessageReader(max_message_bytes=1 << 20)
    found: list[tuple[object, ...]] = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        reader.writable()[: len(piece)] = piece
        reader.received(len(piece))
        found += [
            (m.tag, bytes(m.payload), m.events, tuple(sorted(m.options.items()))) for m in reader.messages()
        ]
    return found
