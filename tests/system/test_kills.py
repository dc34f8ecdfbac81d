"""SIGKILLs at random moments of everything that writes: the results equal those of an undisturbed run.

Small segments of the log (64 KiB) and as small a retention, so that kills meet rolled and dropped segments.
Victims are the tiers, the process of a training, and the commands `reprocess`, `dead-letter replay` and
`apply`, which run while chunks arrive. Everything random comes from the seed; when a process dies depends on
the machine too.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.lab import connect

from tests.processes import COMMAND, Running, environment, wait_until, windvane
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    POLICY,
    Chunk,
    Release,
    chunks_of,
    results,
    send_until_acked,
    sizes_of,
)

pytestmark = pytest.mark.alone

KILLS_OF_PROOF, KILLS_OF_SAMPLE = 200, 8
CHUNKS_A_KILL = 12  # of each stream
SMALL_SEGMENTS = "embedded:?segment_bytes=65536&retention_bytes=65536"
ENVIRONMENT = {**FAST_CHECKPOINTS, "WINDVANE_BUS": SMALL_SEGMENTS}
PARK = ["park.t00", "park.t01", "park.t02"]
TRAINED = "trained.t00"
LOGS = "logs.app"
TRAINED_OUTPUT = f"{TRAINED}:strange"
STORED_S = 300.0

TRAINED_POLICY = """
[[policy]]
reference = "trained"
tags = ["trained.**"]
format = "raw"

[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy.pipeline]]
operation = "features"
window = 640

[[policy.pipeline]]
operation = "trained_model"
name = "strange"
parameters = {{ n_estimators = 10 }}
first_after_rows = 40
every_rows = 40
max_rows = 200
"""
LOG_POLICY = """
[[policy]]
reference = "logs"
tags = ["logs.**"]
format = "json"
limits.events_per_chunk = {events_per_chunk}
"""
SCHEMA = """
[policy.schema]
type = "record"
name = "Line"
fields = [{name = "n", type = "long"}, {name = "level", type = "string"}]
"""


def lines_of(tag: str, count: int) -> list[Chunk]:
    """Chunks of three lines with a number each, of which one does not match the schema."""
    chunks = []
    for number in range(count):
        records = [{"n": 3 * number + place, "level": "info"} for place in range(3)]
        del records[number % 3]["level"]
        events = b"".join(msgpack.packb([1_790_000_000 + number, record]) for record in records)
        chunk_id = f"{tag}-{number:06}"
        message = msgpack.packb([tag, events, {"size": 3, "chunk": chunk_id}])
        chunks.append(Chunk(tag, message, chunk_id.encode()))
    return chunks


@dataclass
class Installation:
    """One installation with its load, and the kills."""

    home: Path
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    _edits: int = 0

    def __post_init__(self) -> None:
        self.gateway = Running("gateway", self.home, environ=ENVIRONMENT)
        self.worker = Running("worker", self.home, environ=ENVIRONMENT)
        self.web = Running("web", self.home, environ=ENVIRONMENT)
        self.tiers = (self.gateway, self.worker, self.web)
        self._took_s: dict[str, float] = {}

    def write_policies(self, *, with_schema: bool) -> Path:
        """All policies in a file; the limit of the logs' policy is another one each time."""
        self._edits += 1
        path = self.home / "policies.toml"
        logs = LOG_POLICY.format(events_per_chunk=1000 + self._edits) + (SCHEMA if with_schema else "")
        path.write_text(POLICY.format(partitions=2) + TRAINED_POLICY.format() + logs)
        return path

    def apply(self, *, with_schema: bool) -> None:
        applied = windvane(self.home, "apply", str(self.write_policies(with_schema=with_schema)))
        assert applied.returncode == 0, applied.stderr.decode()

    def actions(self) -> list[Callable[[], None]]:
        """Each kills once, or twice; the tiers are up again afterwards."""
        return [
            lambda: self.kill_tiers(self.gateway),
            lambda: self.kill_tiers(self.worker),
            lambda: self.kill_tiers(self.worker),
            lambda: self.kill_tiers(self.web),
            lambda: self.kill_tiers(self.gateway, self.worker),
            self.kill_training,
            lambda: self.kill_command("reprocess", self.chance.choice([*PARK, TRAINED])),
            lambda: self.kill_command("reprocess", self.chance.choice(PARK), also=self.worker),
            self.kill_replay,
            self.kill_edit,
        ]

    def kill_tiers(self, *tiers: Running) -> None:
        time.sleep(self.chance.uniform(0.0, 0.4))  # the moment of the kill
        for tier in tiers:
            tier.kill()
            self.killed[tier.kind] += 1
        for tier in tiers:
            tier.start()

    def kill_training(self) -> None:
        """The process that trains, if there is one within a moment; the worker else."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            for pid in children(self.worker.pid):
                with suppress(OSError):
                    if b"windvane.processors.learning.training" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        time.sleep(self.chance.uniform(0.0, 0.5))
                        os.kill(pid, signal.SIGKILL)
                        self.killed["training"] += 1
                        return
            time.sleep(0.01)
        self.kill_tiers(self.worker)

    def kill_replay(self) -> None:
        """Replays the records that the schema rejected while the policy has no schema."""
        self.apply(with_schema=False)
        self.kill_command("dead-letter", "replay", "--all")
        self.apply(with_schema=True)

    def kill_edit(self) -> None:
        self.kill_command("apply", str(self.write_policies(with_schema=True)))

    def kill_command(self, name: str, *arguments: str, also: Running | None = None) -> None:
        """Starts a command and kills it at a random moment of the time that a complete run took."""
        process = subprocess.Popen(
            [*COMMAND, name, *arguments],
            env=environment(self.home, ENVIRONMENT),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        began = time.monotonic()
        try:
            # The first half of the first second is that of Python's imports.
            wait_s = self.chance.uniform(0.3, 1.2) * self._took_s.get(name, 3.0)
            process.wait(timeout=wait_s)
            self._took_s[name] = time.monotonic() - began
        except subprocess.TimeoutExpired:
            if also is not None:
                self.kill_tiers(also)
            process.kill()
            self.killed[name] += 1
        finally:
            process.kill()
            process.wait(timeout=60)

    def replay_to_the_end(self) -> None:
        """Replays the remaining dead letters."""
        self.apply(with_schema=False)

        def none_left() -> bool:
            windvane(self.home, "dead-letter", "replay", "--all")
            listed = windvane(self.home, "dead-letter", "list")
            assert listed.returncode == 0, listed.stderr.decode()
            return not listed.stdout.strip()

        wait_until(none_left, "every dead letter was replayed", timeout_s=STORED_S)


def children(pid: int) -> list[int]:
    """Processes that any thread of `pid` has started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in thread.read_text().split()]
    return found


def live_results(home: Path) -> dict[str, bytes]:
    """All outputs but the logs, whose order depends on replays, the trained scores, and replaced outputs."""
    left_out = (LOGS, TRAINED_OUTPUT)
    return {
        name: value
        for name, value in results(home).items()
        if "~" not in name and not name.startswith(left_out)
    }


def lines_stored(home: Path) -> list[int]:
    """The numbers of the lines, as they are stored."""
    context = connect(home)
    if LOGS not in context.streams:
        return []
    return [json.loads(line)["record"]["n"] for line in bytes(context.streams[LOGS][:]).splitlines()]


def trained_scores(home: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times, and rows of (score, rows of the source that the model was trained on)."""
    array = connect(home).arrays[TRAINED_OUTPUT]
    return np.array(array.times), np.array(array)


async def run_through(site: Installation, kills: int, *, disturbed: bool) -> None:
    """Sends all chunks, kills meanwhile, and waits until all is stored."""
    count = CHUNKS_A_KILL * kills
    chunks = {tag: chunks_of(tag, count) for tag in (*PARK, TRAINED)}
    lines = lines_of(LOGS, count)
    release = Release(0 if disturbed else count)
    with ExitStack() as running:
        for tier in site.tiers:
            running.enter_context(tier)
        sending = [
            asyncio.ensure_future(send_until_acked(site.gateway, of_tag, release))
            for of_tag in (*chunks.values(), lines)
        ]
        actions: list[Callable[[], None]] = []
        while disturbed and (done := site.killed.total()) < kills:
            if not actions:
                # Each in turn, in another order each time: a sample of few kills has all kinds too.
                actions = site.actions()
                site.chance.shuffle(actions)
            await release.allow(min(count, CHUNKS_A_KILL * (done + 1)))
            await asyncio.to_thread(actions.pop())
            failed = [each for each in sending if each.done() and each.exception() is not None]
            assert not failed, failed
        await release.allow(count)
        await asyncio.gather(*sending)
        await asyncio.to_thread(site.replay_to_the_end)

        def all_stored() -> bool:
            streams = connect(site.home).streams
            sizes = sizes_of(chunks)
            return (
                all(tag in streams and streams[tag].size == size for tag, size in sizes.items())
                and len(lines_stored(site.home)) >= 3 * count
                and site.worker.status()["lag_messages"] == 0
            )

        await asyncio.to_thread(wait_until, all_stored, "all that was acked is stored", timeout_s=STORED_S)
        for tier in (site.gateway, site.worker, site.web):
            assert tier.stop() == 0


@pytest.mark.proof(part="kills")
@pytest.mark.long_running(
    timeout_s=3500, reason="200 kills with --proof, each with a start of what was killed"
)
async def test_random_kills_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, proof: bool, figure: Callable[[str], None]
) -> None:
    default = KILLS_OF_PROOF if proof else KILLS_OF_SAMPLE
    kills = int(os.environ.get("WINDVANE_TEST_KILLS", default))
    seed = int(os.environ.get("WINDVANE_TEST_SEED", "1"))
    homes = [tmp_path_factory.mktemp(name) / "home" for name in ("undisturbed", "disturbed")]
    sites = [Installation(home, random.Random(seed)) for home in homes]
    for site in sites:
        site.home.mkdir()
        site.apply(with_schema=True)
        await run_through(site, kills, disturbed=site is sites[1])
    killed = sites[1].killed
    figure(f"{killed.total()} kills, seed {seed}: " + ", ".join(f"{n} {what}" for what, n in killed.items()))

    expected, found = map(live_results, homes)
    assert len(expected) == 5 * len(PARK) + 3
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []

    numbers = list(range(3 * CHUNKS_A_KILL * kills))
    for home in homes:
        assert sorted(lines_stored(home)) == numbers

    logged = sum(file.stat().st_blocks * 512 for file in (homes[1] / "bus" / "park").rglob("*"))
    assert logged < sum(len(found[tag]) for tag in PARK) / 2  # most segments were dropped meanwhile

    # When a model comes depends on the machine; a model of the same training gives the same scores.
    (times, rows), (times_found, rows_found) = map(trained_scores, homes)
    assert np.array_equal(times, times_found)
    same_model = (rows[:, -1] == rows_found[:, -1]) & ~np.isnan(rows[:, -1])
    if rows_of_reprocessing_apart(sites[1]):
        assert np.array_equal(rows[same_model], rows_found[same_model])


def rows_of_reprocessing_apart(site: Installation) -> bool:
    """Whether the same count of rows means the same model: not after a reprocessing retrained it."""
    return not any("~" in name for name in connect(site.home).arrays if name.startswith(TRAINED_OUTPUT))
