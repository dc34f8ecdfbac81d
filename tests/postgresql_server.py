"""The real PostgreSQL that tests ask for: one server a session, and an empty database for each test."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy.kafka.local.broker import free_port
from tests.processes import wait_until

USER = "windvane"
_numbers = itertools.count(1)


@dataclass
class PostgreSQL:
    """A server with an empty database."""

    programs: Path
    port: int
    database: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{self.database}"

    def with_database(self, name: str) -> "PostgreSQL":
        """The same server with another, empty database."""
        self.run(f"CREATE DATABASE {name}")
        return replace(self, database=name)

    def run(self, sql: str) -> None:
        """Executes statements."""
        subprocess.run(
            [self.programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", self.url],
            input=sql.encode(),
            check=True,
            timeout=60,
        )


def programs() -> Path | None:
    """The folder of the server's programs, Debian's or one in PATH; None if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """The server; where its programs lack, the test is skipped (with CI set it fails) and says so."""
    found = programs()
    if found is None:
        lack = "PostgreSQL is not installed: run `make postgresql`"
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)
    with _running_in_a_folder_of_its_own(found) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgreSQL) -> PostgreSQL:
    """An empty database."""
    return postgresql_server.with_database(f"test{next(_numbers)}")


@contextmanager
def _running_in_a_folder_of_its_own(programs: Path) -> Iterator[PostgreSQL]:
    # Not below pytest's folder, to which a new run of pytest denies other users access.
    with tempfile.TemporaryDirectory(prefix="windvane-postgresql-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield from _running(Path(folder) / "data", programs)


def _running(data: Path, programs: Path) -> Iterator[PostgreSQL]:
    data.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:
        # The server does not run as root, and its user must reach the folder.
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        shutil.chown(data, 65534, 65534)
    port = free_port()

    def call(*command: object) -> None:
        subprocess.run(
            [*as_user, *map(str, command)],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )

    call(programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    call(programs / "pg_ctl", "-D", data, "-l", data / "log", "-w", "-o", options, "start")
    try:
        yield PostgreSQL(programs, port)
    finally:
        # Not with pg_ctl: the session may end within a test that may start no process.
        pid_file = data / "postmaster.pid"
        os.kill(int(pid_file.read_text().partition("\n")[0]), signal.SIGQUIT)
        wait_until(lambda: not pid_file.exists(), "end of the server")
