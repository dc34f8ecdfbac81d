"""`windvane up`, as a user starts it, for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Running

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All tiers over a new home, on free ports."""
    with Running("up", tmp_path_factory.mktemp("site") / "home") as running:
        yield running


@pytest.fixture(scope="session")
def speech() -> Path:
    """A real recording: 48 kHz, 16 bit, mono."""
    path = DATA / "audio" / "Front_Center.wav"
    if not path.exists():
        pytest.skip("the recordings in ../shared/data are not on this machine")
    return path
