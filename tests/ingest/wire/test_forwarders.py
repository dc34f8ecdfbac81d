"""What real forwarders send and demand: each observed statement, and the tests that hold us to it.

The statements were seen on loopback with fluentd 1.19.3, Fluent Bit 5.1.1, @fluent-org/logger 1.0.10 and
fluent-logger 0.11.1. A test is named as `module::test` below `tests/`, a fixture by its name; a statement
about the others alone has none.
"""

import ast
import gzip
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgpack
import pytest
from windvane.config import GatewaySettings

from tests.ingest.forward.forward_site import packed, ping
from tests.ingest.wire.well_formed import FIRST, FLUENT_BIT, FLUENTD, LOGGERS, PROTOCOL
from tests.ingest.wire.wire_site import WireSite, wire_site
from tests.waiting import until

TESTS = Path(__file__).resolve().parents[2]
HERE, SYSTEM = "ingest/wire/test_forwarders", "system"

STATEMENTS: dict[str, tuple[str, ...]] = {
    # fluentd out_forward
    "fluentd: PackedForward, payload always str32, also when compressed; binary values inside are bin": (
        "fluentd: PackedForward typed str32, text",
        "fluentd: PackedForward typed str32, a gzip member for each emit",
    ),
    "fluentd: options size, compressed and chunk; chunk is 24 base64 characters and a newline": (
        "fluentd: PackedForward typed str32, text",
        "ingest/wire/test_combinations::test_every_combination_is_taken",
    ),
    "fluentd: gzip and zstd payloads are concatenated members, one per emit": (
        "fluentd: PackedForward typed str32, a zstd frame for each emit",
        f"{HERE}::test_fluentd_writes_a_gzip_member_for_each_emit",
    ),
    "fluentd: a connection per chunk, and an empty one every second as heartbeat": (
        f"{HERE}::test_fluentd_comes_with_a_connection_for_each_chunk",
        "ingest/forward/test_forward::test_connections_without_a_word_are_heartbeats_of_fluentd",
    ),
    "fluentd: with TLS 1.2 a full handshake each time": (
        "ingest/security/test_tls::test_fluentd_comes_with_tls_1_2_and_a_new_connection_for_each_chunk",
    ),
    "fluentd: one unacked chunk per socket; then the same bytes with the same chunk id": (
        f"{HERE}::test_fluentd_sends_the_same_bytes_again_on_a_new_socket",
        "a retransmission is acked again and stored once",
    ),
    "fluentd: the hostname in PONG must differ from the client's": (
        "ingest/forward/test_handshake::test_the_hostname_in_pong_differs_from_the_clients",
    ),
    # Fluent Bit out_forward
    "Fluent Bit: Forward mode by default, no options, up to 2 MB and 20,000 entries a message": (
        f"{HERE}::test_fluent_bit_sends_twenty_thousand_entries_at_once",
    ),
    "Fluent Bit: entries are [[EventTime, {}], record]": (
        "Fluent Bit: Forward mode, entries of protocol 1.5 in an array16, no option",
        "Fluent Bit: entries whose metadata is not empty",
    ),
    "Fluent Bit: with options a map32 with fluent_signal; without metadata each entry is array32": (
        "Fluent Bit: options in a map32, entries without metadata in arrays of 32 bits",
    ),
    "Fluent Bit: gzip gives PackedForward typed bin, one member": ("Fluent Bit: gzip, one member typed bin",),
    "Fluent Bit: sends no zstd, and can receive it": (),  # theirs alone
    "Fluent Bit: chunk is 24 characters from a hash of the content, equal on retry": (
        f"{HERE}::test_fluent_bit_gives_equal_content_an_equal_id",
    ),
    "Fluent Bit: a new connection per flush, which stays open": (
        f"{HERE}::test_connections_of_fluent_bit_stay_open_and_are_ended_when_they_rest",
    ),
    "Fluent Bit: metrics and traces have fluent_signal 1 or 2 and hold no events": (
        "Fluent Bit: metrics are PackedForward typed bin with fluent_signal 1",
        "Fluent Bit: traces have fluent_signal 2",
    ),
    "Fluent Bit: the salt in PING is 16 raw bytes typed str": (
        "ingest/forward/test_handshake::test_over_a_socket_messages_follow_the_handshake_and_carry_the_identity",
    ),
    "Fluent Bit: a tag from a record accessor gives 4-element Message mode, acked one by one": (
        "Fluent Bit: a tag of a record accessor gives 4-element Message mode",
        f"{HERE}::test_single_events_are_acked_one_by_one",
    ),
    # The loggers
    "@fluent-org/logger: PackedForward typed bin8, bin16 or bin32, integer seconds": (
        "@fluent-org/logger: PackedForward typed bin8, integer seconds",
        "@fluent-org/logger: the same typed bin16",
        "@fluent-org/logger: the same typed bin32",
        f"{SYSTEM}/test_real_clients::test_fluent_org_logger_of_node_with_acks",
    ),
    "@fluent-org/logger: several chunks before it reads an ack": (
        "@fluent-org/logger: several chunks before it reads an ack",
    ),
    "@fluent-org/logger: a retry has a new chunk id": (
        "ingest/test_policies::test_by_content_a_repetition_is_known_whatever_its_id",
    ),
    "fluent-logger: 3-element Message mode, integer seconds": (
        "fluent-logger: 3-element Message mode, integer seconds",
        f"{SYSTEM}/test_real_clients::test_fluent_logger_of_python",
    ),
    # What they demand
    "HELO, PONG and each ack come in one TCP segment": (
        "ingest/forward/test_handshake::test_helo_pong_and_ack_each_come_in_one_piece",
    ),
    "The ack is a map with the value typed str, byte for byte what came": (
        "ingest/test_gateway::test_the_ack_echoes_any_bytes_typed_str",
        "a chunk id typed bin is echoed typed str",
    ),
    "A nonce typed bin in HELO works with all": (
        "ingest/forward/test_handshake::test_helo_has_a_nonce_typed_bin_and_an_empty_salt_without_users",
    ),
    "Over its limit Fluent Bit resets the connection; ours keeps the head of the message and closes": (
        "ingest/test_gateway::test_a_message_over_the_limit_closes_its_connection_and_its_head_is_kept",
        f"{HERE}::test_the_limit_is_above_that_of_fluent_bit",
    ),
    "fluentd drops Fluent Bit's metadata entries, Fluent Bit and Node disagree on a key; we accept all": (
        "Fluent Bit: entries whose metadata is not empty",
        f"{HERE}::test_a_salt_typed_str_or_bin_and_a_digest_of_either_are_understood",
        f"{SYSTEM}/test_secure_clients::test_fluent_org_logger_of_node_with_authentication_tls_and_acks",
    ),
    "What was acked survives a kill": (f"{SYSTEM}/test_crashes::test_twenty_kills_change_nothing",),
}


def test_every_statement_has_its_test() -> None:
    fixtures = {fixture.name for fixture in [*FLUENTD, *FLUENT_BIT, *LOGGERS, *PROTOCOL]}
    missing = [
        name
        for names in STATEMENTS.values()
        for name in names
        if name not in fixtures and name.partition("::")[2] not in names_in(name.partition("::")[0])
    ]
    assert missing == []


def names_in(module: str) -> set[str]:
    path = TESTS / f"{module}.py"
    nodes = ast.walk(ast.parse(path.read_text())) if path.exists() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WireSite]:
    async with wire_site(tmp_path) as site:
        yield site


async def test_fluentd_writes_a_gzip_member_for_each_emit(site: WireSite) -> None:
    payload = gzip.compress(FIRST) * 220
    message = b"\x93\xa1t\xdb" + struct.pack(">I", len(payload)) + payload
    message += msgpack.packb({"size": 220, "compressed": "gzip", "chunk": "A" * 24 + "\n"})
    async with site.forward.connected() as peer:
        assert await peer.acked(message) == b"A" * 24 + b"\n"
    [stored] = site.taken()[0]
    assert (stored.payload, stored.events) == (FIRST * 220, 220)


async def test_fluentd_comes_with_a_connection_for_each_chunk(site: WireSite) -> None:
    for number in range(50):
        async with site.forward.connected():
            pass
        async with site.forward.connected() as peer:
            assert await peer.acked(packed("t", FIRST, chunk=f"{number}")) == f"{number}".encode()
    assert len(site.taken()[0]) == 50
    await until(lambda: not site.forward.telemetry.connections)


async def test_fluentd_sends_the_same_bytes_again_on_a_new_socket(site: WireSite) -> None:
    """The ack was lost: the connection broke before it was read."""
    message = packed("t", FIRST, size=1, chunk="A" * 24 + "\n")
    async with site.forward.connected() as peer:
        await peer.send(message)
        await until(lambda: site.stored)
    async with site.forward.connected() as peer:
        assert await peer.acked(message) == b"A" * 24 + b"\n"
    assert len(site.taken()[0]) == 1


async def test_fluent_bit_sends_twenty_thousand_entries_at_once(site: WireSite) -> None:
    entry = b"\x92\x92" + FIRST[1:11] + b"\x80" + msgpack.packb({"log": "x" * 100})
    assert 20_000 * len(entry) > 2_000_000
    async with site.forward.connected() as peer:
        await peer.send(b"\x92\xa1t\xdc" + struct.pack(">H", 20_000) + entry * 20_000)
        assert await peer.acked(packed("t", FIRST, chunk="c")) == b"c"
        await site.forward.until(lambda: len(site.stored) == 2)
    sizes = sorted((chunk.events, len(chunk.payload)) for chunk in site.taken()[0])
    assert sizes == [(1, len(FIRST)), (20_000, 20_000 * len(entry))]


async def test_fluent_bit_gives_equal_content_an_equal_id(site: WireSite) -> None:
    """A retry is known by it; so is, alas, equal content in another stream, which the tag keeps apart."""
    async with site.forward.connected() as peer:
        for tag in ("t", "t", "t2"):
            assert await peer.acked(packed(tag, FIRST, chunk="f" * 24)) == b"f" * 24
    assert sorted(chunk.tag for chunk in site.taken()[0]) == ["t", "t2"]


async def test_connections_of_fluent_bit_stay_open_and_are_ended_when_they_rest(tmp_path: Path) -> None:
    async with wire_site(tmp_path, idle_timeout_s=0.5) as site:
        async with AsyncExitStack() as opened:
            peers = []
            for number in range(101):
                peers.append(await opened.enter_async_context(site.forward.connected()))
                assert await peers[-1].acked(packed("t", FIRST, chunk=f"{number}")) == f"{number}".encode()
            for peer in peers:
                assert await peer.closed() == b""
        assert len(site.taken()[0]) == 101


async def test_single_events_are_acked_one_by_one(site: WireSite) -> None:
    single = b"\x94\xa1t" + FIRST[1:]
    async with site.forward.connected() as peer:
        await peer.send(b"".join(single + msgpack.packb({"chunk": f"{number}"}) for number in range(100)))
        acked = [(await peer.value())[b"ack"] for _ in range(100)]
    assert sorted(acked, key=int) == [f"{number}".encode() for number in range(100)]
    assert len(site.taken()[0]) == 100


def test_the_limit_is_above_that_of_fluent_bit() -> None:
    assert GatewaySettings().max_message_bytes > 6_144_000


@pytest.mark.parametrize("string_type", ["str", "bin"])
async def test_a_salt_typed_str_or_bin_and_a_digest_of_either_are_understood(
    tmp_path: Path, string_type: str
) -> None:
    async with wire_site(tmp_path, security='shared_key = "k3y"') as site, site.forward.connected() as peer:
        _, options = await peer.value()
        message = ping(options, b"k3y", salt=bytes(range(0x80, 0x90)))
        if string_type == "bin":
            message = message.replace(b"\xd9", b"\xc4")  # no other byte of it is a d9
        await peer.send(message)
        assert (await peer.value())[:2] == [b"PONG", True]
