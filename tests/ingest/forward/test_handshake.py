"""Clients with the key and the password are admitted; other clients are not, nor learn what was wrong."""

import logging
import secrets
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import HandshakeFailed
from windvane.ingest.forward.handshake import (
    MAX_HANDSHAKE_BYTES,
    ClientCredentials,
    ClientHandshake,
    ServerHandshake,
    Verdict,
)
from windvane.ingest.security.settings import ForwardSecurity, parse_security

from tests.ingest.forward.forward_site import EVENT, forward_site, packed, ping, write_security

KEYED = 'shared_key = "k3y"\nhostname = "gateway.park"\n'
USERS = KEYED + '[[user]]\nname = "north"\npassword = "p1"\n[[user]]\nname = "süd"\npassword = "p2"\n'


def helo_of(handshake: ServerHandshake) -> dict[bytes, bytes]:
    name, options = msgpack.unpackb(handshake.hello(), raw=True)
    assert name == b"HELO"
    assert options[b"keepalive"] is True
    return dict(options)


def answer(
    security: ForwardSecurity, address: str = "10.1.2.3", key: bytes = b"k3y", **how: bytes
) -> Verdict:
    handshake = ServerHandshake(security, address=address)
    verdict = handshake.receive(ping(helo_of(handshake), key, **how))
    assert verdict is not None
    return verdict


def test_helo_has_a_nonce_typed_bin_and_an_empty_salt_without_users() -> None:
    handshake = ServerHandshake(parse_security(KEYED), address="10.1.2.3", nonce=b"n" * 16)
    assert handshake.hello() == (
        b"\x92\xa4HELO\x83" + b"\xa5nonce\xc4\x10" + b"n" * 16 + b"\xa4auth\xa0" + b"\xa9keepalive\xc3"
    )
    with_users = ServerHandshake(parse_security(USERS), address="10.1.2.3", salt=b"s" * 16)
    assert b"\xa4auth\xc4\x10" + b"s" * 16 in with_users.hello()


def test_two_connections_have_two_nonces() -> None:
    first, second = (ServerHandshake(parse_security(USERS), address="::1") for _ in range(2))
    for name in (b"nonce", b"auth"):
        assert helo_of(first)[name] != helo_of(second)[name]
    assert (verdict := second.receive(ping(helo_of(first), b"k3y", user=b"north", password=b"p1")))
    assert verdict.admitted is None


def test_who_knows_the_key_is_admitted_by_hostname_and_gets_the_proof_back() -> None:
    handshake = ServerHandshake(parse_security(KEYED), address="10.1.2.3", nonce=b"n" * 16)
    sent = ping(helo_of(handshake), b"k3y", hostname=b"t07")
    verdict = handshake.receive(sent + b"next message")
    assert verdict is not None
    assert verdict.admitted is not None
    assert (verdict.admitted.identity, verdict.consumed) == ("t07", len(sent))
    pong, accepted, reason, hostname, proof = msgpack.unpackb(verdict.pong)
    assert (pong, accepted, reason, hostname) == ("PONG", True, "", "gateway.park")
    assert proof == ping({b"nonce": b"n" * 16}, b"k3y", hostname=b"gateway.park")[-132:-4].decode()


def test_the_hostname_in_pong_differs_from_the_clients() -> None:
    verdict = answer(parse_security(KEYED), hostname=b"gateway.park")
    _, accepted, _, hostname, _ = msgpack.unpackb(verdict.pong)
    assert accepted
    assert hostname not in ("gateway.park", "")


def test_a_user_is_admitted_by_name() -> None:
    assert (north := answer(parse_security(USERS), user=b"north", password=b"p1").admitted)
    assert north.identity == "north"
    assert (south := answer(parse_security(USERS), user="süd".encode(), password=b"p2").admitted)
    assert south.identity == "süd"


LIMITED = """
shared_key = "k3y"
others = false
[[user]]
name = "north"
password = "p1"
[[user]]
name = "south"
password = "p2"
[[client]]
hostname = "t07"
networks = ["10.7.0.0/16", "fd00::/8"]
shared_key = "own"
users = ["north"]
[[client]]
networks = ["10.8.0.0/16"]
[[client]]
networks = ["10.8.8.0/24"]
shared_key = "narrow"
"""


@pytest.mark.parametrize(
    ("address", "hostname", "key", "user"),
    [
        ("10.7.0.1", b"t07", b"own", b"north"),
        ("::ffff:10.7.0.1", b"t07", b"own", b"north"),  # an IPv4 peer on an IPv6 socket
        ("fd00::1%eth0", b"t07", b"own", b"north"),
        ("10.8.1.1", b"any", b"k3y", b"south"),  # the entry has no key of its own
        ("10.8.8.1", b"any", b"narrow", b"south"),  # the narrowest network counts
    ],
)
def test_clients_matching_an_entry_are_admitted(
    address: str, hostname: bytes, key: bytes, user: bytes
) -> None:
    password = {b"north": b"p1", b"south": b"p2"}[user]
    assert answer(
        parse_security(LIMITED), address, key, hostname=hostname, user=user, password=password
    ).admitted


REFUSED = [
    ("10.7.0.1", b"t07", b"k3y", b"north", b"p1", "shared_key mismatch"),  # the common key is not its own
    ("10.8.0.1", b"t07", b"own", b"north", b"p1", "shared_key mismatch"),  # another network
    ("10.8.0.1", b"t07", b"k3y", b"north", b"p1", "shared_key mismatch"),  # the hostname of another client
    ("10.9.0.1", b"any", b"k3y", b"north", b"p1", "shared_key mismatch"),  # others are not admitted
    ("10.8.8.1", b"any", b"k3y", b"north", b"p1", "shared_key mismatch"),
    ("local", b"any", b"k3y", b"north", b"p1", "shared_key mismatch"),
    ("10.8.0.1", b"any", b"k3y", b"north", b"p2", "username/password mismatch"),
    ("10.8.0.1", b"any", b"k3y", b"nobody", b"p1", "username/password mismatch"),
    ("10.8.0.1", b"any", b"k3y", b"", b"", "username/password mismatch"),
    ("10.7.0.1", b"t07", b"own", b"south", b"p2", "username/password mismatch"),  # not from there
]


@pytest.mark.parametrize(("address", "hostname", "key", "user", "password", "reason"), REFUSED)
def test_other_clients_are_rejected(
    address: str, hostname: bytes, key: bytes, user: bytes, password: bytes, reason: str
) -> None:
    verdict = answer(parse_security(LIMITED), address, key, hostname=hostname, user=user, password=password)
    assert verdict.admitted is None
    # The peer learns the protocol's reason and nothing else; no proof, no name.
    assert msgpack.unpackb(verdict.pong) == ["PONG", False, reason, "", ""]
    assert len(reason) < 32, "Fluent Bit copies the reason into 32 bytes"
    for secret in ("k3y", "own", "narrow", "p1", "p2"):
        assert secret not in verdict.detail


@pytest.mark.parametrize(
    "sent",
    [
        packed("t", EVENT),  # a forwarder without a shared key
        b'["t", 1, {}]',
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x96\xa4PING" + b"\x01" * 5,
        b"\x96\xa4PONG" + b"\xa0" * 5,
        b"\x95\xa4PING" + b"\xa0" * 4,
        b"\x96\xa4PING" + b"\xa0" * 5,  # no hostname
        b"\x96\xa4PING\xa3a\nb" + b"\xa0" * 4,
        b"\xc1",
        b"\x96\xdd\xff\xff\xff\xff",
        b"\x91" * 2000,
        b"\x96\xdb\x00\xff\xff\xff" + b"x" * MAX_HANDSHAKE_BYTES,
        b"\x96\x82\x90\x90",
    ],
)
def test_a_message_that_is_not_a_ping_ends_the_handshake(sent: bytes) -> None:
    verdict = ServerHandshake(parse_security(KEYED), address="10.1.2.3").receive(sent)
    assert verdict is not None
    assert verdict.admitted is None
    assert msgpack.unpackb(verdict.pong) == ["PONG", False, "invalid ping message", "", ""]


@given(st.binary(max_size=200))
def test_no_bytes_are_admitted_by_chance_and_none_raise(noise: bytes) -> None:
    for begun in (b"", b"\x96", b"\x96\xa4PING"):
        verdict = ServerHandshake(parse_security(USERS), address="10.1.2.3").receive(begun + noise)
        assert verdict is None or verdict.admitted is None


@given(st.integers(0, 400))
def test_a_ping_that_is_cut_is_waited_for(cut: int) -> None:
    handshake = ServerHandshake(parse_security(KEYED), address="10.1.2.3")
    whole = ping(helo_of(handshake), b"k3y")
    if cut < len(whole):
        assert handshake.receive(whole[:cut]) is None
    assert (verdict := handshake.receive(memoryview(bytearray(whole))))
    assert verdict.admitted


@pytest.mark.parametrize("cut", [1, 7, 1000])
@pytest.mark.parametrize("text", [KEYED, USERS])
def test_our_client_and_our_gateway_know_each_other(text: str, cut: int) -> None:
    server = ServerHandshake(parse_security(text), address="10.1.2.3")
    client = ClientHandshake(ClientCredentials(b"k3y", user="north", password=b"p1", hostname="t07"))
    to_server = b""
    hello = server.hello()
    for at in range(0, len(hello), cut):
        to_server += client.receive(hello[at : at + cut])
    verdict = server.receive(to_server)
    assert verdict is not None
    pong = verdict.pong + b"\x81"
    for at in range(0, len(pong), cut):
        client.receive(pong[at : at + cut])
        if client.done:
            break
    assert client.done
    assert pong.startswith(verdict.pong[: at + cut])
    assert verdict.admitted


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (ClientCredentials(b"other", user="north", password=b"p1", hostname="t07"), "shared_key mismatch"),
        (
            ClientCredentials(b"k3y", user="north", password=b"other", hostname="t07"),
            "username/password mismatch",
        ),
        (ClientCredentials(b"k3y", hostname="t07"), "asks for a user"),
    ],
)
def test_our_client_says_why_it_is_not_admitted(credentials: ClientCredentials, said: str) -> None:
    server = ServerHandshake(parse_security(USERS), address="10.1.2.3")
    client = ClientHandshake(credentials)
    with pytest.raises(HandshakeFailed, match=said):  # noqa: PT012 -- either of the two says it
        verdict = server.receive(client.receive(server.hello()))
        client.receive(verdict.pong if verdict else b"")


def test_our_client_asks_the_receiver_for_proof_too() -> None:
    server = ServerHandshake(parse_security(KEYED), address="10.1.2.3")
    mine = ClientCredentials(b"k3y", hostname="t07")
    client = ClientHandshake(mine)
    client.receive(server.hello())
    with pytest.raises(HandshakeFailed, match="does not know the shared key"):
        client.receive(msgpack.packb(["PONG", True, "", "gateway", "0" * 128]))
    client = ClientHandshake(mine)
    client.receive(server.hello())
    with pytest.raises(HandshakeFailed, match="calls itself t07"):
        client.receive(msgpack.packb(["PONG", True, "", "t07", "0" * 128]))


def test_no_repr_shows_a_secret() -> None:
    security = parse_security(LIMITED)
    admitted = answer(security, "10.8.1.1", b"k3y", user=b"north", password=b"p1").admitted
    shown = repr(security) + repr(admitted) + repr(ClientCredentials(b"own", password=b"p1", hostname="t07"))
    for secret in ("k3y", "own'", "narrow", "p1", "p2"):
        assert secret not in shown


async def test_over_a_socket_messages_follow_the_handshake_and_carry_the_identity(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security=USERS) as site, site.connected() as peer:
        pong = await peer.shake_hands(b"k3y", user=b"north", password=b"p1")
        assert pong[1] is True
        assert await peer.acked(packed("t", EVENT, chunk="a\n")) == b"a\n"
        assert [chunk.identity for chunk in site.chunks] == ["north"]


async def test_helo_pong_and_ack_each_come_in_one_piece(tmp_path: Path) -> None:
    """fluentd and Fluent Bit read once, and do not wait for a second segment."""
    async with forward_site(tmp_path, security=USERS) as site, site.connected() as peer:
        whole = msgpack.unpackb(await peer.reader.read(1024), raw=True)
        assert whole[0] == b"HELO"
        await peer.send(ping(whole[1], b"k3y", user=b"north", password=b"p1"))
        assert msgpack.unpackb(await peer.reader.read(1024))[0] == "PONG"
        await peer.send(packed("t", EVENT, chunk="A" * 24 + "\n"))
        assert await peer.reader.read(1024) == b"\x81\xa3ack\xb9" + b"A" * 24 + b"\n"


async def test_a_message_right_behind_the_ping_is_taken(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security=KEYED) as site, site.connected() as peer:
        _, options = await peer.value()
        await peer.send(ping(options, b"k3y", hostname=b"t07") + packed("t", EVENT, chunk="c"))
        assert (await peer.value())[1] is True
        assert await peer.value() == {b"ack": b"c"}
        assert site.chunks[0].identity == "t07"


async def test_without_a_handshake_nothing_enters_and_the_log_has_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path, security=KEYED) as site:
        with caplog.at_level(logging.WARNING):
            for _ in range(20):
                async with site.connected() as peer:
                    assert (await peer.value())[0] == b"HELO"
                    await peer.send(packed("t", EVENT, chunk="c"))
                    assert (await peer.value())[:3] == [b"PONG", False, b"invalid ping message"]
                    assert await peer.closed() == b""
        assert not site.chunks
        assert site.telemetry.handshakes_failed_total == 20
        assert len(caplog.records) == 1
        assert "give it the shared key" in caplog.text
        assert "k3y" not in caplog.text


async def test_an_endless_handshake_is_ended(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security=KEYED, handshake_timeout_s=0.1) as site:
        async with site.connected() as silent, site.connected() as talking:
            await talking.value()
            await talking.send(b"\x96")
            assert b"HELO" in await silent.closed()
            await talking.closed()
        assert site.telemetry.timeouts_by_kind["handshake"] == 2


async def test_new_secrets_are_in_force_without_a_restart(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security=USERS, handshake_timeout_s=0.4) as site:
        async with site.connected() as north, site.connected() as south:
            await north.shake_hands(b"k3y", user=b"north", password=b"p1")
            await south.shake_hands(b"k3y", user="süd".encode(), password=b"p2")
            write_security(tmp_path, USERS.replace("p1", secrets.token_hex()))
            # A client with a changed password must reconnect; the connections of other clients stay open.
            assert await north.closed() == b""
            assert await south.acked(packed("t", EVENT, chunk="c")) == b"c"
        async with site.connected() as north:
            assert (await north.shake_hands(b"k3y", user=b"north", password=b"p1"))[1] is False


@pytest.mark.parametrize("mistake", ["broken", "gone", "readable"])
async def test_a_mistake_in_the_file_never_opens_the_port(
    tmp_path: Path, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path, security=KEYED, handshake_timeout_s=0.2) as site:
        file = tmp_path / "forward-security.toml"
        if mistake == "broken":
            write_security(tmp_path, 'shared_key = "unended')
        elif mistake == "gone":
            file.unlink()
        else:
            file.chmod(0o644)
        await site.until(lambda: "not taken over" in caplog.text)
        assert "unended" not in caplog.text
        async with site.connected() as peer:
            assert (await peer.shake_hands(b"k3y"))[1] is True


async def test_a_key_that_is_written_while_the_port_is_open_closes_it(tmp_path: Path) -> None:
    async with forward_site(tmp_path, handshake_timeout_s=0.2) as site, site.connected() as before:
        assert await before.acked(packed("t", EVENT, chunk="c")) == b"c"
        write_security(tmp_path, KEYED)
        assert await before.closed() == b""
        async with site.connected() as after:
            assert (await after.value())[0] == b"HELO"
