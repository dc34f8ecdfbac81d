"""`make run` on a terminal: it says what it does, and Ctrl-C ends it cleanly at any moment."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import COMMAND, environment, started, wait_until

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
END_S = 60.0
CTRL_C = b"\x03"


def without_colours(text: str) -> str:
    """What a terminal shows of the log, without SGR sequences."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class OnTerminal:
    """A command whose terminal is ours: what it prints, and keys that are pressed."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.screen = b""
        self._terminal = terminal
        os.set_blocking(terminal, False)

    def look(self) -> bytes:
        """All that was printed so far."""
        with suppress(BlockingIOError, OSError):  # an error: the other end is closed
            while piece := os.read(self._terminal, 65_536):
                self.screen += piece
        return self.screen

    def press(self, key: bytes) -> None:
        """The terminal makes a signal of Ctrl-C, for all of its foreground processes."""
        os.write(self._terminal, key)

    def end(self) -> str:
        """All that it printed, when it has ended."""

        def has_ended() -> bool:
            self.look()
            return self.process.poll() is not None

        wait_until(has_ended, "the end of the command", timeout_s=END_S)
        return self.look().decode()


@contextmanager
def on_terminal(command: list[str], folder: Path) -> Iterator[OnTerminal]:
    ours, its = os.openpty()
    try:
        with started(
            ["setsid", "--ctty", *command],
            cwd=folder,
            env=environment(folder / "home", {"MAKEFLAGS": ""}),
            stdin=its,
            stdout=its,
            stderr=its,
        ) as process:
            os.close(its)
            yield OnTerminal(process, ours)
    finally:
        os.close(ours)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make install` needs, with a virtual environment in which nothing is installed yet."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "step.sh", tmp_path / "deploy")
    for name in ("pyproject.toml", "constraints.txt", ".venv/bin/pip", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def install(pip: str) -> list[str]:
    return ["make", "install", f"PIP_INSTALL={pip}"]


def ended_cleanly(screen: str) -> bool:
    return not re.search(r"\*\*\*|Error|Traceback|Interrupt", screen)


def test_ctrl_c_while_pip_works_ends_it_with_a_plain_message(checkout: Path) -> None:
    # It ignores Ctrl-C, as a part of pip may.
    pip = f"echo $$$$ > {checkout}/pid; echo Collecting numpy; trap '' INT; exec sleep 600; :"
    with on_terminal(install(pip), checkout) as make:
        wait_until(lambda: b"installing Python packages" in make.look(), "it says what it does")
        make.press(CTRL_C)
        screen = make.end()
    assert "stopped while installing Python packages; the same command continues from there" in screen
    assert ended_cleanly(screen), screen
    assert not (checkout / ".venv" / ".installed").exists()
    pid = (checkout / "pid").read_text().strip()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "pip has ended")


def test_a_step_that_is_reported_to_end_alone_does_not_count_as_done(checkout: Path) -> None:
    pip = f"echo > {checkout}/began; exec sleep 600; :"
    with on_terminal(install(pip), checkout) as make:
        wait_until((checkout / "began").exists, "the step has begun")
        wait_until(lambda: waits(make.process.pid), "make waits for it")
        [step] = Path(f"/proc/{make.process.pid}/task/{make.process.pid}/children").read_text().split()
        os.kill(int(step), signal.SIGINT)
        make.end()
    # Not always by the signal: GNU make 4.3 may fail while it handles it, since its child ends meanwhile.
    assert make.process.returncode != 0
    assert not (checkout / ".venv" / ".installed").exists()


def test_a_step_that_fails_shows_all_that_it_said_and_fails_make(checkout: Path) -> None:
    with on_terminal(install("echo Collecting numpy; echo no such version >&2; false"), checkout) as make:
        screen = make.end()
    assert make.process.returncode == 2
    assert "Collecting numpy" in screen
    assert "no such version" in screen
    assert not (checkout / ".venv" / ".installed").exists()


def test_a_quick_step_is_done_and_says_nothing(checkout: Path) -> None:
    with on_terminal(install("echo Collecting"), checkout) as make:
        screen = make.end()
    assert make.process.returncode == 0
    assert "Collecting" not in screen
    assert (checkout / ".venv" / ".installed").exists()


UP = f"{' '.join(COMMAND)} up --forward 127.0.0.1:0 --web 127.0.0.1:0"


@pytest.mark.parametrize("moment", ["while it loads", "when it is up"])
def test_ctrl_c_ends_windvane_without_an_error_of_make(tmp_path: Path, moment: str) -> None:
    (tmp_path / "Makefile").write_text(f'run:\n\t@exec {ROOT}/deploy/step.sh --show "it ran" {UP}\n')
    with on_terminal(["make", "run"], tmp_path) as make:
        if moment == "while it loads":
            wait_until(lambda: loading(make.process.pid), "Python loads modules")
            wait_until(lambda: waits(make.process.pid), "make waits for it")
        else:
            wait_until(lambda: b"Windvane is up" in make.look(), "it is up")
        make.press(CTRL_C)
        screen = make.end()
    assert ended_cleanly(screen), screen
    if moment == "when it is up":
        assert without_colours(screen).count(": ended") == 3  # each tier, in order


def waits(pid: int) -> bool:
    """Whether a process sleeps. GNU make 4.3 prints an error if Ctrl-C comes while it starts a step."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def loading(make: int) -> bool:
    """Whether a grandchild of make is a Python that has begun."""
    children = Path(f"/proc/{make}/task/{make}/children").read_text().split()
    for child in children:
        with suppress(FileNotFoundError):
            for grandchild in Path(f"/proc/{child}/task/{child}/children").read_text().split():
                if (
                    os.path.basename(sys.executable).encode()
                    in Path(f"/proc/{grandchild}/cmdline").read_bytes()
                ):
                    return True
    return False
