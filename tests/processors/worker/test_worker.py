"""The worker over a real bus and a real store: its outputs, faults, and restarts."""

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.bus.interface import Bus, Producer
from windvane.bus.messages.chunks import ChunkMessage, encode_chunk
from windvane.config import WorkerSettings
from windvane.errors import StoreFailed, StoreLocked
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.processors.worker.order_watch import Flusher
from windvane.processors.worker.pipeline.catalog_link import CatalogLink
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.processors.worker.worker import Worker
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store
from windvane.store.model_files import ModelFiles

from tests.store.files.resumed import resumed

PCM = {"operation": "pcm", "name": "samples", "dtype": "int16", "rate_hz": 1000.0}
SPECTRUM = {"operation": "spectrum", "length": 64, "dtype": "float64"}


class _Killed(Exception):
    """Instead of a SIGKILL: nothing more is committed."""


class Home:
    """A home directory, with methods to publish chunks and read the outputs."""

    def __init__(self, path: Path, bus: Bus, producer: Producer, catalog: Catalog) -> None:
        self.path = path
        self.bus = bus
        self.producer = producer
        self.catalog = catalog
        self.store = Store(path / "store")
        self.letters = SqlDeadLetters(path / "dead-letters.sqlite")
        self.telemetry = WorkerTelemetry()
        self.clock_ns: Callable[[], int] = time.time_ns
        self.worker: Worker

    async def policy(self, reference: str, **settings: Any) -> None:
        policy = policy_from_mapping({"reference": reference, **settings})
        await self.catalog.put("policy", reference, body=policy_to_mapping(policy))
        await self.bus.ensure_topic(reference, partitions=policy.partitions)

    async def publish(
        self,
        topic: str,
        *records: Any,
        tag: str = "t",
        chunk_id: bytes | None = None,
        payload: bytes | None = None,
        events: int | None = None,
        sender: str = "s",
        at_s: int = 1_790_000_000,
    ) -> None:
        time = msgpack.ExtType(0, struct.pack(">II", at_s, 0))
        if payload is None:
            payload = b"".join(msgpack.packb([time, record]) for record in records)
        chunk = ChunkMessage(
            tag=tag,
            sender=sender,
            chunk_id=chunk_id,
            received_ns=1,
            events=len(records) if events is None else events,
            payload=payload,
        )
        await self.producer.publish(topic, tag.encode(), *encode_chunk(chunk))

    @asynccontextmanager
    async def working(
        self,
        *,
        checkpoint_interval_s: float = 1e9,
        dies: bool = False,
        flusher: Flusher | None = None,
        **settings: Any,
    ) -> AsyncIterator[None]:
        """Runs a worker until all messages on the bus are processed; one that dies makes no last
        checkpoint.
        """
        checkpoints = SqlCheckpointDatabase(self.path / "checkpoints.sqlite")
        bus = open_bus("embedded:", self.path)
        self.telemetry = WorkerTelemetry()
        link = CatalogLink(self.catalog)
        operations = UserOperations(self.path / "operations")
        operations.refresh()
        self.worker = Worker(
            bus=bus,
            store=self.store,
            checkpoints=checkpoints,
            dead_letters=self.letters,
            settings=WorkerSettings(checkpoint_interval_s=checkpoint_interval_s, **settings),
            catalog=link,
            telemetry=self.telemetry,
            operations=operations,
            models=ModelFiles(self.path / "models"),
            flusher=flusher,
            clock_ns=self.clock_ns,
        )
        stop = asyncio.Event()
        running = asyncio.ensure_future(self.worker.run(stop))
        following = asyncio.ensure_future(link.follow())
        try:
            yield
        finally:
            if dies:
                self.worker._checkpointing.fail(_Killed())
            stop.set()
            with suppress(_Killed):
                await running
            following.cancel()
            await asyncio.wait([following])
            checkpoints.close()
            await bus.close()

    async def until_stored(self, chunks: int) -> None:
        """Waits until the worker has processed that many chunks since its start."""
        async with asyncio.timeout(30):
            while True:
                t = self.telemetry
                if t.chunks_total + t.repeated_total + t.dead_lettered_by_code["bad-envelope"] >= chunks:
                    return
                await asyncio.sleep(0.01)

    def stream(self, reference: str = "t") -> bytes:
        stream = self.store.stream(reference)
        return stream.read(0, stream.size)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def test_each_format_archives_in_its_own_way(home: Home) -> None:
    for format_ in ("raw", "msgpack", "json"):
        await home.policy(format_, format=format_)
        await home.publish(format_, {"message": "hello"}, {"message": "you"}, tag=format_)
    async with home.working():
        await home.until_stored(3)
    assert home.stream("raw") == b"helloyou"
    assert [event[1] for event in msgpack.Unpacker(_file(home.stream("msgpack")))] == [
        {"message": "hello"},
        {"message": "you"},
    ]
    assert home.stream("json").count(b'"record":{"message":') == 2
    assert home.store.stream("raw").events == 2


def _file(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


async def test_a_repeated_chunk_is_stored_once_also_after_a_restart(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw")
    await home.publish("p", "a", chunk_id=b"1")
    await home.publish("p", "a", chunk_id=b"1")
    async with home.working():
        await home.until_stored(2)
    await home.publish("p", "a", chunk_id=b"1")
    await home.publish("p", "b", chunk_id=b"2")
    async with home.working():
        await home.until_stored(2)
        assert home.telemetry.repeated_total == 1
    assert home.stream() == b"ab"


async def test_rows_appended_after_the_checkpoint_are_recomputed(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    samples = np.arange(1000, dtype="<i2")
    await home.publish("p", samples[:400].tobytes())
    async with home.working():
        await home.until_stored(1)
    writer = resumed(home.store.stream_writer("t", attrs=home.store.stream("t").attrs))
    writer.append(b"what a crashed worker left behind", arrived_ns=1, chunk_id=None, events=1)
    writer.close()
    await home.publish("p", samples[400:].tobytes())
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == samples.tobytes()
    assert home.store.stream("t").chunks == 2
    assert len(home.store.array("t:spectrum")) == (1000 - 64) // 32 + 1
    assert np.array_equal(home.store.array("t:samples")[:, 0], samples)


async def test_a_step_that_fails_stops_neither_the_others_nor_the_stream(home: Home) -> None:
    steps = [{"operation": "wav", "name": "broken"}, PCM, SPECTRUM]
    await home.policy("p", tags=["t"], format="raw", pipeline=steps)
    samples = np.arange(500, dtype="<i2")
    await home.publish("p", samples.tobytes())
    await home.publish("p", samples.tobytes())
    async with home.working():
        await home.until_stored(2)
        assert {each.step for each in home.telemetry.status().failures} == {"broken"}
    assert home.stream() == samples.tobytes() * 2
    assert len(home.store.array("t:samples")) == 1000
    letters = home.letters.list()
    assert {letter.code for letter in letters} == {"step-failed"}
    assert "RIFF" in letters[0].reason
    assert "Traceback" in home.letters.get(letters[0].id).detail


async def test_records_without_the_bytes_of_a_step_stop_neither_other_steps_nor_the_stream(
    home: Home,
) -> None:
    await home.policy("p", tags=["t"], format="json", pipeline=[PCM, {"operation": "fields"}])
    await home.publish("p", {"power": 1.0})
    async with home.working():
        await home.until_stored(1)
        [failure] = home.telemetry.status().failures
        assert failure.step == "bytes"
        assert "no field 'message'" in failure.message
    assert home.store.array("t:fields").shape == (1, 1)
    assert [letter.code for letter in home.letters.list()] == ["step-failed"]


async def test_a_chunk_that_its_format_rejects_becomes_one_dead_letter(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw")
    await home.publish("p", {"no": "message"})
    await home.publish("p", "fine")
    async with home.working():
        await home.until_stored(2)
    assert home.stream() == b"fine"
    [letter] = home.letters.list()
    assert (letter.code, letter.tag, letter.policy) == ("not-archived", "t", "p")
    assert "field 'message'" in letter.reason


GOOD = msgpack.packb([1, {"message": "good"}])
POISON = {
    "float time beyond all calendars": msgpack.packb([1e300, {"message": "x"}]),
    "time in milliseconds": msgpack.packb([1_790_000_000_000, {"message": "x"}]),
    "no time": msgpack.packb([None, {"message": "x"}]),
    "array as a key": b"\x92\x01\x82\xa7message\xa1x\x90\x01",
    "timestamp of 3 bytes": b"\x92\x01\x82\xa7message\xa1x\xa1t\xc7\x03\xff\x00\x00\x00",
    "1,100 arrays deep": b"\x92\x01\x82\xa7message\xa1x\xa1d" + b"\x91" * 1100 + b"\x01",
    "array of one": b"\x91\x01",
    "array of three": b"\x93\x01\x80\x80",
    "no array": b"\x01",
    "end within an event": GOOD[:-3],
    "byte that is never used": b"\xc1",
}


UNREAD = frozenset(["float time beyond all calendars", "time in milliseconds", "no time", "array as a key"])
UNREAD |= {"timestamp of 3 bytes"}


@pytest.mark.parametrize(
    ("format_", "pipeline"),
    [
        ("raw", []),
        ("msgpack", [{"operation": "fields", "fields": ["message"]}]),
        ("msgpack", []),
        ("json", [{"operation": "fields", "fields": ["message"]}]),
    ],
)
async def test_an_event_that_cannot_be_decoded_affects_no_other_event(
    home: Home, format_: str, pipeline: list[dict[str, Any]]
) -> None:
    """The bus may have chunks that passed no gateway, or one of an older version."""
    await home.policy("p", tags=["*"], format=format_, pipeline=pipeline)
    # Without a step that reads events, msgpack is archived unchanged, as long as it is pairs.
    is_unread = format_ == "msgpack" and not pipeline
    poison = {what: bad for what, bad in POISON.items() if not (is_unread and what in UNREAD)}
    good = 0
    for what, bad in poison.items():
        behind = b"" if what in ("end within an event", "byte that is never used") else GOOD
        good += 1 + bool(behind)
        await home.publish("p", payload=GOOD + bad + behind, events=2 + bool(behind))
        await home.publish("p", payload=bad, events=1)
    async with home.working():
        await home.until_stored(2 * len(poison))
    assert home.stream().count(b"good") == good
    assert home.store.stream("t").events == good
    letters = [home.letters.get(letter.id) for letter in home.letters.list()]
    assert {letter.code for letter in letters} == {"not-archived"}
    assert {letter.payload for letter in letters} == set(poison.values())
    assert sum("cannot be stored: event 1: " in letter.reason for letter in letters) == len(poison)
    if pipeline:
        assert len(home.store.array("t:fields")) == good


async def test_a_record_without_the_field_of_a_raw_policy_affects_no_other_record(home: Home) -> None:
    await home.policy("p", tags=["*"], format="raw", field="samples")
    await home.publish("p", {"samples": "a"}, {"message": "b"}, "c", {"samples": 4}, {"samples": b"e"})
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == b"ace"
    [letter] = home.letters.list()
    assert "2 of 5 events cannot be stored: event 1: has no field 'samples'" in letter.reason


@pytest.mark.parametrize(
    "payload",
    [
        b"\x92\x01\x81\xa7message" + b"\x91" * 600 + b"\x01",
        msgpack.packb([1, {"message": msgpack.Timestamp(2**60, 0)}]),
    ],
)
async def test_values_without_a_json_form_are_stored(home: Home, payload: bytes) -> None:
    await home.policy("p", tags=["*"], format="json")
    await home.publish("p", payload=payload)
    async with home.working():
        await home.until_stored(1)
    assert b'"msgpack":' in home.stream()
    assert home.letters.list() == []


async def test_a_time_in_a_record_is_stored_as_a_time(home: Home) -> None:
    await home.policy("p", tags=["t"], format="json")
    await home.publish("p", {"at": msgpack.ExtType(0, struct.pack(">II", 0, 5))})
    async with home.working():
        await home.until_stored(1)
    assert b'"at":"1970-01-01T00:00:00.000000005Z"' in home.stream()


async def test_many_events_of_a_chunk_come_to_the_steps_in_slices_of_the_same_rows(home: Home) -> None:
    await home.policy("p", tags=["t"], format="json", pipeline=[{"operation": "fields"}])
    await home.publish("p", *({"n": n} for n in range(10_000)))
    async with home.working():
        await home.until_stored(1)
    assert home.store.array("t:fields")[:, 0].tolist() == list(range(10_000))


async def test_chunks_with_an_empty_id_are_chunks_of_their_own(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw")
    for piece in ("a", "b"):
        await home.publish("p", piece, chunk_id=b"")
    async with home.working():
        await home.until_stored(2)
    assert home.stream() == b"ab"


async def test_one_tag_of_two_policies_is_one_stream(home: Home) -> None:
    for reference, format_ in (("a", "raw"), ("b", "json")):
        await home.policy(reference, tags=["t"], format=format_, partitions=1)
    for n in range(200):
        await home.publish("a", f"<{n}>")
        await home.publish("b", {"n": n})
    async with home.working():
        await home.until_stored(400)
    assert home.stream().count(b"<") == home.stream().count(b'{"n":') == 200


async def test_a_step_whose_state_cannot_be_read_starts_over(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", b"\0\0")
    async with home.working():
        await home.until_stored(1)
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    saved = checkpoints.stream("t")
    assert saved is not None
    broken = {name: state[:16] + b"no pickle" if name else state for name, state in saved.states.items()}
    changed = StreamCheckpoint(states=broken, outputs=saved.outputs)
    checkpoints.commit(positions={}, streams={"t": changed}, chunk_keys={}, window=10)
    checkpoints.close()
    await home.publish("p", b"\1\0")
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == b"\0\0\1\0"
    assert home.store.array("t:samples")[:, 0].tolist() == [0, 1]


async def test_bytes_on_the_bus_that_are_not_a_chunk_are_dead_letters_and_skipped(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", partitions=1)
    await home.producer.publish("p", b"t", b"from another program")
    await home.publish("p", "fine")
    async with home.working():
        await home.until_stored(2)
    assert home.stream() == b"fine"
    [letter] = home.letters.list()
    assert letter.code == "bad-envelope"
    assert home.letters.get(letter.id).payload == b"from another program"


async def test_a_changed_step_starts_over_next_to_the_old_output(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    samples = np.arange(1000, dtype="<i2").tobytes()
    await home.publish("p", samples)
    async with home.working():
        await home.until_stored(1)
        await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, {**SPECTRUM, "length": 128}])
        await asyncio.sleep(0.6)  # two polls of the catalog
        await home.publish("p", samples)
        await home.until_stored(2)
    assert home.stream() == samples * 2
    assert len(home.store.array("t:samples")) == 2000
    assert home.store.array("t:spectrum").row_shape == (65,)
    assert home.store.array("t:spectrum~1").row_shape == (33,)
    assert len(home.store.array("t:spectrum~1")) == (1000 - 64) // 32 + 1


async def test_a_stream_outlives_its_policy(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw")
    await home.publish("p", "a")
    async with home.working():
        await home.until_stored(1)
    await home.catalog.delete("policy", "p")
    await home.publish("p", "b")
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == b"ab"


async def test_streams_and_arrays_are_found_in_the_catalog(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    await home.publish("p", b"\0\0")
    async with home.working():
        await home.until_stored(1)
        async with asyncio.timeout(10):
            while len(await home.catalog.list(text="t")) < 2:
                await asyncio.sleep(0.01)
    assert {d.reference for d in await home.catalog.list("array")} == {"t:samples"}


async def test_checkpoints_during_ingestion_neither_lose_nor_duplicate_rows(home: Home) -> None:
    await home.policy("p", tags=["*"], format="raw", pipeline=[PCM], partitions=4)
    pieces = [bytes([n % 251]) * 7 for n in range(600)]
    for restart in range(3):
        async with home.working(checkpoint_interval_s=0.01):
            for n in range(restart * 200, restart * 200 + 200):
                await home.publish("p", pieces[n], tag=f"t{n % 5}", chunk_id=str(n).encode())
            await home.until_stored(200)
    for stream in range(5):
        assert home.stream(f"t{stream}") == b"".join(pieces[stream::5])


async def test_a_gap_within_a_chunk_is_kept_and_counted_and_never_joined(home: Home) -> None:
    steps = [{**PCM, "times": "first"}, {"operation": "gaps", "input": "samples"}, SPECTRUM]
    await home.policy("p", tags=["t"], format="raw", pipeline=steps)
    samples = np.arange(300, dtype="<i2")

    def event(second: int, part: slice) -> bytes:
        time = msgpack.ExtType(0, struct.pack(">II", 1_790_000_000 + second, 0))
        return bytes(msgpack.packb([time, samples[part].tobytes()]))

    payload = event(0, slice(100)) + event(2, slice(100, 200)) + event(2, slice(100, 200))
    await home.publish("p", payload=payload)
    async with home.working():
        await home.until_stored(1)
    assert home.telemetry.status().counted_by_stream == {
        "t": {"samples": {"gaps": 1, "missing": 1900, "repeated": 100}}
    }
    assert home.store.array("t:gaps")[:].tolist() == [[100, 1900, 1.9]]
    assert np.array_equal(home.store.array("t:samples")[:, 0], samples[:200])
    assert len(home.store.array("t:spectrum")) == 2 * ((100 - 64) // 32 + 1)
    # Each process counts a gap once: the next owner of the stream has seen no gap yet.
    await home.publish("p", payload=event(4, slice(200, 300)))
    async with home.working():
        await home.until_stored(1)
    assert home.telemetry.counted_by_name == {"gaps": 1, "missing": 1900}


async def test_a_worker_that_ends_keeps_its_streams_until_what_it_commits_is_known(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner of a stream reads its checkpoint: a commit of the former owner must not follow that."""
    await home.policy("p", tags=["t"], format="raw")
    await home.publish("p", b"a")
    began, may_end = threading.Event(), threading.Event()
    commit = SqlCheckpointDatabase.commit

    def late_commit(*given: Any, **named: Any) -> None:
        began.set()
        assert may_end.wait(30)
        commit(*given, **named)

    async def until_free() -> None:
        while True:
            with suppress(StoreLocked), home.store.stream_writer("t", attrs=home.store.stream("t").attrs):
                return
            await asyncio.sleep(0.01)

    async def fail_while_committing() -> None:
        async with home.working():
            await home.until_stored(1)
            monkeypatch.setattr(SqlCheckpointDatabase, "commit", late_commit)
            committing = asyncio.ensure_future(home.worker.checkpoint())
            assert await asyncio.to_thread(began.wait, 30)
            home.worker._checkpointing.fail(StoreFailed("a full disk"))
            freed, _ = await asyncio.wait([free := asyncio.ensure_future(until_free())], timeout=0.5)
            too_early.extend(freed)
            may_end.set()
            await asyncio.wait([committing, free])

    too_early: list[object] = []
    with pytest.raises(StoreFailed, match="a full disk"):
        await fail_while_committing()
    assert not too_early
