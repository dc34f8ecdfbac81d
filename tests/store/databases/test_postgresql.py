"""Checkpoints and dead letters on a real PostgreSQL."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import sqlalchemy as sa
from windvane.errors import ConfigInvalid, DatabaseUnavailable, StoreFailed
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_schema import SCHEMA, streams
from windvane.store.databases.database import open_reader
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.interfaces import CheckpointDatabase, DeadLetters
from windvane.testing.checkpoints import CheckpointConformance, OpenCheckpoints
from windvane.testing.dead_letters import LETTER, DeadLetterConformance, OpenLetters

from deploy.kafka.local.broker import free_port
from tests.postgresql_server import PostgreSQL
from tests.processes import started

pytestmark = pytest.mark.system


class TestCheckpoints(CheckpointConformance):
    @pytest.fixture
    def open_checkpoints(self, postgresql: PostgreSQL) -> Iterator[OpenCheckpoints]:
        with ExitStack() as opened:

            def open_one() -> CheckpointDatabase:
                database = SqlCheckpointDatabase(postgresql.url)
                opened.callback(database.close)
                return database

            yield open_one


class TestDeadLetters(DeadLetterConformance):
    @pytest.fixture
    def open_letters(self, postgresql: PostgreSQL) -> Iterator[OpenLetters]:
        with ExitStack() as opened:

            def open_one(max_bytes: int) -> DeadLetters:
                letters = SqlDeadLetters(postgresql.url, max_bytes=max_bytes)
                opened.callback(letters.close)
                return letters

            yield open_one


@pytest.mark.parametrize("make", [SqlCheckpointDatabase, SqlDeadLetters])
def test_tables_of_a_later_version_are_left_alone(
    postgresql: PostgreSQL, make: type[SqlCheckpointDatabase] | type[SqlDeadLetters]
) -> None:
    make(postgresql.url).close()
    for schema in ("windvane_checkpoints", "windvane_dead_letters"):
        postgresql.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        postgresql.run(f"CREATE TABLE IF NOT EXISTS {schema}.schema_version (version INTEGER)")
        postgresql.run(f"UPDATE {schema}.schema_version SET version = 99")
    with pytest.raises(StoreFailed, match=r"format 99.*Use the Windvane that wrote it"):
        make(postgresql.url)


def test_the_version_of_before_format_2_is_upgraded(postgresql: PostgreSQL) -> None:
    SqlCheckpointDatabase(postgresql.url).close()
    postgresql.run("UPDATE windvane_checkpoints.schema_version SET version = 5")
    with closing(open_reader(postgresql.url, SCHEMA)):  # a tier that starts before the worker
        pass
    SqlCheckpointDatabase(postgresql.url).close()
    with closing(open_reader(postgresql.url, SCHEMA)) as reader, reader.reading("look") as connection:
        found = connection.exec_driver_sql("SELECT version FROM windvane_checkpoints.schema_version")
        assert found.scalar() == 6


def test_processes_that_start_together_make_the_tables_once(postgresql: PostgreSQL) -> None:
    program = (
        "import sys; from windvane.store.databases.checkpoint import SqlCheckpointDatabase;"
        "print(SqlCheckpointDatabase(sys.argv[1]).database_id.hex())"
    )
    with ExitStack() as running:
        children = [
            running.enter_context(
                started([sys.executable, "-c", program, postgresql.url], stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        made = {child.communicate(timeout=60)[0] for child in children}
    assert len(made) == 1
    assert {child.returncode for child in children} == {0}


def test_a_server_that_cannot_be_reached_is_an_error_without_the_password() -> None:
    url = f"postgresql://windvane:s3cret@127.0.0.1:{free_port()}/windvane"
    with pytest.raises(DatabaseUnavailable, match=r"windvane:\*\*\*@.*runs and can be reached") as away:
        SqlCheckpointDatabase(url)
    assert "s3cret" not in str(away.value)
    letters = SqlDeadLetters(url)  # a gateway starts without them
    with pytest.raises(DatabaseUnavailable):
        letters.add(LETTER)


def test_a_reader_makes_no_tables_and_writes_nothing(postgresql: PostgreSQL) -> None:
    with pytest.raises(StoreFailed, match="do not exist yet"):
        open_reader(postgresql.url, SCHEMA)
    SqlCheckpointDatabase(postgresql.url).close()
    reader = open_reader(postgresql.url, SCHEMA)

    def write() -> None:
        with reader.transaction("write") as connection:
            connection.execute(sa.delete(streams))

    with pytest.raises(StoreFailed, match="read-only"):
        write()
    reader.close()


def test_secrets_in_the_query_of_a_url_are_not_shown() -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/windvane?user=wind&password=s3cret"
    with pytest.raises(DatabaseUnavailable) as away:
        SqlCheckpointDatabase(url)
    assert "s3cret" not in str(away.value)


@pytest.mark.parametrize("url", ["postgresql", "postgresql://host:port/database"])
def test_a_url_that_is_not_valid_is_an_error_with_an_example(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="postgresql://user:password@host/database"):
        SqlCheckpointDatabase(url)


def test_a_session_that_the_server_ends_is_replaced(postgresql: PostgreSQL) -> None:
    database = SqlCheckpointDatabase(postgresql.url)
    end_sessions = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'windvane windvane_checkpoints'"
    )

    def read_after_the_end() -> None:
        with database._database.reading("read after the end") as connection:
            postgresql.run(end_sessions)
            connection.execute(sa.text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        read_after_the_end()
    assert database.positions() == {}
    database.close()
