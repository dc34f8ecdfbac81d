"""The forward port: each listener, each timeout, and hostile peers next to honest ones."""

import asyncio
import gc
import getpass
import gzip
import io
import socket
import struct
import sys
from pathlib import Path

import msgpack
import pytest
from windvane.config import GatewaySettings, Settings
from windvane.errors import ConfigInvalid
from windvane.ingest import tier
from windvane.ingest.forward.client import ForwardClient, local_address
from windvane.ingest.forward.connection import MESSAGES_A_TURN, ForwardConnection
from windvane.ingest.forward.framing import MessageReader

from tests.ingest.forward.forward_site import (
    EVENT,
    TIMEOUT_S,
    ForwardSite,
    Peer,
    forward_site,
    packed,
    write_security,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KIB, MIB = 1 << 10, 1 << 20


# Listeners


async def test_a_unix_socket_acks_and_the_kernel_says_who_sends(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security='shared_key = "k3y"') as site:
        path = tmp_path / "run" / "forward.sock"
        await site.server.listen_on_socket(path, mode=0o660)
        assert path.stat().st_mode & 0o777 == 0o660
        async with site.connected(path=str(path)) as peer:
            assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        [chunk] = site.chunks
        assert (chunk.sender, chunk.identity) == ("local", f"unix:{getpass.getuser()}")
        async with ForwardClient(f"unix:{path}") as client:
            await client.send_events("t", [(1, {"a": 1})])
    assert not path.exists()


async def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    async with forward_site(tmp_path) as site:
        with pytest.raises(ConfigInvalid, match="is not a socket"):
            await site.server.listen_on_socket(tmp_path / "notes", mode=0o600)
    assert (tmp_path / "notes").read_text() == "mine"


async def test_ipv6(tmp_path: Path) -> None:
    async with forward_site(tmp_path, host="::1") as site, site.connected() as peer:
        assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        assert site.chunks[0].sender == "::1"


async def test_udp_heartbeats_are_answered_with_a_zero_byte(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site:
        await site.server.answer_heartbeats("127.0.0.1", site.port)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heart:
            heart.setblocking(False)
            heart.connect(("127.0.0.1", site.port))
            heart.send(b"")  # no answer is ever longer than what came
            heart.send(b"\0")
            assert await asyncio.wait_for(loop.sock_recv(heart, 100), TIMEOUT_S) == b"\0"


async def test_connections_without_a_word_are_heartbeats_of_fluentd(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site:
        for _ in range(10):
            async with site.connected():
                pass
        async with site.connected() as peer:
            assert await peer.acked(b"\xc0" + packed("t", EVENT, chunk="c") + b"\xc0") == b"c"


async def test_the_gateway_opens_its_ports_and_reports_them(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, forward="127.0.0.1:0", bus="discard:")
    write_security(tmp_path, 'shared_key = "k3y"')
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(tier.serve(settings, ready=lambda _: ready.set(), stop=stop))
    await asyncio.wait_for(ready.wait(), TIMEOUT_S)
    # Who may read this home needs no key to send to its gateway.
    assert local_address(settings, "127.0.0.1:1") == f"unix:{tmp_path}/run/forward.sock"
    stop.set()
    await serving
    assert local_address(settings, "127.0.0.1:1") == "127.0.0.1:1"


async def test_the_gateway_does_not_open_to_others_without_credentials(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, forward="0.0.0.0:0", bus="discard:")
    with pytest.raises(ConfigInvalid, match="requires no credentials"):
        await tier.serve(settings, ready=lambda _: None, stop=asyncio.Event())


async def test_with_a_key_it_does_and_asks_for_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, forward="0.0.0.0:0", bus="discard:")
    write_security(tmp_path, 'shared_key = "k3y"')
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(tier.serve(settings, ready=ready.set_result, stop=stop))
    port = int((await asyncio.wait_for(ready, TIMEOUT_S))["forward"].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = Peer(reader, writer)
    assert (await peer.shake_hands(b"k3y"))[1] is True
    writer.close()
    stop.set()
    await serving


# JSON


def seconds(whole: int) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", whole, 0))


async def test_json_events_come_on_the_same_port(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site, site.connected() as peer:
        await peer.send(b'["t", 1790000000, {"power": 15.5}]["t", [[1, {"a": "\\"]"}], [null, {}]], ')
        await peer.send(b'{"chunk": "one"}]\n')
        assert await peer.reader.readexactly(13) == b'{"ack":"one"}'
        await peer.send(b'["t", 1, {}, {"chunk": "two"}]')
        assert await peer.reader.readexactly(13) == b'{"ack":"two"}'
        assert [list(msgpack.Unpacker(io.BytesIO(chunk.payload))) for chunk in site.chunks] == [
            [[seconds(1790000000), {"power": 15.5}]],
            [[seconds(1), {"a": '"]'}], [seconds(0), {}]],
            [[seconds(1), {}]],
        ]


async def test_json_is_rejected_if_credentials_are_required(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security='shared_key = "k3y"') as site, site.connected() as peer:
        await peer.value()
        await peer.send(b'["t", 1, {}, {"chunk": "c"}]')
        assert (await peer.value())[:3] == [b"PONG", False, b"invalid ping message"]
        assert await peer.closed() == b""
        assert not site.chunks


@pytest.mark.parametrize(
    "broken", [b'{"a": 1}', b'["t", 1, {}] x', b'["t", 1]', b'["t", 1, {]}', b"[" * 9999]
)
async def test_broken_json_ends_its_connection_alone(tmp_path: Path, broken: bytes) -> None:
    async with forward_site(tmp_path) as site, site.connected() as other, site.connected() as peer:
        await peer.send(broken)
        assert await peer.closed() == b""
        assert await other.acked(packed("t", EVENT, chunk="c")) == b"c"


# Timeouts


async def test_one_byte_at_a_time_is_too_slow(tmp_path: Path) -> None:
    async with forward_site(tmp_path, message_timeout_s=0.2, message_bytes_per_s=MIB) as site:
        async with site.connected() as slow, site.connected() as honest:
            dripping = asyncio.ensure_future(drip(slow, packed("t", EVENT * 1000, chunk="slow")))
            while not (slow.reader.at_eof() or slow.reader.exception()):
                assert await honest.acked(packed("t", EVENT, chunk="c")) == b"c"
                await asyncio.sleep(0.01)
            dripping.cancel()
        assert site.telemetry.timeouts_by_kind == {"message": 1}
        assert {chunk.chunk_id for chunk in site.chunks} == {b"c"}


async def drip(peer: Peer, data: bytes) -> None:
    reading = asyncio.ensure_future(peer.closed())
    for at in range(len(data)):
        if reading.done():
            return
        peer.writer.write(data[at : at + 1])
        await asyncio.sleep(0.005)


async def test_a_large_message_has_time_by_its_size(tmp_path: Path) -> None:
    # 64 KiB/s asked: 40 KiB that have come buy 0.6 s over the 0.1 s that a message has at least.
    async with (
        forward_site(tmp_path, message_timeout_s=0.1, message_bytes_per_s=64 * KIB) as site,
        site.connected() as peer,
    ):
        message = packed("t", EVENT * 2000, chunk="c")
        await peer.send(message[: 40 * KIB])
        await asyncio.sleep(0.3)
        assert await peer.acked(message[40 * KIB :]) == b"c"


async def test_who_rests_is_ended_and_who_waits_for_an_ack_is_not(tmp_path: Path) -> None:
    async with forward_site(tmp_path, idle_timeout_s=0.2) as site, site.connected() as resting:
        assert await resting.acked(packed("t", EVENT, chunk="c")) == b"c"
        assert await resting.closed() == b""
        assert not site.telemetry.timeouts_by_kind, "an idle connection is not a timeout"


async def test_who_never_reads_its_acks_is_not_read_any_more_and_ended(tmp_path: Path) -> None:
    async with forward_site(tmp_path, message_timeout_s=0.3) as site, site.connected() as deaf:
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        one = packed("t", EVENT, chunk="c" * 200)
        with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012 -- it writes until it is cut off
            while True:
                await deaf.send(one * 1000)
        assert site.telemetry.timeouts_by_kind["reading its acks"] == 1


# Hostile peers, and memory


HOSTILE = {
    "4 GiB bin header": b"\x92\xa1t\xc6\xff\xff\xff\xff",
    "array32 of 2^32-1": b"\xdd\xff\xff\xff\xff",
    "Forward mode of 2^32-1 entries": b"\x92\xa1t\xdd\xff\xff\xff\xff",
    "broken 100,000 deep": b"\x92\xa1t\x91\x92\x00" + b"\x91" * 100_000 + b"\xc1",
    "record broken 100,000 deep": b"\x93\xa1t\x00" + b"\x81\xa1a" * 100_000 + b"\xc1",
    "garbage": bytes(range(256)) * 100,
}


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_bytes_cost_one_connection_and_little_memory(tmp_path: Path, attack: bytes) -> None:
    async with forward_site(tmp_path, message_timeout_s=0.3) as site, site.connected() as honest:
        before = resident_bytes()
        for _ in range(5):
            async with site.connected() as hostile:
                await hostile.send(attack)
                assert await hostile.closed() == b""
                assert await honest.acked(packed("t", EVENT, chunk="c")) == b"c"
        grown = resident_bytes() - before
        print(f"resident memory grew by {grown / MIB:.1f} MiB")
        assert grown < 24 * MIB


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_a_bomb_is_rejected_and_others_are_served(tmp_path: Path, compression: str) -> None:
    size = 1 << 30
    piece = bytes(16 * MIB)
    bomb = b"".join(
        [gzip.compress(piece) if compression == "gzip" else zstd.compress(piece)] * (size // len(piece))
    )
    async with forward_site(tmp_path) as site, site.connected() as honest, site.connected() as hostile:
        before = resident_bytes()
        assert await hostile.acked(packed("t", bomb, chunk="bomb", compressed=compression)) == b"bomb"
        assert await honest.acked(packed("t", EVENT, chunk="c")) == b"c"
        grown = resident_bytes() - before
        print(
            f"{len(bomb) / KIB:.0f} KiB that unpack to 1 GiB: resident memory grew by {grown / MIB:.1f} MiB"
        )
        assert site.telemetry.rejected_by_code == {"too-large": 1}
        assert grown < 64 * MIB


async def test_many_large_messages_at_once_take_no_more_than_the_budget(tmp_path: Path) -> None:
    """200 peers announce 30 MiB each and stop in the middle; small messages pass, and each is ended."""
    announced = b"\x93\xa1t\xc6" + struct.pack(">I", 30 * MIB) + bytes(8 * KIB)
    async with forward_site(tmp_path, message_timeout_s=1.0) as site, site.connected() as honest:
        before = resident_bytes()
        peers: list[Peer] = []
        for _ in range(200):
            reader, writer = await asyncio.open_connection(site.host, site.port)
            peers.append(Peer(reader, writer))
            await peers[-1].send(announced)
            assert await honest.acked(packed("t", EVENT, chunk="c")) == b"c"
        await site.until(lambda: site.telemetry.connections == 201)
        grown = resident_bytes() - before
        admitted = site.gateway.budget.receiving.used_bytes
        print(f"6000 MiB announced, {admitted / MIB:.0f} admitted, memory grew by {grown / MIB:.1f} MiB")
        assert site.gateway.budget.receiving.used_bytes <= 32 * MIB
        assert grown < 80 * MIB
        for peer in peers:
            peer.writer.transport.abort()
        await site.until(lambda: site.gateway.budget.receiving.used_bytes == 0)


async def test_large_messages_over_the_budget_wait_for_their_turn_and_all_arrive(tmp_path: Path) -> None:
    payload = EVENT * (3 * MIB // len(EVENT))
    async with forward_site(tmp_path, pending_bytes=8 * MIB, connection_window_bytes=8 * MIB) as site:

        async def send(number: int) -> None:
            async with site.connected() as peer:
                message = packed("t", payload, chunk=f"{number}")
                for at in range(0, len(message), 300_000):
                    await peer.send(message[at : at + 300_000])
                    await asyncio.sleep(0)
                assert await peer.value() == {b"ack": f"{number}".encode()}

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(send(number))
        assert len(site.chunks) == 20
        assert site.gateway.budget.receiving.used_bytes == 0


async def test_resting_connections_keep_little(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site:
        peers = []
        message = packed("t", EVENT * 5000, chunk="c")
        for _ in range(200):
            reader, writer = await asyncio.open_connection(site.host, site.port)
            peers.append(Peer(reader, writer))
            assert await peers[-1].acked(message) == b"c"
        kept = rest(site)
        await site.until(lambda: rest(site) <= 200 * 4 * KIB)
        print(
            f"{kept / 200 / KIB:.0f} KiB a connection after its message, {rest(site) / 200 / KIB:.0f} at rest"
        )
        for peer in peers:
            peer.writer.transport.abort()


@pytest.mark.parametrize("security", [None, 'shared_key = "a key that no peer sends"'])
async def test_a_silent_connection_leaves_nothing_that_waits_for_the_garbage_collector(
    tmp_path: Path, security: str | None
) -> None:
    async with forward_site(tmp_path, security=security) as site:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                async with site.connected():
                    await site.until(lambda: site.telemetry.connections == 1)
                await site.until(lambda: site.telemetry.connections == 0)
            assert not [each for each in gc.get_objects() if isinstance(each, ForwardConnection)]
        finally:
            gc.enable()


def rest(site: ForwardSite) -> int:
    readers = [connection._reader for connection in site.server._connections]
    return sum(len(reader._buffer) for reader in readers if isinstance(reader, MessageReader))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_settings_have_bounds_for_all_of_it() -> None:
    settings = GatewaySettings()
    assert settings.handshake_timeout_s < settings.message_timeout_s < settings.idle_timeout_s


async def test_a_flood_of_tiny_messages_leaves_others_their_turns(tmp_path: Path) -> None:
    """Work is counted, not time: how many of the flood are taken in between two acks of a neighbour."""
    async with forward_site(tmp_path) as site, site.connected() as flood, site.connected() as neighbour:
        flood.writer.write(b"\x92\xa1t\xa0" * 20_000)
        most, before = 0, 0
        while len(site.chunks) < 20_000:
            assert await neighbour.acked(packed("t", EVENT, chunk="id")) == b"id"
            most, before = max(most, len(site.chunks) - before), len(site.chunks)
        assert most <= 10 * MESSAGES_A_TURN
