"""A scrape of Fluent Bit every few seconds, rejected each time, costs no other letter."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from windvane.config import Settings
from windvane.store.databases.dead_letter import DeadLetter, DeadLetterSummary

from tests.ingest.test_gateway import Site, running

CAPTURE = (Path(__file__).parent / "wire" / "fluent-bit-metrics.bin").read_bytes()
"""One message of the `fluentbit_metrics` input of Fluent Bit 5.1.1."""
DEAD_LETTER_BYTES = 500_000
SCRAPES = 200
LETTER = DeadLetter("schema", "why", "machine.a", "10.0.0.7", "p", b"", time_ns=1)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    settings = Settings(home=tmp_path, forward="127.0.0.1:0", dead_letter_bytes=DEAD_LETTER_BYTES)
    async with running(settings) as site:
        yield site


def scrapes(tag: str) -> list[bytes]:
    _, payload, options = msgpack.unpackb(CAPTURE)
    assert len(payload) > 10_000
    return [
        msgpack.packb([tag.format(number), payload, {**options, "chunk": str(number)}])
        for number in range(SCRAPES)
    ]


async def test_scrapes_that_are_rejected_each_time_evict_no_letter_of_another_kind(site: Site) -> None:
    await site.policy("raw", tags=["demo.**"], signals=["metrics"], format="raw", field="samples")
    site.letters().add_all([replace(LETTER, payload=b"%03d" % i * 100) for i in range(20)])
    assert len(await site.send(*scrapes("demo.metrics"), acks=SCRAPES)) == SCRAPES
    letters = site.letters().list(limit=1_000)
    assert [letter.payload for letter in map(site.letters().get, ids(letters, "schema"))] == [
        b"%03d" % i * 100 for i in range(20)
    ]
    newest = [site.letters().get(id) for id in ids(letters, "invalid-event")]
    assert len(newest) > 20
    assert [letter.chunk_id for letter in newest] == [
        b"%d" % i for i in range(SCRAPES - len(newest), SCRAPES)
    ]
    assert site.letters().statistics().bytes <= DEAD_LETTER_BYTES


async def test_scrapes_under_ever_new_tags_evict_no_letter_of_another_kind(site: Site) -> None:
    await site.policy("logs", tags=["demo.**"])
    kept = site.letters().add_all([replace(LETTER, payload=b"%03d" % i * 100) for i in range(20)])
    messages = scrapes("demo.metrics." + "x" * 150 + ".{}")
    assert len(await site.send(*messages, acks=SCRAPES)) == SCRAPES
    letters = site.letters().list(limit=1_000)
    assert ids(letters, "schema") == list(kept)
    samples = [letter for letter in letters if letter.code == "not-logs"]
    assert 0 < len(samples) < SCRAPES
    assert all(letter.kept_bytes == 512 for letter in samples)
    assert site.letters().statistics().bytes <= DEAD_LETTER_BYTES


def ids(letters: list[DeadLetterSummary], code: str) -> list[int]:
    return [letter.id for letter in reversed(letters) if letter.code == code]
