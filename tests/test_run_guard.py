"""A test run that is killed leaves nothing behind, and one that ignores SIGINT does not pass that on."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.processes import started, wait_until
from tests.run_guard import RUN_MARK, marked

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[1]
RUNS_FOR_LONG = """
import subprocess, time
from pathlib import Path

import pytest

from tests.processes import Running

pytestmark = pytest.mark.system

def test_that_does_not_end(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home") as site:
        # Whatever is started, also what is in a session of its own and what its parent does not look after.
        subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600"], start_new_session=True)
        Path("READY").write_text(str(site.pid))
        time.sleep(600)
"""
SAYS_ITS_SIGNALS = """
import subprocess, sys
from pathlib import Path

import pytest

@pytest.mark.system
def test_children() -> None:
    program = "import signal; print(signal.getsignal(2), signal.getsignal(1).name)"
    Path("SAID").write_bytes(subprocess.run([sys.executable, "-c", program], capture_output=True).stdout)
"""


def pytest_over(test: Path, source: str) -> list[str]:
    """A run of one test file, with the plugins and rules of this one."""
    test.write_text(source)
    options = [*("-p", "tests.conftest"), *("-p", "no:cacheprovider"), f"--basetemp={test.parent / 'tmp'}"]
    configuration = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(test.parent)]
    return [sys.executable, "-m", "pytest", *configuration, *options, str(test)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_in_a_system_test_leaves_no_process(
    tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    mark = uuid.uuid4().hex
    folder = tmp_path_factory.mktemp("run")  # short: the tiers have sockets below it
    ready = folder / "ready"
    command = pytest_over(folder / "test_long.py", RUNS_FOR_LONG.replace("READY", str(ready)))
    environment = {**os.environ, "LEFT_BEHIND": mark}
    with started(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as run:
        wait_until(lambda: ready.exists() or run.poll() is not None, "the test has started its processes")
        assert run.poll() is None
        wait_until(lambda: len(marked(mark)) >= 8, "pytest, its guard, `up`, three tiers, two sleepers")
        run.send_signal(number)
        run.wait(timeout=60)
    wait_until(lambda: not marked(mark), "nothing is left")


def test_children_have_the_default_action_where_pytest_ignores_a_signal(tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = pytest_over(tmp_path / "test_signals.py", SAYS_ITS_SIGNALS.replace("SAID", str(said)))
    ignoring = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *command]
    done = subprocess.run(ignoring, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert said.read_text().split() == [
        *("<built-in", "function", "default_int_handler>"),
        "SIG_DFL",
    ]


def test_every_process_of_a_test_carries_the_mark_of_its_run() -> None:
    with started(["sleep", "600"]) as sleeper:
        assert sleeper.pid in marked(os.environ[RUN_MARK].rpartition(":")[2])
        sleeper.kill()
