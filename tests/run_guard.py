"""A test run leaves no process behind, however it ends, and hangs for ever in no test.

- Every process that the tests start carries `RUN_MARK` in its environment, and so does whatever it starts.
- A guard, a process in a session of its own, waits for the end of pytest: when pytest has ended, by SIGKILL
  too, the guard kills what still carries the mark.
- Signals that were ignored when pytest was started (`nohup`, `&` in a script) have their default action in
  the processes that tests start. A handler in pytest does that: exec(2) resets handlers and keeps the rest.
- Each test has a timeout: pytest-timeout's signal fails the test and the run continues. If the signal is
  lost, `faulthandler_timeout` ends the run with a trace of all threads.
"""

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import FrameType

RUN_MARK = "PYTEST_RUN_MARK"
GRACE_S = 2.0
"""For processes that end by themselves when their parent is gone, and for those just forked."""
_GIVE_UP_S = 30.0
_POLL_S = 0.05
_RESTORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE)


def guard_this_run() -> None:
    """Marks this process's environment, and starts the guard; once a run, in each process of pytest."""
    mark = uuid.uuid4().hex
    # A run inside a run (a test of this module, or a worker of pytest-xdist) carries the marks of both.
    os.environ[RUN_MARK] = ":".join(filter(None, (os.environ.get(RUN_MARK), mark)))
    without_mark = {name: value for name, value in os.environ.items() if name != RUN_MARK}
    subprocess.Popen(
        [sys.executable, __file__, str(os.getpid()), mark],
        env=without_mark,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def restore_signals_of_children() -> None:
    """Gives signals that are ignored here their default action in processes that are started from here."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in _RESTORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            # SIGINT must end this process too; the others stay without effect in it, as they were.
            handler = signal.default_int_handler if number == signal.SIGINT else _ignore
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which children would inherit."""


def marked(mark: str) -> dict[int, str]:
    """The processes whose environment has `mark`, by id, with their command lines; not this one."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = command.strip()
    return found


def kill_marked(mark: str) -> dict[int, str]:
    """SIGKILL for all of them, until there is none; gives those that were killed."""
    killed: dict[int, str] = {}
    deadline_s = time.monotonic() + _GIVE_UP_S
    while (found := marked(mark)) and time.monotonic() < deadline_s:
        for pid, command in found.items():
            with suppress(OSError):
                process = os.pidfd_open(pid)
                try:
                    # The id may be another process's by now: look again, at what the descriptor stands for.
                    if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        killed[pid] = command
                finally:
                    os.close(process)
        time.sleep(_POLL_S)
    return killed


def main() -> None:
    """Waits for the end of the process PID, and kills what carries MARK a moment later."""
    pid, mark = int(sys.argv[1]), sys.argv[2]
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    deadline_s = time.monotonic() + GRACE_S
    while marked(mark) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    for killed, command in kill_marked(mark).items():
        print(f"the test run left process {killed} behind, killed: {command:.200}", file=sys.stderr)


if __name__ == "__main__":
    main()
