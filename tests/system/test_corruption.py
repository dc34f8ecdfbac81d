"""Every kind of file, damaged in every way: no acked byte that is intact is lost, every other stream
continues, `windvane verify` names the damage, and the advice that is printed costs nothing when it is
followed.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Running, wait_until, windvane
from tests.store.repair.damaging import KINDS
from tests.system.corruption import (
    CHUNK_BYTES,
    CHUNKS,
    LOG_SEGMENT,
    SEGMENT,
    Tiers,
    content,
    copy_of,
    damage,
    expected,
    follow,
    make_home,
    verify,
)
from tests.system.disturbance import FAST_CHECKPOINTS, Chunk, chunks_of

ISOLATED = importlib.util.find_spec("windvane.processors.worker.stopped_streams") is not None
"""Whether the worker stops a damaged stream alone; without that it ends as a whole."""

NEIGHBOUR, VICTIM, THIRD = "near.n", "park.v", "third.t"

# Kind of file: its path below the stream's directory, the offset of the damage, and whether it has bytes of
# the stream.
STREAM_FILES = {
    "bytes": (f"stream/bytes/{SEGMENT}", 5000),
    "arrivals": (f"stream/arrivals/{SEGMENT}", 5 * 72 + 7),
    "events": (f"stream/events/{SEGMENT}", 16 * 9 + 5),
    "head": ("stream/bytes/head", 2),
    "description": ("stream/meta.json", 0),
    "rows": ("arrays/samples/rows/c.0.0", 1000),
    "times": ("arrays/samples/times/c.0", 800),
}
STREAM_CASES = [f"{file}-{kind}" for file in STREAM_FILES for kind in KINDS]


def tag_of(case: str) -> str:
    return f"park.{case}"


@dataclass
class Outcome:
    """The observed state of a damaged home, before and after the advice was followed."""

    home: Path
    chunks: Mapping[str, Sequence[Chunk]]
    damages: list[dict[str, Any]]
    left: list[dict[str, Any]]
    said: list[str]
    neighbour_went_on: bool


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Chunk]]]:
    home = tmp_path_factory.mktemp("pristine") / "home"
    return home, make_home(home, [NEIGHBOUR, VICTIM, THIRD])


def more(tag: str, count: int = 3) -> list[Chunk]:
    return chunks_of(tag, CHUNKS + count)[CHUNKS:]


def neighbour_continues(tiers: Tiers, tag: str = NEIGHBOUR) -> bool:
    """New chunks of another stream are acked, and stored by the same worker."""
    of_tag = chunks_of(tag, CHUNKS + 3)
    tiers.send({tag: of_tag[CHUNKS:]})
    wait_until(lambda: content(tiers.home, tag) == expected(of_tag), f"{tag} continues")
    return True


def has_size(home: Path, tag: str, size: int) -> bool:
    return len(content(home, tag)) == size


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One home with a stream for each case: one start, one repair, one restart for all."""
    home = tmp_path_factory.mktemp("streams") / "home"
    chunks = make_home(home, [NEIGHBOUR, *map(tag_of, STREAM_CASES)])
    for case in STREAM_CASES:
        file, _, kind = case.rpartition("-")
        name, at = STREAM_FILES[file]
        damage(home / "store" / tag_of(case) / name, kind, at)
    damages = verify(home)["damages"]
    went_on = False
    if ISOLATED:
        with Tiers(home) as tiers:
            tiers.send({tag_of(case): more(tag_of(case)) for case in STREAM_CASES})
            went_on = neighbour_continues(tiers)
    else:
        with Running("gateway", home) as gateway:
            tiers = Tiers(home)
            tiers.gateway = gateway
            tiers.send({tag_of(case): more(tag_of(case)) for case in STREAM_CASES})
    said = follow(home, [each["remedy"] for each in damages if ISOLATED or each["code"] != "bytes"])
    if not ISOLATED:  # it cannot recreate a stream from the bus: the damage is noted instead
        said += follow(home, ["windvane verify --repair"])
    with Tiers(home):
        for tag in map(tag_of, STREAM_CASES):
            wait_until(partial(has_size, home, tag, (CHUNKS + 3) * CHUNK_BYTES), f"{tag} continues")
    return Outcome(home, chunks, damages, verify(home)["damages"], said, went_on)


@pytest.mark.parametrize("case", STREAM_CASES)
def test_a_damaged_stream_is_named_repaired_and_resumed(streams: Outcome, case: str) -> None:
    tag = tag_of(case)
    file, _, kind = case.rpartition("-")
    name, at = STREAM_FILES[file]
    path = streams.home / "store" / tag / name
    named = [each for each in streams.damages if each["reference"].partition(":")[0] == tag]
    assert str(path) in {each["file"] for each in named}, named
    found, whole = content(streams.home, tag), expected(chunks_of(tag, CHUNKS + 3))
    lost = range(0)
    if file == "bytes" and (kind in ("truncate", "delete") or not ISOLATED):
        start = 0 if kind == "delete" else at
        lost = range(start, {"flip": at + 1, "zero": at + 64}.get(kind, CHUNKS * CHUNK_BYTES))
    assert len(found) == len(whole)
    assert [at for at in range(len(whole)) if found[at] != whole[at] and at not in lost] == []
    left = [each for each in streams.left if each["reference"].partition(":")[0] == tag]
    assert all(each["known"] for each in left), (left, streams.said)


@pytest.mark.skipif(not ISOLATED, reason="needs a worker that stops a damaged stream alone")
def test_every_other_stream_continues_next_to_damaged_ones(streams: Outcome) -> None:
    assert streams.neighbour_went_on


def test_what_was_replaced_is_set_aside(streams: Outcome) -> None:
    assert any((streams.home / "set-aside").rglob("*.seg"))
    said = "\n".join(streams.said)
    for tag in map(tag_of, STREAM_CASES):
        said = said.replace(tag, "")  # some have "delete" in their names
    assert "delete" not in said.lower()
    assert "removed" not in said.lower()


# The file, and the offset of the damage; deleted dead letters leave no trace.
HOME_FILES = {
    "catalog": ("catalog.sqlite", 0),
    "dead letters": ("dead-letters.sqlite", 0),
    "log": (f"bus/park/0/{LOG_SEGMENT}", 9000),
    "committed word": ("bus/third/0/committed", 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_databases_and_logs_stop_nothing_else_and_are_repaired(
    tmp_path: Path, pristine: tuple[Path, dict[str, list[Chunk]]], kind: str
) -> None:
    home, chunks = copy_of(pristine[0], tmp_path / "home"), pristine[1]
    paths = {
        file: home / name
        for file, (name, _) in HOME_FILES.items()
        if (file, kind) != ("dead letters", "delete")
    }
    for file, path in paths.items():
        damage(path, kind, HOME_FILES[file][1])
    damages = verify(home)["damages"]
    assert {str(path) for path in paths.values()} <= {each["file"] for each in damages}
    with Tiers(home) as tiers:  # without a catalog, and without dead letters
        assert neighbour_continues(tiers)
    said = follow(home, [each["remedy"] for each in damages])
    left = verify(home)["damages"]
    assert all(each["known"] and "stored in their streams" in each["missing"] for each in left), said
    assert b"third" in windvane(home, "policy", "list").stdout
    with Tiers(home) as tiers:  # the topic whose word was damaged, too
        assert neighbour_continues(tiers, THIRD)
    assert content(home, VICTIM) == expected(chunks[VICTIM])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_checkpoints_cost_no_byte(
    tmp_path: Path, pristine: tuple[Path, dict[str, list[Chunk]]], kind: str
) -> None:
    home, chunks = copy_of(pristine[0], tmp_path / "home"), pristine[1]
    path = home / "checkpoints.sqlite"
    damage(path, kind, 0)
    damages = verify(home)["damages"]
    assert str(path) in {each["file"] for each in damages}
    said = follow(home, [each["remedy"] for each in damages if each["code"] == "database"])
    # Streams whose checkpoints could not be saved have none: the advice for that is followed too.
    said += follow(home, [each["remedy"] for each in verify(home)["damages"]])
    assert [each for each in verify(home)["damages"] if not each["known"]] == [], said
    for tag, of_tag in chunks.items():
        assert content(home, tag) == expected(of_tag), said
    if ISOLATED:
        with Tiers(home) as tiers:  # the log still has all chunks: each is redelivered and skipped
            assert neighbour_continues(tiers)
        for tag in (VICTIM, THIRD):
            assert content(home, tag) == expected(chunks[tag])


def test_lost_checkpoints_over_a_log_that_no_longer_has_everything_cost_no_byte(tmp_path: Path) -> None:
    home, bus = tmp_path / "home", "embedded:?segment_bytes=16384&retention_bytes=16384"
    chunks = make_home(home, [NEIGHBOUR, VICTIM], bus=bus)
    for topic in ("near", "park"):  # retention has dropped the beginning
        first, second, *_ = sorted((home / "bus" / topic / "0").glob("*.log"))
        first.unlink()
        second.unlink()
    path = home / "checkpoints.sqlite"
    path.write_bytes(b"no database at all" * 100)
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    with Running("worker", home, environ=FAST_CHECKPOINTS) as worker:  # it waits, and `windvane up` continues
        assert "verify --repair" in worker.log.read_text()
    assert path.read_bytes() == b"no database at all" * 100
    said = follow(home, [each["remedy"] for each in verify(home)["damages"] if each["code"] == "database"])
    found = verify(home)["damages"]
    assert {each["code"] for each in found} == {"no-checkpoint"}, said
    listed = windvane(home, "recover", "list")
    assert listed.returncode == 1
    assert b"windvane recover adopt park.v" in listed.stdout
    said += follow(home, [each["remedy"] for each in found])
    assert verify(home)["damages"] == [], said
    for tag, of_tag in chunks.items():
        assert content(home, tag) == expected(of_tag), said
    if ISOLATED:
        with Tiers(home) as tiers:
            assert neighbour_continues(tiers)
            assert neighbour_continues(tiers, VICTIM)
