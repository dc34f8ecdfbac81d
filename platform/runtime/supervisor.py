"""What `windvane up` does: starts the tiers as processes, waits until they are ready, and keeps them running.

A child announces itself in a file (--ready-file) and inherits the read end of a pipe (--stop-fd) to which no
process writes: it ends when the supervisor's side closes, which the kernel does even if the supervisor was
killed. `stop_at_end_of_file` is the child's half of that.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TierFailed
from .announcements import read_announcement
from .instrumentation import Event, EventLog, LogLine
from .supervision import (
    ChildState,
    LastExit,
    Supervision,
    exit_file,
    supervision_file,
    write_whole,
)

_logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0
START_BOUND_S = 120.0
STOP_BOUND_S = 15.0  # for each child
ORPHAN_BOUND_S = 30.0  # for a child whose supervisor is gone
POLL_S = 0.02


class ChildEnded(Event, frozen=True):
    """A child ended without being stopped; it is restarted after a pause."""

    line = LogLine(logging.WARNING, "{child} ended ({how}); it starts again in {pause_s:.1f} s")

    child: str
    how: str
    pause_s: float


class ChildInCrashLoop(Event, frozen=True):
    """A child ended three times within two minutes; it is restarted every 5 s."""

    line = LogLine(
        logging.WARNING,
        "{child} ended again ({how}), as it does at each start: its own message says why. It starts again "
        f"every {MAX_BACKOFF_S:g} s until the cause is gone",
        key=("child",),
    )

    child: str
    how: str


class ChildRestarted(Event, frozen=True):
    """A child that had ended is ready again."""

    line = LogLine(logging.WARNING, "{child} runs again (process {pid})")

    child: str
    pid: int


class ChildNotReady(Event, frozen=True):
    """A restarted child was not ready in time and is killed."""

    line = LogLine(logging.WARNING, "{child} is given up: {reason}")

    child: str
    reason: str


class ChildKilled(Event, frozen=True):
    """A child did not stop in time and was killed."""

    line = LogLine(logging.WARNING, "{child} did not end within {timeout_s:.0f} s; killed")

    child: str
    timeout_s: float


class SupervisionNotWritten(Event, frozen=True):
    """The state of the children cannot be written."""

    line = LogLine(
        logging.WARNING,
        "{path} cannot be written: {reason}; health and status show an old state until there is room on that "
        "disk",
        key=("path",),
    )

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process to run: `python ARGUMENTS`, made from what all children so far have announced."""

    name: str
    arguments: Callable[[Mapping[str, str]], Sequence[str]]


@dataclass(slots=True, eq=False)
class _Child:
    plan: ChildPlan
    ready_file: Path
    process: asyncio.subprocess.Process | None = None
    ready_at_s: float | None = None
    backoff_s: float = field(default=FIRST_BACKOFF_S)
    ended_process: asyncio.subprocess.Process | None = None
    """The last one whose end was written down."""
    killed_process: asyncio.subprocess.Process | None = None
    """The last one that the supervisor killed."""
    state: ChildState = field(default_factory=ChildState.starting)


class Supervisor:
    """Runs children in stages: a stage starts when all of the one before it are ready.

    Ends them stage by stage from the last one back, inside a stage in the order given, each within
    `stop_bound_s`; or all of a stage at once, where it `stops_together`. A child that dies after it was ready
    is restarted after 0.2 s, then after twice as long each time, up to 5 s; the pause starts over after a
    child was ready for longer than it.

    The children's ready files are `up-NAME.json` in `ready_dir`, which must exist; a run after one that was
    killed takes over those that it left. There too, as `supervision` says, it keeps the state of its children
    and their last exits; `name` tells several supervisors apart.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[ChildPlan]],
        *,
        ready_dir: Path,
        name: str = "up",
        stop_bound_s: float = STOP_BOUND_S,
        stops_together: bool = False,
    ) -> None:
        self._stages = stages
        self._ready_dir = ready_dir
        self._stop_bound_s = stop_bound_s
        self._stops_together = stops_together
        self._file = supervision_file(ready_dir, name)
        self._supervision = Supervision.of_this_process()
        self._log = EventLog(_logger)
        self._reports: dict[str, str] = {}
        self._children: list[list[_Child]] = []

    async def run(self, stop: asyncio.Event, *, ready: Callable[[Mapping[str, str]], None]) -> None:
        """Run until `stop` is set; `ready` is called once, with all that the children announced together.

        Raises `TierFailed` if a child ends, or is not ready in two minutes, at its first start.
        """
        kept_read_end, kept_write_end = os.pipe()
        self._begin()
        try:
            await self._run(stop, ready, kept_read_end)
        finally:
            for child in (child for stage in self._children for child in stage):
                child.ready_file.unlink(missing_ok=True)
            self._file.unlink(missing_ok=True)
            os.close(kept_write_end)
            os.close(kept_read_end)

    def _begin(self) -> None:
        if self._file.exists():
            # The supervisor before was killed: how its last children ended is not known.
            for plan in (plan for stage in self._stages for plan in stage):
                exit_file(self._ready_dir, plan.name).unlink(missing_ok=True)
        self._publish()

    def _publish(self) -> None:
        """Write down the state of all children; on a full disk it is known to the log alone."""
        self._supervision.children = {
            child.plan.name: child.state for stage in self._children for child in stage
        }
        self._write(self._file, self._supervision)

    def _write(self, path: Path, value: Supervision | LastExit) -> None:
        try:
            write_whole(path, value)
        except OSError as error:
            self._log.emit(SupervisionNotWritten(str(path), error.strerror or str(error)))

    def _keep_exit(self, child: _Child, *, was_told_to: bool) -> None:
        """Write down, once, how the process of `child` ended, before another one starts."""
        process = child.process
        if process is None or process.returncode is None or process is child.ended_process:
            return
        child.ended_process = process
        last_exit = LastExit.of(
            process.returncode,
            restarts=child.state.restarts,
            by_supervisor=process is child.killed_process and process.returncode == -signal.SIGKILL,
        )
        if was_told_to:
            child.state.last_exit = last_exit
        else:
            child.state.add_exit(last_exit)
        self._write(exit_file(self._ready_dir, child.plan.name), last_exit)

    async def _run(
        self,
        stop: asyncio.Event,
        ready: Callable[[Mapping[str, str]], None],
        stop_fd: int,
    ) -> None:
        stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start_stages(stop_fd))
        keeping: list[asyncio.Task[None]] = []
        try:
            await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await starting
                ready(dict(self._reports))
                children = [child for stage in self._children for child in stage]
                keeping = [asyncio.create_task(self._keep(child, stop_fd)) for child in children]
                await asyncio.wait({stopping, *keeping}, return_when=asyncio.FIRST_COMPLETED)
                for task in keeping:
                    if task.done():
                        task.result()
        finally:
            for task in (stopping, starting, *keeping):
                task.cancel()
            await asyncio.gather(stopping, starting, *keeping, return_exceptions=True)
            await self._stop_all()

    async def _start_stages(self, stop_fd: int) -> None:
        for plans in self._stages:
            children = [_Child(plan, self._ready_dir / f"up-{plan.name}.json") for plan in plans]
            self._children.append(children)
            self._publish()
            for child in children:
                await self._start(child, stop_fd)
            for child in children:
                if (failure := await self._until_ready(child)) is not None:
                    raise TierFailed(
                        f"{child.plan.name} could not start ({failure}); its own message is above"
                    )

    async def _start(self, child: _Child, stop_fd: int) -> None:
        child.ready_file.unlink(missing_ok=True)
        child.ready_at_s = None
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *child.plan.arguments(self._reports),
            "--ready-file",
            str(child.ready_file),
            "--stop-fd",
            str(stop_fd),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(stop_fd,),
            # Ctrl-C in a terminal goes to the whole process group; who ends when is for us to say.
            process_group=0,
        )

    async def _until_ready(self, child: _Child) -> str | None:
        """Wait until the child has announced itself; what went wrong where it does not."""
        assert child.process is not None
        ended = asyncio.create_task(child.process.wait())
        give_up_at_s = time.monotonic() + START_BOUND_S
        try:
            while (report := read_announcement(child.ready_file)) is None:
                await asyncio.wait({ended}, timeout=POLL_S)
                if ended.done():
                    self._keep_exit(child, was_told_to=False)
                    return _how_it_ended(ended.result())
                if time.monotonic() > give_up_at_s:
                    return f"not ready after {START_BOUND_S:.0f} s"
        finally:
            ended.cancel()
        self._reports.update(report)
        child.ready_at_s = time.monotonic()
        child.state.enter("running")
        self._publish()
        return None

    async def _keep(self, child: _Child, stop_fd: int) -> None:
        while True:
            assert child.process is not None
            ended = _how_it_ended(await child.process.wait())
            self._keep_exit(child, was_told_to=False)
            child.state.enter("restarting")
            self._publish()
            if child.ready_at_s is not None and time.monotonic() - child.ready_at_s > child.backoff_s:
                child.backoff_s = FIRST_BACKOFF_S
            self._say_ended(child, ended)
            await asyncio.sleep(child.backoff_s)
            child.backoff_s = min(2 * child.backoff_s, MAX_BACKOFF_S)
            child.state.restarts += 1
            await self._start(child, stop_fd)
            if (failure := await self._until_ready(child)) is None:
                self._say_again(child)
            elif child.process.returncode is None:
                self._log.emit(ChildNotReady(child.plan.name, failure))
                child.killed_process = child.process
                child.process.kill()

    def _say_ended(self, child: _Child, ended: str) -> None:
        name = child.plan.name
        if not child.state.in_crash_loop(time.monotonic()):
            self._log.emit(ChildEnded(name, ended, child.backoff_s))
            return
        # From here on one line a minute: the same happens every few seconds.
        self._log.emit(ChildInCrashLoop(name, ended))

    def _say_again(self, child: _Child) -> None:
        assert child.process is not None
        if not child.state.in_crash_loop(time.monotonic()):
            self._log.emit(ChildRestarted(child.plan.name, child.process.pid))

    async def _stop_all(self) -> None:
        for stage in reversed(self._children):
            if self._stops_together:
                await asyncio.gather(*(self._stop(child) for child in stage))
            else:
                for child in stage:
                    await self._stop(child)

    async def _stop(self, child: _Child) -> None:
        process = child.process
        self._keep_exit(child, was_told_to=False)
        child.state.enter("stopped")
        self._publish()
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._stop_bound_s):
                await process.wait()
        except TimeoutError:
            self._log.emit(ChildKilled(child.plan.name, self._stop_bound_s))
            child.killed_process = process
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._keep_exit(child, was_told_to=True)


def stop_at_end_of_file(descriptor: int, stop: Callable[[], object]) -> None:
    """Call `stop` (from another thread) when the supervisor is gone, and end the process itself soon after.

    The hard end after 30 s is for a process that hangs: no supervisor is left to end it.
    """

    def watch() -> None:
        with suppress(OSError):
            while os.read(descriptor, 1):
                pass
        with suppress(RuntimeError):  # the event loop is closed already
            stop()
        time.sleep(ORPHAN_BOUND_S)
        os._exit(os.EX_SOFTWARE)

    threading.Thread(target=watch, name="stop-at-end-of-file", daemon=True).start()


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-returncode).name}"
    return f"killed by signal {-returncode}"
