"""The example of an operation in CONTRIBUTING.md runs, and meets the requirements of the generated page."""

from typing import Any

import numpy as np
from windvane.processors.operations.base.operation import collected_operations, parameters_of
from windvane.testing.streams import run, whole

from tests.docs.operations_page import description, parameter_texts
from tests.docs.snippets import ROOT


def test_the_example_of_an_operation_runs() -> None:
    _, example, _ = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```python\n", 2)
    package = "windvane.processors.operations"
    module = {"__name__": f"{package}.deadband", "__package__": package}
    with collected_operations() as found:
        exec(example.partition("```")[0], module)
    cls: Any = found["deadband"]
    rows = run(cls(width=2.0), whole(3).blocks(np.array([[-3.0], [0.5], [2.0]]))).rows
    assert rows.tolist() == [[-3.0], [0.0], [0.0]]
    assert description(cls)
    assert parameter_texts(cls).keys() == parameters_of(cls)[1].keys()
