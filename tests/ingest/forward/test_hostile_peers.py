"""Unauthenticated clients and clients of other protocols must not impair other clients."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.config import GatewaySettings, Settings
from windvane.errors import FramingError
from windvane.ingest.chunk import charge
from windvane.ingest.forward.json_events import MAX_JSON_MESSAGE_BYTES, JsonReader
from windvane.runtime.rate_limited_log import RateLimitedLog

from tests.ingest.forward.forward_site import forward_site, packed
from tests.ingest.test_gateway import EVENT, running

MIB = 1024 * 1024


async def test_bytes_that_are_announced_and_not_sent_take_no_room(tmp_path: Path) -> None:
    """One peer names the largest message there may be, and says no more; the budget is as large."""
    announced = b"\x93\xa1t\xc6" + struct.pack(">I", 32 * MIB - 10)
    large = packed("t", EVENT * (2 * MIB // len(EVENT)), chunk="large")
    async with forward_site(tmp_path) as site, site.connected() as silent, site.connected() as honest:
        await silent.send(announced)
        await site.until(lambda: site.telemetry.connections == 2)
        for at in range(0, len(large), 200_000):
            await honest.send(large[at : at + 200_000])
            await asyncio.sleep(0.001)
        assert await honest.value() == {b"ack": b"large"}


async def test_a_client_that_holds_room_for_which_others_wait_must_keep_sending(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "pending_bytes": 2 * MIB,
        "max_message_bytes": MIB,
        "handshake_timeout_s": 0.4,
    }
    half = b"\x93\xa1t\xc6" + struct.pack(">I", MIB - 100) + bytes(MIB * 3 // 4)
    large = packed("t", EVENT * (MIB * 3 // 4 // len(EVENT)), chunk="large")
    async with (
        forward_site(tmp_path, **settings) as site,
        site.connected() as stalled,
        site.connected() as honest,
    ):
        await stalled.send(half)
        await site.until(lambda: site.gateway.budget.receiving.used_bytes > MIB // 2)
        for at in range(0, len(large), 50_000):
            honest.writer.write(large[at : at + 50_000])
            await asyncio.sleep(0.001)
        assert await honest.value() == {b"ack": b"large"}
        assert await stalled.closed() == b""


async def test_a_remote_client_cannot_use_a_name_that_the_kernel_assigns(tmp_path: Path) -> None:
    async with forward_site(tmp_path, security='shared_key = "key"') as site, site.connected() as peer:
        assert (await peer.shake_hands(b"key", hostname=b"unix:root"))[1] is False
        assert await peer.closed() == b""


def test_the_id_that_an_ack_repeats_counts_for_the_window() -> None:
    assert charge(b"abc", b"x" * 60_000) >= 60_003


async def test_a_tag_that_is_not_text_is_a_bad_tag_and_not_retried(tmp_path: Path) -> None:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        reader, writer = await asyncio.open_unix_connection(site.settings.run_dir / "gateway.sock")
        writer.write(
            b"POST /ingest/t HTTP/1.1\r\nHost: x\r\nFluent-Tag: a\xff\r\nContent-Length: %d\r\n\r\n"
            % len(EVENT)
            + EVENT
        )
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        assert (await site.kept_letter()).code == "bad-tag"


@pytest.mark.parametrize("seconds", [-1, 2**40])
async def test_an_event_whose_time_no_event_can_have_is_rejected(tmp_path: Path, seconds: int) -> None:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("t")
        body = msgpack.packb({"date": msgpack.Timestamp(seconds), "a": 1})
        headers = {"Content-Type": "application/msgpack"}
        async with (
            site.http() as http,
            http.post("/ingest/t?reference=t&time_key=date", data=body, headers=headers) as answer,
        ):
            assert (answer.status, (await answer.json())["code"]) == (422, "invalid-event")


async def test_a_body_that_drips_is_given_up_and_its_room_is_free(tmp_path: Path) -> None:
    patience = GatewaySettings(message_timeout_s=0.3, message_bytes_per_s=1_000_000)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=patience)) as site:
        await site.policy("t")
        given_up = asyncio.Event()

        async def drips() -> AsyncIterator[bytes]:
            while not given_up.is_set():
                yield b" "
                await asyncio.sleep(0.02)

        async with site.http() as http, http.post("/ingest/t?reference=t", data=drips()) as answer:
            assert answer.status == 408
            given_up.set()


async def test_a_stop_does_not_wait_for_a_body_that_never_ends(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(30),  # and not for as long as a body may take
        running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site,
    ):
        _, writer = await asyncio.open_unix_connection(site.settings.run_dir / "gateway.sock")
        writer.write(b"POST /ingest/t?reference=t HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        await writer.drain()
        async with site.http() as http, http.get("/status") as answer:  # the other one is in by then
            assert answer.status == 200


def filled(reader: JsonReader, size: int) -> None:
    for _ in range(size // 60_000 + 2):
        room = reader.writable()
        room[:60_000] = b"x" * 60_000
        reader.received(60_000)
        list(reader.messages())


def test_json_is_decoded_a_little_at_a_time() -> None:
    reader = JsonReader(b'["t", 1, {"a": "', max_message_bytes=32 * MIB)
    with pytest.raises(FramingError, match="or msgpack"):
        filled(reader, MAX_JSON_MESSAGE_BYTES)


def test_who_makes_up_names_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog(logging.getLogger("windvane.test"))
    with caplog.at_level(logging.WARNING):
        for number in range(10_000):
            log.write(("no-policy", str(number)), lambda: "unknown tag")
    assert len(caplog.records) == 200
