"""The catalog on a real PostgreSQL: the tests of test_changes.py, and the upgrade of an earlier version."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec

import pytest
from windvane.store.catalog.catalog import Catalog

from tests.store.catalog.postgresql import PostgreSQL, programs, running_postgresql
from tests.store.catalog.test_changes import *  # noqa: F403
from tests.store.catalog.test_migration import VERSION_1, check_upgraded

pytestmark = pytest.mark.system

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    found = programs()
    if found is None or find_spec("asyncpg") is None:
        pytest.skip("needs a PostgreSQL server and asyncpg")
    with running_postgresql(found) as server:
        yield server


@pytest.fixture
def postgresql(server: PostgreSQL) -> PostgreSQL:
    """An empty database."""
    return server.with_database(f"test{next(_numbers)}")


@pytest.fixture
async def catalog(postgresql: PostgreSQL) -> AsyncIterator[Catalog]:
    catalog = await Catalog.open(postgresql.url)
    yield catalog
    await catalog.close()


async def test_a_catalog_of_version_1_is_upgraded(postgresql: PostgreSQL) -> None:
    postgresql.run(VERSION_1.read_text())
    catalogs = await asyncio.gather(*(Catalog.open(postgresql.url) for _ in range(3)))
    await check_upgraded(catalogs[0], catalogs[2])
    for catalog in catalogs:
        await catalog.close()
