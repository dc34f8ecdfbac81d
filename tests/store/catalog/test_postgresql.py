"""The catalog on a real PostgreSQL: the tests of test_changes.py, and the upgrade of an earlier version."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from windvane.store.catalog.catalog import Catalog

from tests.postgresql_server import PostgreSQL
from tests.store.catalog.test_changes import *  # noqa: F403
from tests.store.catalog.test_migration import VERSION_1, check_upgraded

pytestmark = pytest.mark.system


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
