"""The number of cases: a seeded sample in the ordinary suite, all with WINDVANE_PROOF=1 or --proof."""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

IS_PROOF = os.environ.get("WINDVANE_PROOF") == "1" or "--proof" in sys.argv

SEEDS = range(5) if IS_PROOF else range(1)
"""The number of recorded runs."""

_Each = TypeVar("_Each")


def sample(every: Sequence[_Each], *, seed: int, least: int) -> Sequence[_Each]:
    """Returns all of them in a proof, otherwise `least` of them in order, always including the last."""
    if IS_PROOF or len(every) <= least:
        return every
    chosen = {*random.Random(seed).sample(range(len(every)), least - 1), len(every) - 1}
    return [every[index] for index in sorted(chosen)]


@contextmanager
def no_real_syncs() -> Iterator[None]:
    """Checks after a power cut need no disk: the page cache has the same content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "fdatasync", lambda descriptor: None)
        yield
