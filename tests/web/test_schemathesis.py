"""Requests that schemathesis generates from the description, valid and invalid, to the real web tier."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection
from windvane.config import Settings
from windvane.store.catalog.alarm_book import AlarmBook
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store
from windvane.web.app import api_description

from tests.processes import Running
from tests.store.catalog.test_alarms import REFERENCE, event
from tests.web.served_home import Home

# Its tests share one ID each, of which pytest-xdist would run one.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.alone]

REQUEST_TIMEOUT_S = 20.0
# Violations of rules that a schema cannot express have these statuses. The schemas of chunks and WebSockets
# are incomplete.
_RULES = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "416", "422", "429"]
CONFIGURATION = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": _RULES},
            # A condition that fails (410, 412) is found before a mistake in the body.
            "negative_data_rejection": {
                "expected-statuses": ["400", "401", "403", "404", "405", "409", "410", "412", "415", "422"]
            },
        },
        "operations": [
            {
                "include-path-regex": "^/ingest|^/erp5|/live$",
                "checks": {"positive_data_acceptance": {"enabled": False}},
            }
        ],
    }
)
SCHEMA = schemathesis.openapi.from_dict(api_description(), config=CONFIGURATION)
BOUNDS = st.integers(-(10**19), 10**19) | st.datetimes(datetime(1970, 1, 1), datetime(2106, 1, 1)).map(
    lambda moment: f"{moment.isoformat()}Z"
)
schemathesis.openapi.format("number-or-time", BOUNDS.map(str))
KNOWN: dict[str, list[Any]] = {
    "policies": ["voice"],
    "streams": ["voice", "quiet"],
    "arrays": ["voice:spectrum", "voice:records"],
    "alarms": [REFERENCE],
    "documents": ["voice", REFERENCE],
    "dead-letters": [1, 2],
    "ingest": ["voice"],
}
"""By the part of a path: the resources that the home has, which random references never hit."""


@SCHEMA.hook
def flatmap_path_parameters(context: schemathesis.HookContext, parameters: dict[str, Any] | None) -> Any:
    assert context.operation is not None
    known = next((KNOWN[part] for part in context.operation.path.split("/") if part in KNOWN), [])
    name = next((name for name in ("ref", "id", "policy") if name in (parameters or {})), None)
    if parameters is None or name is None or not known:
        return st.just(parameters)
    return st.sampled_from(known).map(lambda value: {**parameters, name: value}) | st.just(parameters)


async def fill(path: Path) -> None:
    """A home with data for every route."""
    settings = Settings(home=path)
    async with AsyncExitStack() as opened:
        store = opened.enter_context(Store(settings.store_dir, segment_bytes=64 * 1024))
        catalog = await Catalog.open(settings.catalog_url)
        opened.push_async_callback(catalog.close)
        letters = SqlDeadLetters(settings.dead_letter_file)
        opened.callback(letters.close)
        home = Home(path, store, catalog, letters, opened)
        home.stream("voice", b"abc" * 1000, b"def", attrs={"tag": "voice", "policy": "voice"})
        home.stream("quiet", attrs={"tag": "quiet"})
        home.array("voice:spectrum", np.zeros((3, 2)), attrs={"rate_hz": 1.5})
        home.array("voice:records", np.zeros(2, dtype=[("n", "<i4"), ("v", "<f8")]))
        await catalog.put("policy", "voice", title="Voices", body={"reference": "voice"})
        for _ in range(20):
            letters.add(DeadLetter("malformed", "no event", "x", "127.0.0.1", None, b"\xc1", 5))
        await AlarmBook(catalog).record(event(0, "raised", 1))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("described") / "home"
    home.mkdir()
    asyncio.run(fill(home))
    with Running("gateway", home), Running("web", home) as running:
        yield running.ready["web"]


OPTIONS: dict[str, Any] = {
    "deadline": REQUEST_TIMEOUT_S * 1000,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
}


def check(case: schemathesis.Case[Any], web: str) -> None:
    response = case.call(base_url=web, timeout=REQUEST_TIMEOUT_S)
    # allowEmptyValue, which schemathesis does not support: an empty parameter counts as absent.
    query = parse_qs(urlsplit(str(response.request.url)).query, keep_blank_values=True)
    excluded: list[schemathesis.CheckFunction] = [negative_data_rejection] if [""] in query.values() else []
    case.validate_response(response, excluded_checks=excluded)


@SCHEMA.parametrize()
@seed(20261201)
@settings(max_examples=4, **OPTIONS)
def test_a_sample_of_requests_is_answered_as_described(case: schemathesis.Case[Any], web: str) -> None:
    check(case, web)


@pytest.mark.proof(part="inputs", sample=False)
@pytest.mark.long_running(timeout_s=1800, reason="150 requests of each operation")
@SCHEMA.parametrize()
@seed(20261202)
@settings(max_examples=150, **OPTIONS)
def test_requests_are_answered_as_described(case: schemathesis.Case[Any], web: str) -> None:
    check(case, web)
