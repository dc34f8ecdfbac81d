"""Each cause has its line in the log, under the name of its sender; no sender fills the log."""

import asyncio
import base64
import gzip
import logging
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.config import Settings
from windvane.ingest.instrumentation import HandshakeFailed
from windvane.runtime import rate_limited_log
from windvane.runtime.rate_limited_log import RateLimitedLog

from tests.ingest.forward.forward_site import EVENT, Authority, forward_site, packed
from tests.ingest.forward.test_withheld_acks import policy
from tests.ingest.security.test_tls import gateway_files, trusting
from tests.ingest.test_gateway import running

USERS = 'shared_key = "k3y"\n[[user]]\nname = "north"\npassword = "p1"\n'
NUMBER = {"type": "record", "name": "R", "fields": [{"name": "kw", "type": "double"}]}


def lines(caplog: pytest.LogCaptureFixture, containing: str = "") -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in said if containing in line]


async def test_each_cause_of_one_address_has_its_line_with_the_hostname(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[dict[str, Any]] = [
        {"key": b"k3y", "user": b"north", "password": b"wrong"},
        {"key": b"wrong", "user": b"north", "password": b"p1"},
        {"key": b"k3y", "user": b"south", "password": b"p1"},
        {"key": b"k3y"},
    ]
    async with forward_site(tmp_path, security=USERS) as site:
        for how in attempts * 3:
            async with site.connected() as peer:
                assert (await peer.shake_hands(hostname=b"t07", **how))[1] is False
        for begun in (b"GET / HTTP/1.1\r\n", packed("t", EVENT), b"GET /again HTTP/1.1\r\n"):
            async with site.connected() as peer:
                await peer.value()
                await peer.send(begun)
                assert (await peer.value())[1] is False
    assert len(lines(caplog)) == len(attempts) + 2
    for said in ("has another password", "has another shared key", "no user 'south'", "gives no user"):
        [line] = lines(caplog, said)
        assert "127.0.0.1: hostname 't07': " in line


async def test_turbines_behind_one_address_have_a_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path, security=USERS) as site:
        for hostname in (b"t07", b"t08", b"t07"):
            async with site.connected() as peer:
                await peer.shake_hands(b"wrong", hostname=hostname)
    assert (len(lines(caplog, "'t07'")), len(lines(caplog, "'t08'"))) == (1, 1)


async def test_the_schema_of_one_policy_does_not_hide_that_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path, security=USERS) as site, site.connected() as peer:
        await policy(site, "power", tags=["power.**"], schema=NUMBER)
        await policy(site, "wind", tags=["wind.**"], schema=NUMBER)
        await peer.shake_hands(b"k3y", hostname=b"t07", user=b"north", password=b"p1")
        for number in range(3):
            for tag in ("power.t07", "wind.t07"):
                chunk = f"{tag} {number}"
                assert await peer.acked(packed(tag, EVENT, chunk=chunk)) == chunk.encode()
    assert len(lines(caplog)) == 2
    for tag in ("power.t07", "wind.t07"):
        [line] = lines(caplog, tag)
        assert "identity 'north', hostname 't07'" in line


@pytest.mark.parametrize("size", [10, 20_000], ids=["small", "large"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_the_log_names_the_missing_key_whatever_a_client_sends_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int, tls: bool
) -> None:
    noise = random.Random(1).randbytes(size)
    record = msgpack.packb([1, {"message": noise}])
    first_messages = [
        packed("t", record, chunk="c"),
        packed("t", gzip.compress(record), compressed="gzip", chunk="c"),
        msgpack.packb(["t", [[1, {"message": noise}]]]),
        msgpack.packb(["t", 1, {"message": noise}, {"chunk": "c"}]),
        packed("t", record, chunk="c")[:9],  # the rest never comes
    ]
    authority = Authority(tmp_path)
    files = gateway_files(authority) if tls else {}
    how = trusting(authority) if tls else {}
    async with forward_site(tmp_path, security=USERS, **files) as site:
        for number, message in enumerate(first_messages, 1):
            async with site.connected(**how) as peer:
                await peer.value()
                await peer.send(message)
                assert (await peer.value())[1] is False
            assert site.telemetry.handshakes_failed_total == number
    [line] = lines(caplog)
    assert "without a handshake; give it the shared key" in line
    assert "TLS" not in line


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "it speaks TLS, which this port does not"),
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP"),
        (b'["t", 1, {}]', "JSON without a handshake"),
        (b"\x96\xa4PING\xc1", "PING is not well-formed"),
        (b"SSH-2.0-OpenSSH", "not the forward protocol"),
    ],
)
async def test_what_else_comes_is_called_what_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes, said: str
) -> None:
    async with forward_site(tmp_path, security=USERS) as site, site.connected() as peer:
        await peer.value()
        await peer.send(sent)
        assert (await peer.value())[1] is False
    assert said in lines(caplog)[0]


async def test_tls_on_a_plain_port_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with forward_site(tmp_path) as site, site.connected() as peer:
        await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        assert await peer.closed() == b""
        await site.until(lambda: lines(caplog))
    assert "TLS does, which this port does not speak" in lines(caplog)[0]


async def test_no_tls_on_a_tls_port_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with forward_site(tmp_path, **gateway_files(Authority(tmp_path))) as site:
        async with site.connected() as peer:
            await peer.send(packed("t", EVENT, chunk="c"))
            await peer.closed()
        await site.until(lambda: lines(caplog))
    assert "does not speak TLS; turn TLS on" in lines(caplog)[0]


async def test_over_http_the_user_that_was_tried_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "forward-security.toml"
    path.touch(0o600)
    path.write_text(USERS)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site, site.http() as http:
        for user in ("north", "south", "north"):
            async with http.post(
                "/ingest/t?reference=t", data=EVENT, headers={"Authorization": basic(user, "wrong")}
            ) as answer:
                assert answer.status == 401
    assert (len(lines(caplog, "'north'")), len(lines(caplog, "'south'"))) == (1, 1)
    assert "wrong'" not in caplog.text


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_invented_names_leave_room_for_other_log_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limited_log, "MAX_LINES_OF_A_SOURCE", 5)
    async with forward_site(tmp_path, security=USERS) as site:
        for number in range(20):
            async with site.connected() as peer:
                await peer.shake_hands(b"wrong", hostname=f"made-up-{number}".encode())
        assert len(lines(caplog, "made-up")) == 5
        site.telemetry.emit(HandshakeFailed(sender="10.0.0.7", cause="wrong key", detail="honest"))
    assert len(lines(caplog, "10.0.0.7")) == 1


def test_the_keys_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limited_log, "MAX_LINES", 100_000)
    log = RateLimitedLog(logging.getLogger("windvane.test"))
    for number in range(2 * rate_limited_log.MAX_KEYS):
        log.write(("cause", str(number)), lambda: "line")
    assert len(log._logged) == rate_limited_log.MAX_KEYS


async def test_two_causes_of_the_bus_have_a_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path) as site:
        for _ in range(3):
            site.telemetry.bus_unavailable(ConnectionError("no broker answers"))
            site.telemetry.bus_unavailable(ValueError("a chunk that cannot be encoded"))
        await asyncio.sleep(0)
    assert len(lines(caplog, "not acking")) == 2
