"""Sends each fixture to the real forward port: checks what is stored, answered and kept as dead letters."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.ingest.wire.broken import BROKEN, ODD
from tests.ingest.wire.json_text import BROKEN_JSON, JSON
from tests.ingest.wire.notation import Fixture, Outcome, Stored
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


@pytest.mark.parametrize("fixture", [*JSON, *BROKEN_JSON], ids=by_name)
async def test_json_on_the_same_port(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome


@pytest.mark.parametrize("fixture", BROKEN, ids=by_name)
async def test_what_is_broken_costs_itself_alone(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome


@pytest.mark.parametrize("fixture", ODD, ids=by_name)
async def test_an_event_needs_a_time_and_may_hold_anything(site: WireSite, fixture: Fixture) -> None:
    assert await site.play(fixture) == fixture.outcome


@pytest.mark.parametrize("fixture", [*WELL_FORMED, *JSON], ids=by_name)
async def test_where_a_message_is_cut_makes_no_difference(site: WireSite, fixture: Fixture) -> None:
    expected = joined(fixture.outcome)
    for cut in range(1, len(fixture.sent)):
        assert joined(await site.play(fixture, cut=cut)) == expected, f"cut at byte {cut}"


def joined(outcome: Outcome) -> Outcome:
    """Single events that ask for no ack come in runs, which the reads cut: one behind the other here."""
    chunks: list[Stored] = []
    for chunk in outcome.stored:
        if chunks and chunk.chunk_id is None and chunks[-1].chunk_id is None:
            tag, payload, events, _ = chunks.pop()
            chunks.append(Stored(tag, payload + chunk.payload, events + chunk.events, None))
        else:
            chunks.append(chunk)
    return outcome._replace(stored=tuple(chunks))


def is_one_message(fixture: Fixture) -> bool:
    """Sent once: what is cut from it is never a whole message."""
    return len(fixture.stored) == 1 and fixture.stored[0].events < 3 and fixture.answered.count(b"ack") < 2


ONE_MESSAGE = [fixture for fixture in [*WELL_FORMED, *JSON] if is_one_message(fixture)]


@pytest.mark.parametrize("fixture", ONE_MESSAGE, ids=by_name)
async def test_of_a_message_that_breaks_off_nothing_is_stored_and_nothing_acked(
    site: WireSite, fixture: Fixture
) -> None:
    for end in range(len(fixture.sent)):
        outcome = await site.play_and_leave(fixture.sent[:end])
        assert outcome == Outcome(b"", (), (), closed=True), f"broken off behind byte {end}"
