"""Work on a payload in slices: a generator that yields every few milliseconds and returns the result."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def run_to_end(slices: Generator[object, None, Result]) -> Result:
    """Run all slices without a pause; return what the generator returns, raise what it raises."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result
