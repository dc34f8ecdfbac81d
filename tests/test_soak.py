"""What the soak calls growth."""

import random

import pytest

from benchmarks.report import Report
from benchmarks.soak import PERIOD_S, Sample, judge

MB = 1_000_000


def samples(*, grown_bytes: float = 0.0, descriptors: float = 0.0, peaks: bool = False) -> list[Sample]:
    """A tier that grows by so much in ten minutes, with the noise of a real one."""
    chance = random.Random(1)
    found = []
    for at_s in range(0, int(PERIOD_S), 3):
        share = at_s / PERIOD_S
        peak = 30 * MB if peaks and at_s % 60 == 0 else 0
        found.append(
            Sample(
                at_s,
                anonymous_bytes=int(70 * MB + share * grown_bytes + chance.uniform(0, 0.2 * MB) + peak),
                descriptors=int(45 + share * descriptors + chance.choice([0, 0, 0, 1])),
                threads=13,
            )
        )
    return found


def failures(**grown: float | bool) -> list[str]:
    of_tier = samples(**grown)  # type: ignore[arg-type]
    return judge({"gateway": of_tier}, PERIOD_S, Report("soak"))[1]


@pytest.mark.parametrize("grown", [{}, {"peaks": True}, {"grown_bytes": 0.8 * MB}])
def test_what_stays_or_peaks_passes(grown: dict[str, float | bool]) -> None:
    assert failures(**grown) == []


def test_a_leak_of_memory_fails() -> None:
    (said,) = failures(grown_bytes=1.5 * MB)
    assert said.startswith("gateway: RssAnon grows by 1.")


def test_a_leak_of_descriptors_fails() -> None:
    (said,) = failures(descriptors=6)
    assert "descriptors grow by" in said
