"""The shipped suite for operations finds what breaks a promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from windvane.operations import Block, Operation
from windvane.testing.operations import SampleConformance


class Sound(Operation):
    """The difference of each row to the one before; the first row of the stream, and behind a gap, is 0."""

    input = output = "samples"
    state_type: ClassVar[Any] = dict[str, Any]

    def __init__(self) -> None:
        self.last: list[float] = []
        self.stop = 0

    def process(self, block: Block) -> Block:
        samples = block.rows.astype(np.float64)
        before = self.last if self.last and block.first == self.stop else samples[0].tolist()
        self.last, self.stop = samples[-1].tolist(), block.stop
        return replace(block, rows=np.diff(samples, axis=0, prepend=[before]))

    def state(self) -> Any:
        return {"last": self.last, "stop": self.stop}

    def restore(self, state: Any) -> None:
        if state is not None:
            self.last, self.stop = state["last"], state["stop"]


class ForgetsAtARestart(Sound):
    state_type: ClassVar[Any] = type(None)

    def state(self) -> Any:
        return None


class DependsOnTheCut(Sound):
    def process(self, block: Block) -> Block:
        self.last = []
        return super().process(block)


class JoinsOverGaps(Sound):
    def process(self, block: Block) -> Block:
        self.stop = block.first
        return super().process(block)


class MixesChannels(Sound):
    def process(self, block: Block) -> Block:
        return super().process(replace(block, rows=block.rows - block.rows.mean(axis=1, keepdims=True)))


class WritesIntoItsInput(Sound):
    def process(self, block: Block) -> Block:
        block.rows[:] = 0
        return super().process(block)


class KeepsEveryRow(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def process(self, block: Block) -> Block:
        self.kept.append(block.rows.copy())
        return super().process(block)


class SavesEveryRow(KeepsEveryRow):
    def state(self) -> Any:
        return super().state() | {"kept": self.kept}

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.kept = list(state["kept"]) if state else []


class ChangesItsStateLater(Sound):
    def state(self) -> Any:
        self.given = {"last": self.last, "stop": self.stop}
        return self.given

    def process(self, block: Block) -> Block:
        gave = super().process(block)
        if hasattr(self, "given"):
            self.given["last"] = self.last
        return gave


CUT = "test_no_cut_and_no_restart_changes_a_row"
MEMORY = "test_memory_is_bounded"
INPUT = "test_its_input_stays_unchanged"
CHANNELS = "test_each_channel_is_as_if_it_were_alone"
GAPS = "test_nothing_is_joined_over_a_gap"
SAVED = "test_a_restored_state_is_saved_as_the_same_bytes"


def check(test: str, make: type[Operation]) -> None:
    suite = SampleConformance()
    getattr(suite, test)(make)


@pytest.mark.parametrize("test", [CUT, MEMORY, INPUT, CHANNELS, SAVED])
def test_a_sound_operation_passes(test: str) -> None:
    check(test, Sound)


@pytest.mark.parametrize(
    ("make", "test"),
    [
        (ForgetsAtARestart, CUT),
        (DependsOnTheCut, CUT),
        (ChangesItsStateLater, CUT),
        (JoinsOverGaps, GAPS),
        (MixesChannels, CHANNELS),
        (WritesIntoItsInput, INPUT),
        (KeepsEveryRow, MEMORY),
        (SavesEveryRow, MEMORY),
    ],
)
def test_a_broken_promise_is_found(make: type[Operation], test: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(test, make)
