"""The supervisor with children that are real processes, but have nothing to do except to be kept."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from windvane.errors import ConfigInvalid, TierFailed
from windvane.runtime.announcements import announce, read_announcement
from windvane.runtime.supervision import LastExit, read_last_exit, running_supervisors, supervision_file
from windvane.runtime.supervisor import ChildPlan, Supervisor

from tests.processes import started

pytestmark = pytest.mark.system

TIMEOUT_S = 60.0  # only ends a test that hangs

CHILD = """
import argparse, fcntl, os, signal, sys, threading
from pathlib import Path
from windvane.runtime.announcements import announce
from windvane.runtime.supervisor import stop_at_end_of_file

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("diary", type=Path)
parser.add_argument("--announce", default="")
parser.add_argument("--stubborn", action="store_true")
parser.add_argument("--ready-file", type=Path)
parser.add_argument("--stop-fd", type=int)
given = parser.parse_args()

def note(what):
    with given.diary.open("a") as diary:
        diary.write(f"{given.name} {what}\\n")

alive = open(given.diary.with_name(given.name + ".alive"), "a+")
fcntl.flock(alive, fcntl.LOCK_EX)
alive.truncate(0); alive.write(str(os.getpid())); alive.flush()
stop = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if given.stubborn else lambda *_: stop.set())
stop_at_end_of_file(given.stop_fd, stop.set)
note(f"began {given.announce}".strip())
announce(given.ready_file, dict([given.announce.split("=")]) if given.announce else {})
stop.wait()
note("ended")
"""


def child(name: str, diary: Path, *options: str) -> ChildPlan:
    return ChildPlan(name, lambda reports: ["-c", CHILD, name, str(diary), *options])


def diary_of(directory: Path) -> Path:
    diary = directory / "diary"
    diary.touch()
    return diary


def pid_of(name: str, diary: Path) -> int:
    return int(diary.with_name(f"{name}.alive").read_text())


@asynccontextmanager
async def supervised(
    stages: Sequence[Sequence[ChildPlan]], ready_dir: Path, *, stop_bound_s: float = 30.0
) -> AsyncIterator[Mapping[str, str]]:
    """Runs until the block is left; gives what the children announced."""
    stop = asyncio.Event()
    announced: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    supervisor = Supervisor(stages, ready_dir=ready_dir, stop_bound_s=stop_bound_s)
    async with asyncio.timeout(TIMEOUT_S):
        running = asyncio.create_task(supervisor.run(stop, ready=announced.set_result))
        both: set[asyncio.Future[Any]] = {running, announced}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not announced.done():
            await running
        try:
            yield announced.result()
        finally:
            stop.set()
            await running


async def lines(diary: Path, count: int) -> list[str]:
    """The first lines of the diary, when there are as many."""
    while len(found := diary.read_text().splitlines()) < count:
        await asyncio.sleep(0.01)
    return found[:count]


async def test_a_stage_begins_when_the_one_before_is_ready_and_knows_what_it_announced(
    tmp_path: Path,
) -> None:
    diary = diary_of(tmp_path)
    second = ChildPlan(
        "second",
        lambda reports: ["-c", CHILD, "second", str(diary), "--announce", f"heard={reports['port']}"],
    )
    async with supervised([[child("first", diary, "--announce", "port=7")], [second]], tmp_path) as announced:
        assert announced == {"port": "7", "heard": "7"}
        assert sorted(path.name for path in tmp_path.glob("up-*.json")) == ["up-first.json", "up-second.json"]
        assert diary.read_text().splitlines() == ["first began port=7", "second began heard=7"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["first.exit.json", "second.exit.json"]


async def test_children_end_from_the_last_stage_back_and_in_their_order_inside_a_stage(
    tmp_path: Path,
) -> None:
    diary = diary_of(tmp_path)
    async with supervised([[child(name, diary) for name in "abc"], [child("source", diary)]], tmp_path):
        diary.write_text("")
    assert diary.read_text().splitlines() == ["source ended", "a ended", "b ended", "c ended"]


async def test_a_child_that_dies_is_restarted_with_what_was_announced_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    diary = diary_of(tmp_path)

    def arguments(reports: Mapping[str, str]) -> list[str]:
        return ["-c", CHILD, "tier", str(diary), "--announce", f"port={reports.get('port', '4711')}x"]

    async with supervised([[ChildPlan("tier", arguments), child("other", diary)]], tmp_path):
        other = pid_of("other", diary)
        os.kill(pid_of("tier", diary), signal.SIGKILL)
        begun = [line for line in await lines(diary, 3) if line.startswith("tier")]
        assert begun == ["tier began port=4711x", "tier began port=4711xx"]
        assert pid_of("other", diary) == other
    assert "tier ended (killed by SIGKILL); it starts again in 0.2 s" in caplog.text


def exit_of(directory: Path, name: str) -> LastExit:
    found = read_last_exit(directory, name)
    assert found is not None
    return found


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
async def test_how_a_child_ended_is_written_down_before_it_starts_again(
    tmp_path: Path, number: signal.Signals
) -> None:
    diary = diary_of(tmp_path)
    # What the child finds when it starts is what its predecessor left.
    looking = "import os, shutil, sys; shutil.copy(sys.argv[1], sys.argv[1] + '.seen');"
    seen = tmp_path / "tier.exit.json.seen"
    # Of a run before, whose supervisor was killed:
    (tmp_path / "tier.exit.json").write_bytes(msgspec.json.encode(LastExit.of(-11, restarts=7)))
    assert exit_of(tmp_path, "tier").signal == signal.SIGSEGV
    supervision_file(tmp_path, "up").write_text("{}")

    def arguments(reports: Mapping[str, str]) -> list[str]:
        look = looking + "sys.argv.pop(1);" if (tmp_path / "tier.exit.json").exists() else ""
        more = [str(tmp_path / "tier.exit.json")] if look else []
        return ["-c", look + CHILD, *more, "tier", str(diary)]

    async with supervised([[ChildPlan("tier", arguments)]], tmp_path):
        assert read_last_exit(tmp_path, "tier") is None
        os.kill(pid_of("tier", diary), number)
        await lines(diary, 2)
        found = json.loads(seen.read_text())
        assert sorted(found) == ["at", "code", "restarts", "signal"]
        assert (found["signal"], found["code"], found["restarts"]) == (int(number), None, 0)
        assert datetime.fromisoformat(found["at"]).tzinfo is not None
    # An orderly end is one too: what it says must not be taken for the crash before.
    last = exit_of(tmp_path, "tier")
    assert (last.signal, last.code, last.restarts) == (None, 0, 1)
    print(f"{number.name}: {found}, then {last}")


async def test_the_state_of_the_children_and_their_restarts_can_be_read(tmp_path: Path) -> None:
    diary = diary_of(tmp_path)
    async with supervised([[child("tier", diary), child("other", diary)]], tmp_path):
        [(name, found)] = running_supervisors(tmp_path)
        assert (name, found.pid) == ("up", os.getpid())
        assert {each: state.state for each, state in found.children.items()} == {
            "tier": "running",
            "other": "running",
        }
        for begun in range(3, 6):
            assert not found.children["tier"].in_crash_loop(time.monotonic())
            os.kill(pid_of("tier", diary), signal.SIGKILL)
            await lines(diary, begun)
            while found.children["tier"].restarts < begun - 2 or found.children["tier"].state != "running":
                [(_, found)] = running_supervisors(tmp_path)
                await asyncio.sleep(0.01)
        tier = found.children["tier"]
        assert tier.in_crash_loop(time.monotonic())
        assert not tier.in_crash_loop(time.monotonic() + 1000)
        assert tier.last_exit == exit_of(tmp_path, "tier")
        assert (tier.restarts, found.children["other"].restarts) == (3, 0)
        assert supervision_file(tmp_path, "up").stat().st_mode & 0o777 == 0o600
        dead = msgspec.structs.replace(found, process_start=found.process_start + 1)
        supervision_file(tmp_path, "dead").write_bytes(msgspec.json.encode(dead))
        assert [name for name, _ in running_supervisors(tmp_path)] == ["up"]
    assert list(running_supervisors(tmp_path)) == []


async def test_a_crash_loop_is_said_in_the_log_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    diary = diary_of(tmp_path)
    ends_again = "import sys, os; sys.exit(1) if os.path.exists(sys.argv[2] + '.broken') else None\n"
    tier = ChildPlan("tier", lambda reports: ["-c", ends_again + CHILD, "tier", str(diary)])
    async with supervised([[tier]], tmp_path):
        Path(f"{diary}.broken").touch()
        os.kill(pid_of("tier", diary), signal.SIGKILL)
        while not ((found := read_last_exit(tmp_path, "tier")) and found.restarts >= 4):
            await asyncio.sleep(0.01)
    said = [line for line in caplog.messages if line.startswith("tier ended")]
    assert [line.split(";")[0] for line in said] == [
        "tier ended (killed by SIGKILL)",
        "tier ended (exit code 1)",
        "tier ended again (exit code 1), as it does at each start: its own message says why. It starts again "
        "every 5 s until the cause is gone",
    ]


async def test_a_child_that_does_not_end_in_time_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    diary = diary_of(tmp_path)
    async with supervised(
        [[child("deaf", diary, "--stubborn"), child("good", diary)]], tmp_path, stop_bound_s=0.2
    ):
        pass
    assert diary.read_text().splitlines()[-1] == "good ended"
    assert "deaf did not end within" in caplog.text
    # Not by a signal of its own doing:
    assert (exit_of(tmp_path, "deaf").signal, exit_of(tmp_path, "deaf").code) == (None, None)
    assert exit_of(tmp_path, "good").code == 0


async def test_a_child_that_cannot_start_ends_the_others_and_is_named(tmp_path: Path) -> None:
    diary = diary_of(tmp_path)
    broken = ChildPlan("broken", lambda reports: ["-c", "raise SystemExit(3)"])
    with pytest.raises(TierFailed, match=r"broken could not start \(exit code 3\)"):
        async with supervised([[child("good", diary)], [broken]], tmp_path):
            pass
    assert diary.read_text().splitlines() == ["good began", "good ended"]


async def test_stopping_before_all_are_ready_ends_those_that_run(tmp_path: Path) -> None:
    diary = diary_of(tmp_path)
    never_ready = ChildPlan("slow", lambda reports: ["-c", "import time; time.sleep(60)"])
    stop = asyncio.Event()
    supervisor = Supervisor([[child("good", diary)], [never_ready]], ready_dir=tmp_path)
    async with asyncio.timeout(TIMEOUT_S):
        running = asyncio.create_task(supervisor.run(stop, ready=lambda report: pytest.fail("never ready")))
        await lines(diary, 1)
        stop.set()
        await running
    assert diary.read_text().splitlines() == ["good began", "good ended"]


SUPERVISING = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_supervisor import child
from windvane.runtime.supervisor import Supervisor
supervisor = Supervisor([[child("left", Path(sys.argv[2]))]], ready_dir=Path(sys.argv[2]).parent)
asyncio.run(supervisor.run(asyncio.Event(), ready=lambda report: print("ready", flush=True)))
"""


def test_children_end_by_themselves_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    diary = diary_of(tmp_path)
    command = [sys.executable, "-c", SUPERVISING, str(Path(__file__).parent), str(diary)]
    with started(command, stdout=subprocess.PIPE, text=True) as supervising:
        assert supervising.stdout is not None
        assert supervising.stdout.readline() == "ready\n"
        supervising.kill()
    with diary.with_name("left.alive").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)  # held by the child for as long as it lives
    assert diary.read_text().splitlines() == ["left began", "left ended"]


def test_an_announcement_is_whole_and_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    assert read_announcement(path) is None
    announce(path, {"forward": "127.0.0.1:1"})
    announce(path, {"forward": "127.0.0.1:2"})
    assert read_announcement(path) == {"forward": "127.0.0.1:2"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["gateway.json"]
    path.write_text('{"forward": ')
    assert read_announcement(path) is None


def test_an_announcement_that_cannot_be_written_is_said_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as failed:
        announce(tmp_path / "none" / "ready.json", {})
    assert str(failed.value).startswith(f"{tmp_path}/none/ready.json cannot be written: No such file")
    assert ".tmp" not in str(failed.value)
