"""Recordings and streams to test operations with: those of `windvane.testing`, by short names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from windvane.operations import Block, Events, Operation
from windvane.testing import streams
from windvane.testing.streams import Cut, Output, cuts, firsts, one, whole
from windvane.testing.streams import operation_of_step as op

__all__ = ["Cut", "Output", "audio", "cuts", "firsts", "one", "op", "run", "run_with_restarts", "whole"]

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SECOND_NS = 1_000_000_000


def audio(name: str) -> Path:
    """A recording; if the data is absent, the test is skipped and says so."""
    path = DATA / "audio" / name
    if not path.exists():
        pytest.skip(f"needs {name} of the test data, which is not next to this checkout")
    return path


def run(operation: Operation, blocks: Iterable[Block | Events], *, gaps: bool = False) -> Output:
    """As `windvane.testing.streams.run`; built-in operations also leave out events that complete no row."""
    return _without_empty_events(streams.run(operation, blocks, gaps=gaps))


def run_with_restarts(
    make: Callable[[], Operation], blocks: Sequence[Block | Events], *, gaps: bool = False
) -> Output:
    """As `windvane.testing.streams.run_with_restarts`, with the check of `run`."""
    return _without_empty_events(streams.run_with_restarts(make, blocks, gaps=gaps))


def _without_empty_events(output: Output) -> Output:
    for block in output.blocks:
        assert np.all(np.diff(block.times.ends, prepend=block.first) > 0)
    return output
