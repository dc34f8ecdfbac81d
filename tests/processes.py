"""Real Windvane processes for tests and benchmarks: started as users start them, asked as users ask them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 60.0
END_S = 60.0
COMMAND = [sys.executable, "-m", "windvane.cli"]
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def windvane(home: Path, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[bytes]:
    """Runs one command to its end; what it printed is in the answer."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(home), capture_output=True, timeout=timeout_s, check=False
    )


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without Windvane's variables, over `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WINDVANE_")}
    return {**inherited, "WINDVANE_HOME": str(home), "PYTHONUNBUFFERED": "1", **(extra or {})}


def wait_until(holds: Callable[[], object], what: str, *, timeout_s: float = START_S) -> None:
    """Waits for something that other processes bring about; says what it was where it never comes."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.01)


@contextmanager
def started(
    command: Sequence[str | Path], *, end_s: float = END_S, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """`subprocess.Popen` (and its options) whose end is waited for; killed if the test fails before that.

    Raises subprocess.TimeoutExpired if it has not ended `end_s` seconds after the block.
    """
    with subprocess.Popen(list(command), **options) as process:
        try:
            yield process
            if process.stdin is not None:
                process.stdin.close()
            process.wait(timeout=end_s)
        finally:
            # Popen's own end of the block waits without a bound.
            process.kill()


def what_send_says(home: Path, to: str, folder: Path) -> str:
    """What a `windvane send` to a port where nothing is acked says first; it is ended then."""
    said = folder / "said"
    (folder / "sent").write_bytes(b"x")
    command = [*COMMAND, "send", "t", str(folder / "sent"), "--to", to]
    with said.open("wb") as file, started(command, env=environment(home), stderr=file) as sending:
        wait_until(lambda: "Retrying" in said.read_text(), "what is wrong")
        sending.terminate()
    return said.read_text()


class Running:
    """`windvane gateway`, `process`, `web` or `up` over a home directory, on free ports of loopback.

    Several gateways or workers over one home are distinguished by `instance`. `inside` is a command that runs
    the process in surroundings of its own (`unshare …`) and becomes it.
    """

    def __init__(
        self,
        kind: str,
        home: Path,
        *options: str,
        environ: Mapping[str, str] | None = None,
        log: Path | None = None,
        instance: str = "",
        inside: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.instance = instance
        self.home = home
        self.ready: dict[str, str] = {}
        self._name = f"{kind}-{instance}" if instance else kind
        self._options = [*(["--instance", instance] if instance else []), *options]
        self._environ = environ or {}
        self._inside = list(inside)
        self.log = log or home.with_name(f"{home.name}-{self._name}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it is ready; after a `kill` it comes back on the same port."""
        self.home.mkdir(parents=True, exist_ok=True)
        ready_file = self.home / f"{self._name}-ready.json"
        ready_file.unlink(missing_ok=True)
        ports = {
            "gateway": ["--forward", self.ready.get("forward", "127.0.0.1:0")],
            "web": ["--web", self.ready.get("web", "127.0.0.1:0").removeprefix("http://")],
        }
        ports["up"] = ports["gateway"] + ports["web"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._inside,
                    *COMMAND,
                    self.kind,
                    "--ready-file",
                    str(ready_file),
                    *ports.get(self.kind, []),
                    *self._options,
                ],
                env=environment(self.home, self._environ),
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: ready_file.exists() or self._process_ended(), f"start of {self._name}")
        if not ready_file.exists():
            raise RuntimeError(f"{self._name} did not start:\n{self.log.read_text()[-4000:]}")
        self.ready = json.loads(ready_file.read_text())

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def forward(self) -> tuple[str, int]:
        """Where the forward port listens."""
        host, _, port = self.ready["forward"].rpartition(":")
        return host, int(port)

    def kill(self) -> None:
        """SIGKILL: no farewell of any kind."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60)

    def wait(self, *, timeout_s: float = END_S) -> int:
        """Waits for its end; the exit status."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def end(self) -> None:
        """SIGTERM, and wait, where it runs at all."""
        if self._process is not None:
            self.stop()

    def __enter__(self) -> "Running":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def status(self) -> dict[str, Any]:
        """The status that the tier reports on its socket."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        tier = self.kind + (f"-{self.instance}" if self.instance else "")
        connection.sock.connect(str(self.home / "run" / f"{tier}.sock"))
        connection.request("GET", "/status")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def cpu_s(self) -> float:
        """User and system seconds of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_S

    def peak_bytes(self) -> int:
        """The largest resident set of the process so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not say VmHWM")
