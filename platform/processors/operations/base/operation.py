"""The abstract class of all operations, operations made from functions, and the decorator that names them.

A policy may set the keyword parameters of an operation's `__init__`:

    @operation("gain")
    class Gain(Operation):
        input = "samples"
        output = "samples"

        def __init__(self, *, factor: Annotated[float, Meta(gt=0)] = 1.0) -> None: ...

`steps.py` checks each of them by its type; `__init__` checks combinations of parameters and raises
PolicyInvalid. `registry.py` finds an operation by its name.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np

from ....errors import OperationFailed
from .block import Block, Given
from .reach import Reach


class PartlyRejected(OperationFailed):
    """An operation could not process a part of its input, and has continued after it.

    `given` is its output for the rest.
    """

    def __init__(self, reason: str, given: Given) -> None:
        super().__init__(reason)
        self.given = given


class Operation(ABC):
    """One step of a pipeline, for one data stream.

    Not thread-safe: it processes one block at a time. The state that it keeps between blocks is bounded, and
    the class docstring states the bound.
    """

    input: ClassVar[str]
    """Default kind of input: "bytes" (Block of uint8), "events" (Events), or the output kind of a step."""
    accepts: ClassVar[tuple[str, ...]] = ()
    """Other kinds of input that it accepts, in order of preference."""
    reads_stored_source: ClassVar[bool] = False
    """Whether it reads earlier rows of its source from the store, so that the source must be kept."""
    output: ClassVar[str]
    """Kind of output: "samples", "values", "spectrum", "features", "score", …"""
    state_type: ClassVar[Any] = type(None)
    """Return type of `state`: dataclasses, named tuples, plain values, arrays. If a class has a `state` but
    no `state_type`, its states are pickled."""
    state_version: ClassVar[int] = 1
    """Version of `state_type`, up to 65,535. States of other versions are not read: increment it if the type
    changes."""

    state_pickles: ClassVar[bool] = False
    """Whether a `state_type` contains pickles, which `restore` reads: estimators of libraries."""

    @abstractmethod
    def process(self, block: Any) -> Given:
        """Takes the next block (Events if the input is "events"); returns the rows it completes, if any.

        A block that does not begin at the end of the previous one (`first` jumps) follows a gap: state that
        joins rows starts over there, and the indices of the output rows have a gap too. If gaps are detected
        within a block, as by decoders that read event times, several blocks are returned.

        The cutting of the stream into blocks changes no result, to the last bit. If it raises
        (OperationFailed or any other exception), the state is unchanged: the block is lost to this step, and
        the next one follows a gap. So the worker can retry the chunks of a block one by one. The exception
        is PartlyRejected: it has the output for the rest of the block, and the state is the one after it.
        """

    def counts(self) -> Mapping[str, int]:
        """Counters since the stream began, such as gaps; the worker's status shows those that are not 0."""
        return {}

    def state(self) -> Any:
        """The complete state between blocks: a `state_type`, or a picklable object. Later blocks do not
        change the returned object.
        """
        return None

    def restore(self, state: Any) -> None:  # noqa: B027
        """Resumes from a `state()` of an operation with the same parameters; None starts over."""

    def depends_on(self) -> Reach:
        """Which input rows the rows that it gives depend on; called after `process`.

        By default a row may depend on everything that came before it.
        """
        return Reach()

    def restore_model(self, state: Any) -> None:
        """Continue with a model that was changed elsewhere; OperationFailed if that is not possible."""
        former = getattr(self, "take_up", None)  # the name of this method in version 0.1
        if former is not None:
            former(state)
            return
        raise OperationFailed(f"{type(self).__name__} has no model to restore.")


class FunctionOperation(Operation):
    """An operation that applies a function to each block: it keeps nothing between blocks.

    The function takes the block, and the keyword parameters that a policy may set. It gives what
    `Operation.process` may give, or an array with as many rows as the block has: they take the place of the
    block's rows.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **parameters: Any) -> None:
        self._parameters = parameters

    def depends_on(self) -> Reach:
        """Nothing is kept between blocks, and cutting them changes no row: a row depends on one row."""
        return Reach(earlier="nothing")

    def process(self, block: Any) -> Given:
        """The result of the function; OperationFailed if it is neither blocks nor as many rows."""
        given = type(self).function(block, **self._parameters)
        if isinstance(given, np.ndarray):
            if not isinstance(block, Block) or given.shape[:1] != block.rows.shape[:1]:
                took = f"{len(block.rows)} rows" if isinstance(block, Block) else "events"
                raise OperationFailed(
                    f"the function took {took} and gave an array of shape {given.shape}; give as many "
                    "rows as came, or a Block"
                )
            same_columns = given.shape[1:] == block.rows.shape[1:]
            return dataclasses.replace(block, rows=given, columns=block.columns if same_columns else ())
        blocks = given if isinstance(given, tuple) else () if given is None else (given,)
        if not all(isinstance(each, Block) for each in blocks):
            raise OperationFailed(f"the function gave {given!r:.80}; give a Block, an array of rows, or None")
        return blocks


Decorated = TypeVar("Decorated", bound=Callable[..., Any])


_DECLARED = "__windvane_operation__"
_collected: ContextVar[dict[str, type[Operation]] | None] = ContextVar("operations", default=None)


def operation(name: str, *, input: str = "samples", output: str = "") -> Callable[[Decorated], Decorated]:
    """Decorator: registers the class, or the function (see `FunctionOperation`), under `name` for policies.

    `input` and `output` are the kinds of a function's input and output, by default the same; a class has
    members of these names. Policies can use an operation if an entry point of its package names it
    (`windvane.operations`), or if it is in a file of HOME/operations.
    """

    def declare(decorated: Decorated) -> Decorated:
        if isinstance(decorated, type) and issubclass(decorated, Operation):
            cls: type[Operation] = decorated
        elif inspect.isfunction(decorated):
            members = {
                "__doc__": decorated.__doc__,
                "__module__": decorated.__module__,
                "function": staticmethod(decorated),
                "input": input,
                "output": output or input,
            }
            cls = type(decorated.__name__, (FunctionOperation,), members)
        else:
            raise TypeError(f"@operation({name!r}) decorates a function or a subclass of Operation")
        setattr(decorated, _DECLARED, {**declared_operations(decorated), name: cls})
        collected = _collected.get()
        if collected is not None:
            collected[name] = cls
        return decorated

    return declare


def declared_operations(decorated: object) -> Mapping[str, type[Operation]]:
    """The operations that `@operation` created from this class or function, by name; none of its bases."""
    declared: Mapping[str, type[Operation]] = getattr(decorated, "__dict__", {}).get(_DECLARED, {})
    return declared


def parameters_of(cls: type[Operation]) -> tuple[dict[str, Any], dict[str, inspect.Parameter]]:
    """Types and parameters, by name, that a policy may set for an operation."""
    taker = cls.function if issubclass(cls, FunctionOperation) else cls.__init__
    hints = get_type_hints(taker, include_extras=True)
    parameters = inspect.signature(taker).parameters
    return hints, {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def check_class(name: str, cls: type[Operation]) -> None:
    """Raise TypeError if no policy can use the class, NameError if an annotation cannot be evaluated."""
    for member in ("input", "output"):
        if not isinstance(getattr(cls, member, None), str):
            raise TypeError(
                f'the class of {name!r} does not say its `{member}`; write {member} = "samples", or whatever '
                "kind it is"
            )
    parameters_of(cls)


@contextmanager
def collected_operations() -> Iterator[dict[str, type[Operation]]]:
    """Yields a dictionary of all operations decorated inside the context, by name; the last one of a name
    counts."""
    found: dict[str, type[Operation]] = {}
    before = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(before)
