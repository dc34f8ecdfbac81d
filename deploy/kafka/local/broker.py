"""A real Apache Kafka on this machine: one node (broker and controller), Java and no Docker.

    python deploy/kafka/local/broker.py --data /tmp/kafka            # prints 127.0.0.1:PORT when it is ready
    python deploy/kafka/local/broker.py --data /tmp/kafka --port 9092 --ready-file bootstrap.txt

`make kafka` brings the server's jars into build/kafka once; afterwards no network is needed. The server ends
on SIGTERM, on Ctrl-C, and when the standard input is a pipe and closes, so that it never outlives its parent.
The data stays in its folder: started over it again it holds what it held.
"""

import argparse
import ctypes
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
JARS = HERE.parents[2] / "build" / "kafka" / "lib"
CLUSTER_ID = "windvane-local-kafka00"  # 22 characters: Kafka wants those of a UUID in base64
HEAP_BYTES = 384 * 1024 * 1024
READY_S = 90.0
STOP_S = 30.0
HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)
# To the kernel the parent is the thread: this one lives as long as the process.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="kafka")


class BrokerFailed(RuntimeError):
    """The server could not be started; the message says why and what to do."""


def missing() -> str | None:
    """What this machine lacks to run the broker, and how to get it; None if nothing is missing."""
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17: install it (Debian: openjdk-17-jre-headless)"
    if not any(JARS.glob("kafka_*.jar")):
        return (
            "Apache Kafka's jars are not in build/kafka: install Maven (Debian: maven) and run `make kafka`"
        )
    return None


def free_port() -> int:
    """A TCP port of loopback without a listener now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class LocalBroker:
    """One Kafka node over the folder `data`, made where it does not exist.

    `listeners` are security protocols in addition to PLAINTEXT, on free ports; `properties` is the
    server's configuration on top of the defaults here; `format_options` go to Kafka's storage tool, which
    creates the first users of SCRAM.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        listeners: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
    ) -> None:
        self.data = data
        self.ports = {"PLAINTEXT": port or free_port(), **{name: free_port() for name in listeners}}
        self._controller_port = free_port()
        self._properties = dict(properties or {})
        self._format_options = list(format_options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT of the plain listener."""
        return f"{HOST}:{self.ports['PLAINTEXT']}"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.data / "server.log"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise BrokerFailed("the broker does not run; start it first")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers. Raises `BrokerFailed`."""
        if lack := missing():
            raise BrokerFailed(lack)
        self.data.mkdir(parents=True, exist_ok=True)
        configuration = self.data / "server.properties"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        configuration.chmod(0o600)
        with self.log.open("ab") as log:
            if not (self.data / "log" / "meta.properties").exists():
                options = ["-t", CLUSTER_ID, "-c", str(configuration), *self._format_options]
                format_storage = self._java("kafka.tools.StorageTool", "format", *options)
                if subprocess.run(format_storage, stdout=log, stderr=log, check=False).returncode:
                    raise BrokerFailed(f"the storage cannot be formatted:\n{self._log_end()}")
            self._process = _SPAWNER.submit(
                subprocess.Popen,
                self._java("kafka.Kafka", str(configuration)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # One call into the C library, already loaded, between fork and exec.
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            ).result()
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: the server has no time for anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help within 30 seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def ended(self) -> int | None:
        """The exit status of a server that has ended."""
        return None if self._process is None else self._process.poll()

    def _settings(self) -> dict[str, str]:
        bound = [f"{name}://{HOST}:{port}" for name, port in self.ports.items()]
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": ",".join([*bound, f"CONTROLLER://{HOST}:{self._controller_port}"]),
            "advertised.listeners": ",".join(bound),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in self.ports)]
            ),
            "log.dirs": str(self.data / "log"),
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # One node alone: there is no other member to wait for.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # After a SIGKILL it waits until its former self counts as gone.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            **self._properties,
        }

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            "java",
            f"-Xmx{HEAP_BYTES // (1024 * 1024)}m",
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            "-cp",
            f"{JARS}/*",
            main,
            *arguments,
        ]

    def _wait_until_ready(self) -> None:
        """Until every listener accepts: a Kafka node opens them when it is in its cluster and unfenced."""
        deadline = time.monotonic() + READY_S
        for port in self.ports.values():
            while not _accepts(port):
                if self.ended() is not None:
                    raise BrokerFailed(f"the server ended by itself:\n{self._log_end()}")
                if time.monotonic() > deadline:
                    raise BrokerFailed(f"the server was not ready within {READY_S:g} s:\n{self._log_end()}")
                time.sleep(0.02)

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _end_with_parent() -> None:
    """In the child, before it becomes the server: SIGKILL when the parent is gone, however that ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Run a broker until a signal ends it; the exit status."""
    parser = argparse.ArgumentParser(
        description="A real Apache Kafka on this machine, one node.",
        epilog="Example: broker.py --data /tmp/kafka --port 9092",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of its data, created if it is absent"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one"
    )
    parser.add_argument("--ready-file", type=Path, help="gets HOST:PORT when the broker is ready")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the server; may be repeated",
    )
    given = parser.parse_args()
    broker = LocalBroker(
        given.data.absolute(),
        port=given.port,
        properties=dict(each.partition("=")[::2] for each in given.set),
    )
    wake, woken = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.write(woken, b"."))
    try:
        broker.start()
    except BrokerFailed as error:
        print(f"broker.py: {error}", file=sys.stderr)
        return 1
    try:
        if given.ready_file is not None:
            draft = given.ready_file.with_name(f"{given.ready_file.name}.draft")
            draft.write_text(f"{broker.bootstrap}\n")
            draft.replace(given.ready_file)
        print(broker.bootstrap, flush=True)
        _wait_for_end(broker, wake)
    finally:
        broker.stop()
    return 0


def _wait_for_end(broker: LocalBroker, wake: int) -> None:
    """Until a signal came, the standard input was a pipe and has closed, or the server has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        if not os.isatty(0):
            # Not permitted for a file and for /dev/null, which say nothing about the parent.
            with suppress(PermissionError):
                selector.register(0, selectors.EVENT_READ)
        while broker.ended() is None:
            for key, _ in selector.select(timeout=1):
                if key.fd == wake or not os.read(0, 4096):
                    return


if __name__ == "__main__":
    sys.exit(main())
