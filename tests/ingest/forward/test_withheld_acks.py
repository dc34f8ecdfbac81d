"""A sender without an ack timeout, such as Fluent Bit, learns of a withheld ack: its connection ends."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from windvane.config import Settings
from windvane.errors import BusUnavailable, RateExceeded
from windvane.ingest.forward import acks
from windvane.ingest.forward.client import ForwardClient
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.dead_letter import DeadLetterSummary
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.ingest.forward.forward_site import (
    EVENT,
    TIMEOUT_S,
    Authority,
    ForwardSite,
    Peer,
    forward_site,
    packed,
)
from tests.ingest.security.test_tls import gateway_files, trusting

NEVER_S = 10_000.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take seconds happens at once; what must not happen takes for ever."""
    monkeypatch.setattr(acks, "WITHHELD_CLOSE_S", 0.05)
    monkeypatch.setattr(acks, "UNAVAILABLE_CLOSE_S", NEVER_S)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ForwardSite]:
    async with forward_site(tmp_path) as site:
        await policy(site, "closed", allow=[{"identities": ["nobody-here"]}])
        yield site


async def policy(site: ForwardSite, reference: str, **settings: Any) -> None:
    catalog = await Catalog.open(Settings(home=site.home).catalog_url)
    body = policy_to_mapping(policy_from_mapping({"reference": reference, **settings}))
    await catalog.put("policy", reference, body=body)
    await catalog.close()


def letters(site: ForwardSite) -> list[DeadLetterSummary]:
    return SqlDeadLetters(Settings(home=site.home).dead_letter_file).list()


class Outcome:
    """What the bus does with each chunk, as the test says."""

    def __init__(self, site: ForwardSite) -> None:
        self.futures: list[asyncio.Future[int]] = []
        self._producer = site.gateway._producer
        self.max_message_bytes = self._producer.max_message_bytes
        site.gateway._producer = self  # type: ignore[assignment]

    def publish(self, *_: Any, **__: Any) -> asyncio.Future[int]:
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


@pytest.mark.parametrize("tag", ["unknown", "closed"])
async def test_it_ends_some_time_after_the_ack_was_withheld_and_others_get_theirs_first(
    site: ForwardSite, tag: str
) -> None:
    bus = Outcome(site)
    async with site.connected() as peer:
        await peer.send(packed("t", EVENT, chunk="slow") + packed(tag, EVENT, chunk="withheld"))
        await site.until(lambda: any(each._is_ending for each in site.server._connections))
        assert not peer.reader.at_eof()
        bus.futures[0].set_result(0)
        assert await peer.value() == {b"ack": b"slow"}
        assert await peer.closed() == b""


async def test_over_tls_it_ends_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        forward_site(tmp_path, **gateway_files(authority)) as site,
        site.connected(**trusting(authority)) as peer,
    ):
        assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        await peer.send(packed("unknown", EVENT, chunk="withheld"))
        assert await peer.closed() == b""


async def test_chunks_that_may_enter_are_acked_until_then(
    site: ForwardSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acks, "WITHHELD_CLOSE_S", NEVER_S)
    async with site.connected() as peer:
        await peer.send(packed("unknown", EVENT, chunk="withheld"))
        await site.until(lambda: site.telemetry.rejected_total == 1)
        for number in range(20):
            assert await peer.acked(packed("t", EVENT, chunk=f"{number}")) == f"{number}".encode()
        await site.until(lambda: letters(site))
        assert [letter.code for letter in letters(site)] == ["no-policy"]


@pytest.mark.parametrize(
    "error", [BusUnavailable("no broker"), RateExceeded("too much", retry_after_s=1)], ids=["bus", "rate"]
)
async def test_what_ends_by_itself_does_not_end_the_connection_so_soon(
    site: ForwardSite, error: Exception
) -> None:
    bus = Outcome(site)
    async with site.connected() as peer:
        await peer.send(packed("t", EVENT, chunk="first"))
        await site.until(lambda: bus.futures)
        bus.futures[0].set_exception(error)
        [connection] = site.server._connections
        await site.until(lambda: connection._withheld._timer)
        timer = connection._withheld._timer
        assert timer is not None
        assert timer.when() > asyncio.get_running_loop().time() + NEVER_S / 2
        await peer.send(packed("t", EVENT, chunk="next"))
        await site.until(lambda: len(bus.futures) == 2)
        bus.futures[1].set_result(0)
        assert await peer.value() == {b"ack": b"next"}


async def test_but_it_does_in_the_end_since_the_chunk_is_not_kept_here(
    site: ForwardSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acks, "UNAVAILABLE_CLOSE_S", 0.05)
    bus = Outcome(site)
    async with site.connected() as peer:
        await peer.send(packed("t", EVENT, chunk="first"))
        await site.until(lambda: bus.futures)
        bus.futures[0].set_exception(BusUnavailable("no broker"))
        assert await peer.closed() == b""


async def test_a_sender_that_requests_no_ack_is_logged_differently_and_stays_connected(
    site: ForwardSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acks, "WITHHELD_CLOSE_S", 0.0)
    async with site.connected() as peer:
        await peer.send(packed("unknown", EVENT))
        await site.until(lambda: letters(site))
        assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
    [letter] = letters(site)
    assert "asked for no ack and does not keep it" in letter.reason
    assert "keeps it and retries" not in caplog.text


async def test_what_a_full_bus_does_not_take_without_an_ack_is_called_lost(
    site: ForwardSite, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Outcome(site)
    async with site.connected() as peer:
        await peer.send(packed("t", EVENT))
        await site.until(lambda: bus.futures)
        bus.futures[0].set_exception(BusUnavailable("no broker"))
        await site.until(lambda: site.telemetry.lost_total)
        assert "lost: a chunk with the tag 't'" in caplog.text


class LikeFluentBit:
    """Sends a chunk, waits for its ack without a timeout, and retries when the connection ends."""

    def __init__(self, site: ForwardSite) -> None:
        self._site = site
        self.connections = 0

    async def deliver(self, message: bytes) -> Any:
        while True:
            reader, writer = await asyncio.open_connection(self._site.host, self._site.port)
            self.connections += 1
            try:
                return await Peer(reader, writer).acked(message)
            except EOFError:
                continue
            finally:
                writer.transport.abort()


async def test_retries_cost_one_dead_letter_and_one_line_and_deliver_once_it_is_allowed(
    site: ForwardSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acks, "WITHHELD_CLOSE_S", 0.01)
    sender = LikeFluentBit(site)
    delivery = asyncio.ensure_future(sender.deliver(packed("new.tag", EVENT, chunk="c")))
    await site.until(lambda: sender.connections == 20)
    assert not delivery.done()
    [letter] = letters(site)
    assert letter.times >= 18
    assert "keeps it and retries" in letter.reason
    lines = [record for record in caplog.records if "new.tag" in record.getMessage()]
    assert len(lines) == 1
    await policy(site, "new", tags=["new.**"])
    assert await asyncio.wait_for(delivery, TIMEOUT_S) == b"c"


async def test_our_own_client_takes_the_end_for_a_missing_policy_and_not_for_a_missing_gateway(
    site: ForwardSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.ingest.forward.client.SOON_LOST_S", 0.0)
    client = ForwardClient(f"{site.host}:{site.port}", first_backoff_s=0.3, max_backoff_s=0.3)
    async with client:
        acked = await client.send("new.tag", EVENT, events=1)
        await site.until(lambda: client.statistics().connections and not client.statistics().connected)
        assert client.statistics().problem is None
        await policy(site, "new", tags=["new.**"])
        await asyncio.wait_for(acked, TIMEOUT_S)
