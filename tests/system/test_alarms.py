"""SIGKILL of the worker around an alarm: one document, one key for the webhook, at every moment of the
kill.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.config import Settings
from windvane.processors.alarms.webhook import delivery_id
from windvane.store.catalog.alarm_book import AlarmBook, alarm_of
from windvane.store.catalog.alarms import Alarm
from windvane.store.catalog.catalog import Catalog

from tests.processes import Running, wait_until, windvane
from tests.processors.alarms.alarming import COURSE, payload
from tests.processors.alarms.webhook_receiver import Receiver, receiver
from tests.system.disturbance import Chunk, Release, send_until_acked

POLICY = """
[[policy]]
reference = "machines"
tags = ["t*"]
format = "json"

[[policy.pipeline]]
operation = "fields"

[[policy.alarm]]
output = "fields"
column = "rms"
warning = 10.0
danger = 20.0
hold_rows = 2
"""
TRANSITIONS = ["raised", "escalated", "eased", "cleared"]


def chunks_of(tag: str, cycles: int) -> list[Chunk]:
    """Records that raise an alarm `cycles` times, two to a chunk."""
    levels = COURSE * cycles
    chunks = []
    for first in range(0, len(levels), 2):
        part = levels[first : first + 2]
        id = f"{tag}-{first}"
        options = {"size": len(part), "chunk": id}
        message = msgpack.packb([tag, payload(part, first=first), options])
        chunks.append(Chunk(tag, message, id.encode()))
    return chunks


class AlarmSite:
    """A home with a gateway, a worker to be killed, and a receiver of its webhook."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.receiver: Receiver = receiver()
        home.mkdir()
        (home / "policy.toml").write_text(POLICY)
        applied = windvane(home, "apply", str(home / "policy.toml"))
        assert applied.returncode == 0, applied.stderr.decode()
        (home / "windvane.toml").write_text(
            "[worker]\ncheckpoint_interval_s = 0.1\n"
            f'[alarms]\nwebhook_url = "{self.receiver.url}"\n'
            "webhook_first_retry_s = 0.05\nwebhook_last_retry_s = 0.2\n"
        )
        self.gateway = Running("gateway", home)
        self.worker = Running("worker", home)

    async def send(self, chunks: list[Chunk], release: Release | None = None) -> None:
        await send_until_acked(self.gateway, chunks, release or Release(len(chunks)))

    async def alarms(self) -> list[Alarm]:
        catalog = await Catalog.open(Settings(home=self.home).catalog_url)
        try:
            return [alarm_of(document) for document in await AlarmBook(catalog).latest(limit=10_000)]
        finally:
            await catalog.close()

    def outbox(self) -> int:
        """Messages that are committed and not recorded."""
        with closing(sqlite3.connect(self.home / "checkpoints.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM outbox").fetchone()[0])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AlarmSite]:
    made = AlarmSite(tmp_path / "home")
    made.gateway.start()
    made.worker.start()
    async with made.receiver.listening():
        yield made
    made.worker.stop()
    made.gateway.stop()


def expected_ids(alarm: Alarm) -> list[str]:
    return [delivery_id(alarm.reference, entry.number) for entry in alarm.history]


async def test_killed_between_the_commit_of_an_alarm_and_its_document(site: AlarmSite) -> None:
    with closing(sqlite3.connect(site.home / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.execute("BEGIN IMMEDIATE")  # no other process can write documents now
        await site.send(chunks_of("t1", 1))
        await asyncio.to_thread(wait_until, lambda: site.outbox() == 4, "the alarm is committed")
        recorded = catalog.execute("SELECT count(*) FROM documents WHERE type = 'alarm'")
        assert recorded.fetchone() == (0,)
        site.worker.kill()
        catalog.execute("ROLLBACK")
    await asyncio.to_thread(site.worker.start)
    await site.receiver.until(lambda: len(set(site.receiver.ids)) == 4)
    assert site.outbox() == 0
    [alarm] = await site.alarms()
    assert [entry.action for entry in alarm.history] == TRANSITIONS
    assert list(dict.fromkeys(site.receiver.ids)) == expected_ids(alarm)


async def test_killed_at_any_moment_each_alarm_is_there_once_and_told_under_one_key(site: AlarmSite) -> None:
    cycles, tags, rounds = 12, ["t1", "t2"], 6
    chunks = {tag: chunks_of(tag, cycles) for tag in tags}
    release = Release(0)
    sending = [asyncio.ensure_future(site.send(of_tag, release)) for of_tag in chunks.values()]
    chance = random.Random(5)
    for turn in range(1, rounds + 1):
        await release.allow(len(chunks["t1"]) * turn // rounds)
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        site.worker.kill()
        await asyncio.to_thread(site.worker.start)
    await asyncio.gather(*sending)
    wanted = len(tags) * cycles * len(TRANSITIONS)
    await site.receiver.until(lambda: len(set(site.receiver.ids)) >= wanted)
    alarms = await site.alarms()
    assert len(alarms) == len(tags) * cycles
    for alarm in alarms:
        assert [entry.action for entry in alarm.history] == TRANSITIONS
        assert alarm.row % len(COURSE) == 5
    assert set(site.receiver.ids) == {id for alarm in alarms for id in expected_ids(alarm)}
    told: dict[str, list[Any]] = {}
    for each in site.receiver.told:
        told.setdefault(each["alarm"]["reference"], []).append(each["entry"]["action"])
    assert all(actions == TRANSITIONS for actions in told.values()), "in order"
