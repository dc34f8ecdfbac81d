"""Every fixture through the real forward port: what is stored, what is answered, what is kept as refused."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.ingest.wire.broken import BROKEN, ODD
from tests.ingest.wire.notation import Fixture
from tests.ingest.wire.well_formed import WELL_FORMED
from tests.ingest.wire.wire_site import WireSite, wire_site

# One gateway for all: what a fixture leaves behind would be found by the next.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WireSite]:
    async with wire_site(tmp_path_factory.mktemp("wire")) as site:
        yield site


def by_name(fixture: Fixture) -> str:
    return fixture.name


@pytest.mark.parametrize("fixture", WELL_FORMED, ids=by_name)
async def test_what_forwarders_send_is_taken(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome


@pytest.mark.parametrize("fixture", BROKEN, ids=by_name)
async def test_what_is_broken_costs_itself_alone(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome


@pytest.mark.parametrize("fixture", ODD, ids=by_name)
async def test_what_an_event_means_is_not_the_gateways_business(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome
