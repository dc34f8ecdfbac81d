"""The state of a supervisor's children: one file with their state, and one for the last exit of each.

HOME/run/NAME.supervisor.json is there while a supervisor runs, with the state of every child. It names the
supervisor's process, so that a reader can tell one that was killed. HOME/run/CHILD.exit.json says how the
process of CHILD ended last, and is written before the next one starts.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

CRASH_LOOP_EXITS = 3
CRASH_LOOP_WINDOW_S = 120.0
"""So many unexpected exits within so many seconds are a crash loop."""

State: TypeAlias = Literal["starting", "running", "restarting", "stopped"]


class LastExit(msgspec.Struct, frozen=True):
    """How a process ended: by `signal` or with `code`, when, and how often it was restarted before.

    Both are null if the supervisor killed it, because it did not start or stop in time.
    `at` is RFC 3339, UTC; `restarts` counts since the supervisor started.
    """

    signal: int | None
    code: int | None
    at: str
    restarts: int

    @classmethod
    def of(cls, returncode: int, *, restarts: int, by_supervisor: bool = False) -> "LastExit":
        """From what `subprocess` calls the return code."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if by_supervisor:
            return cls(None, None, at, restarts)
        is_signal = returncode < 0
        return cls(-returncode if is_signal else None, None if is_signal else returncode, at, restarts)

    def __str__(self) -> str:
        if self.signal is not None:
            with suppress(ValueError):
                return f"killed by {signal.Signals(self.signal).name}"
            return f"killed by signal {self.signal}"
        return "killed by its supervisor" if self.code is None else f"exit code {self.code}"


class ChildState(msgspec.Struct):
    """A child of a supervisor.

    `since` (RFC 3339, UTC) and `since_s` (monotonic clock of this boot, seconds) say when the state began;
    `exits_s`, on the same clock, when the last `CRASH_LOOP_EXITS` processes ended that were not told to.
    """

    state: State
    since: str
    since_s: float
    restarts: int = 0
    last_exit: LastExit | None = None
    exits_s: list[float] = []

    def enter(self, state: State) -> None:
        """Begin a state now."""
        self.state = state
        self.since, self.since_s = _now(), time.monotonic()

    def add_exit(self, last_exit: LastExit) -> None:
        """A process ended that was not told to."""
        self.last_exit = last_exit
        self.exits_s = [*self.exits_s, time.monotonic()][-CRASH_LOOP_EXITS:]

    @classmethod
    def starting(cls) -> "ChildState":
        """A child that is being started for the first time."""
        return cls("starting", _now(), time.monotonic())

    def in_crash_loop(self, now_s: float) -> bool:
        """Whether it ended `CRASH_LOOP_EXITS` times within `CRASH_LOOP_WINDOW_S`."""
        return (
            len(self.exits_s) >= CRASH_LOOP_EXITS
            and now_s - self.exits_s[-CRASH_LOOP_EXITS] < CRASH_LOOP_WINDOW_S
        )


class Supervision(msgspec.Struct):
    """What one supervisor says: its process and its children by name."""

    pid: int
    process_start: int
    """In clock ticks since boot, as in /proc/PID/stat: a later process of the same number has another."""
    children: dict[str, ChildState]

    @classmethod
    def of_this_process(cls) -> "Supervision":
        """A supervisor without children."""
        return cls(os.getpid(), process_start(os.getpid()) or 0, {})

    @property
    def is_alive(self) -> bool:
        """Whether the supervisor's process still runs."""
        return process_start(self.pid) == self.process_start


def supervision_file(run_dir: Path, name: str) -> Path:
    """Where the supervisor `name` keeps its `Supervision`."""
    return run_dir / f"{name}.supervisor.json"


def exit_file(run_dir: Path, child: str) -> Path:
    """Where the last exit of `child` is kept."""
    return run_dir / f"{child}.exit.json"


def read_last_exit(run_dir: Path, child: str) -> LastExit | None:
    """How the process of `child` ended last; None if no supervisor has seen that."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(exit_file(run_dir, child).read_bytes(), type=LastExit)
    return None


def running_supervisors(run_dir: Path) -> Iterator[tuple[str, Supervision]]:
    """The supervisors that run over a home, by name."""
    for path in sorted(run_dir.glob("*.supervisor.json")):
        with suppress(OSError, msgspec.DecodeError):
            found = msgspec.json.decode(path.read_bytes(), type=Supervision)
            if found.is_alive:
                yield path.name.removesuffix(".supervisor.json"), found


def write_whole(path: Path, value: msgspec.Struct) -> None:
    """Write `value` as JSON so that a reader sees all of it or the file before. Raises OSError."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(value) + b"\n")
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none of that number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
