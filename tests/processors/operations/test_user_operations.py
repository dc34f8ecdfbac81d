"""Users' operations: functions and classes as steps, edits, and mistakes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.base.block import Block, EventTimes
from windvane.processors.operations.base.operation import Operation
from windvane.processors.operations.base.registry import operations, set_user_operations
from windvane.processors.operations.base.state_codec import decode_state, encode_state
from windvane.processors.operations.base.steps import make_operation
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.store.catalog.policy import Step

from tests.processors.streams import op, whole

CLIP = """
from typing import Annotated

import numpy as np
from msgspec import Meta
from windvane.processors.operation import operation

@operation("clip")
def clip(block, *, limit: Annotated[float, Meta(gt=0)] = 1.0):
    return np.clip(block.rows, -limit, limit)
"""

COUNTER = """
from dataclasses import dataclass
from windvane.processors.operation import Operation, operation

@dataclass
class Seen:
    rows: int = 0

@operation("counter")
class Counter(Operation):
    input = "samples"
    output = "samples"

    def __init__(self):
        self._seen = Seen()

    def process(self, block):
        self._seen = Seen(self._seen.rows + FACTOR * len(block.rows))
        return None

    def state(self):
        return self._seen

    def restore(self, state):
        self._seen = Seen(state.rows)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "operations"
    home.mkdir(mode=0o700)
    yield home
    set_user_operations({})


def write(path: Path, text: str) -> None:
    """Replaces the file, so that it differs from the previous one for any clock resolution."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    before = path.stat().st_mtime_ns if path.exists() else 0
    if new.stat().st_mtime_ns <= before:
        os.utime(new, ns=(before + 1, before + 1))
    new.replace(path)


def samples(*values: float) -> Block:
    rows = np.array(values).reshape(-1, 1)
    return Block(rows, 0, EventTimes(np.array([len(rows)]), np.array([7])), 100.0, ("x",))


def make(name: str, **parameters: object) -> Operation:
    return make_operation(Step(operation=name, parameters=dict(parameters)))


def test_a_function_becomes_a_step_with_its_parameters(folder: Path) -> None:
    write(folder / "clip.py", CLIP)
    assert UserOperations(folder).refresh() == {"clip"}
    given = make("clip", limit=2).process(samples(-5, 1, 3))
    assert isinstance(given, Block)
    assert given.rows.ravel().tolist() == [-2, 1, 2]
    assert (given.rate_hz, given.columns, given.row_times_ns.tolist()) == (100.0, ("x",), [7, 7, 7])


def test_its_parameters_are_checked_as_those_of_built_in_ones(folder: Path) -> None:
    write(folder / "clip.py", CLIP)
    UserOperations(folder).refresh()
    with pytest.raises(PolicyInvalid, match='limit of "clip" is -1, must be a number over 0'):
        make("clip", limit=-1)
    with pytest.raises(PolicyInvalid, match='no parameter "limits"; did you mean "limit"'):
        make("clip", limits=1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return block.rows[:1]", "took 3 rows and gave an array of shape"),
        ("return 'rows'", "the function gave 'rows'"),
        ("return (block, 5)", "the function gave"),
    ],
)
def test_an_invalid_result_of_a_function_is_reported(folder: Path, body: str, reason: str) -> None:
    write(
        folder / "odd.py",
        "from windvane.processors.operations.base.operation import operation\n"
        f'@operation("odd")\ndef odd(block):\n    {body}\n',
    )
    UserOperations(folder).refresh()
    with pytest.raises(OperationFailed, match=reason):
        make("odd").process(samples(1, 2, 3))


def test_a_changed_file_is_stale_until_it_is_loaded_again_and_state_goes_over(folder: Path) -> None:
    write(folder / "counter.py", "FACTOR = 1\n" + COUNTER)
    own = UserOperations(folder)
    assert own.is_stale()
    own.refresh()
    assert not own.is_stale()
    old = make("counter")
    old.process(samples(1, 2, 3))

    write(folder / "counter.py", "FACTOR = 10\n" + COUNTER)
    assert own.is_stale()
    kept = encode_state(type(old), old.state())
    assert own.refresh() == {"counter"}
    new = make("counter")
    new.restore(decode_state(type(new), kept))
    new.process(samples(1, 2))
    assert new.state().rows == 3 + 20
    assert decode_state(type(new), encode_state(type(new), new.state())).rows == 23


def test_a_broken_edit_keeps_the_former_operation_and_reports_the_error_position(folder: Path) -> None:
    write(folder / "clip.py", CLIP)
    own = UserOperations(folder)
    own.refresh()
    write(folder / "clip.py", CLIP + "\nimport no_such_module\n")
    assert own.refresh() == frozenset()
    assert "clip.py, line 12: ModuleNotFoundError" in own.broken[folder / "clip.py"]
    assert not own.is_stale()
    assert make("clip").process(samples(5)) is not None

    write(folder / "clip.py", CLIP)
    assert own.refresh() == {"clip"}
    assert own.broken == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", "line 1: SyntaxError"),
        ("x = 1", "holds no operation"),
        (CLIP.replace('"clip"', '"spectrum"'), "'spectrum' is a built-in operation"),
        (CLIP.replace('"clip"', '"cl ip"'), "not a valid name of an operation"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        ("raise KeyboardInterrupt", "line 1: KeyboardInterrupt"),
        ("class PanicException(BaseException): ...\nraise PanicException('index')", "PanicException: index"),
        ("class Mute(BaseException):\n  def __str__(self): raise self\nraise Mute", "line 3: Mute"),
        (COUNTER.replace('    output = "samples"\n', ""), "does not say its `output`"),
        (CLIP.replace("Annotated[float, Meta(gt=0)]", '"Nonsense"'), "NameError: name 'Nonsense'"),
    ],
)
def test_a_file_that_cannot_be_loaded_does_not_affect_others(folder: Path, text: str, reason: str) -> None:
    write(folder / "counter.py", "FACTOR = 1\n" + COUNTER)
    write(folder / "bad.py", text)
    own = UserOperations(folder)
    assert own.refresh() == {"counter"}
    assert reason in own.broken[folder / "bad.py"]


def test_the_first_file_of_an_operation_name_keeps_it(folder: Path) -> None:
    write(folder / "a.py", CLIP)
    write(folder / "b.py", CLIP)
    own = UserOperations(folder)
    own.refresh()
    assert own.files == {"clip": folder / "a.py"}
    assert "'clip' is in a.py too" in own.broken[folder / "b.py"]


def test_code_that_others_could_have_written_is_not_run(folder: Path) -> None:
    write(folder / "clip.py", CLIP)
    (folder / "clip.py").chmod(0o666)
    own = UserOperations(folder)
    own.refresh()
    assert "other users can write it" in own.broken[folder / "clip.py"]
    assert "clip" not in operations()


def test_removing_a_file_removes_its_operation(folder: Path) -> None:
    write(folder / "clip.py", CLIP)
    own = UserOperations(folder)
    own.refresh()
    (folder / "clip.py").unlink()
    assert own.refresh() == {"clip"}
    with pytest.raises(PolicyInvalid, match='"clip" is not known'):
        make("clip")


def test_a_missing_folder_means_no_operations(tmp_path: Path) -> None:
    own = UserOperations(tmp_path / "operations")
    assert not own.is_stale()
    assert own.refresh() == frozenset()


def documented(heading: str) -> str:
    """The first block of Python below a heading of the page."""
    page = (Path(__file__).parents[3] / "docs" / "own-operations.md").read_text()
    return page.partition(heading)[2].partition("```python\n")[2].partition("```")[0]


def test_the_page_s_typed_state_is_saved_without_a_pickle_and_outlives_an_edit(folder: Path) -> None:
    file = folder / "mean.py"
    text = (
        "from dataclasses import dataclass, replace\nimport numpy as np\nfrom numpy.typing import NDArray\n"
        "from windvane.processors.operations.base.operation import Operation, operation\n"
        + documented("### The saved state")
        + """
    input = output = "samples"
    kept = MeanState(np.zeros(2))

    def process(self, block):
        self.kept = MeanState(self.kept.sums + block.rows.sum(axis=0), self.kept.count + len(block.rows))

    def state(self):
        return self.kept

    def restore(self, state):
        self.kept = state
"""
    )
    write(file, text)
    own = UserOperations(folder)
    own.refresh()
    old: Any = op("mean")
    old.process(next(whole(5).blocks(np.ones((5, 2)))))
    saved = encode_state(type(old), old.state())
    assert saved[0] == 1
    write(file, text + "# edited\n")
    assert own.refresh() == {"mean"}
    new: Any = op("mean")
    assert type(new) is not type(old)
    new.restore(decode_state(type(new), saved))
    new.process(next(whole(5).blocks(np.ones((5, 2)))))
    assert (new.kept.sums.tolist(), new.kept.count) == ([10, 10], 10)
