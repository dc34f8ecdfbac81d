"""The frame of all operations: the abstract class, the registry, and how a policy's steps become operations.

An operation is a class with a decorator; the keyword parameters of its `__init__` are what a policy may set:

    @operation("gain")
    class Gain(Operation):
        input = "samples"
        output = "samples"

        def __init__(self, *, factor: Annotated[float, Meta(gt=0)] = 1.0) -> None: ...

Types are checked and converted with msgspec, so that ranges (`msgspec.Meta`) and choices (`Literal`) need no
code of their own; what depends on several parameters, `__init__` refuses with PolicyInvalid.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, get_type_hints

import msgspec
import numpy as np

from ....errors import OperationFailed, PolicyInvalid
from ....store.catalog.policy import Policy, Step
from ....typed import prepare
from .block import Block, Given
from .parameter_types import describe


class PartlyRejected(OperationFailed):
    """An operation could not work on a part of its input, and has gone on behind it.

    `given` is what it gave for the rest.
    """

    def __init__(self, reason: str, given: Given) -> None:
        super().__init__(reason)
        self.given = given


SOURCES = ("bytes", "events")
"""What a pipeline starts from: the bytes that are appended to the data stream, and decoded events."""

BUILT_IN = (
    "operations.wav.decoder",
    "operations.pcm",
    "operations.fields",
    "operations.gaps",
    "operations.filter",
    "operations.resample",
    "operations.spectrum",
    "operations.welch",
    "operations.bands",
    "operations.envelope",
    "operations.bearing",
    "operations.kurtosis",
    "operations.best_band",
    "operations.sliding_dft",
    "operations.order",
    "operations.features",
    "operations.statistics",
    "learning.model",
    "learning.trained_model",
    "learning.condition",
)
"""Modules of `windvane.processors` that register operations when they are imported."""


class Operation(ABC):
    """One step of a pipeline, for one data stream.

    Not safe for several threads at once: one block after the other. What it keeps between blocks is bounded,
    and the class says by what.
    """

    input: ClassVar[str]
    """Kind of input by default: "bytes" (Block of uint8), "events" (Events), or what steps give."""
    accepts: ClassVar[tuple[str, ...]] = ()
    """Further kinds that it can take, in order of preference."""
    reads_stored_source: ClassVar[bool] = False
    """Whether it looks at earlier rows of its source in the store, so that the source must be kept."""
    output: ClassVar[str]
    """Kind of what it gives: "samples", "values", "spectrum", "features", "score", …"""
    state_type: ClassVar[Any] = type(None)
    """Type of what `state` gives: dataclasses, named tuples, plain values, arrays. If a class has a `state`
    and does not say its type, its states are pickled."""
    state_version: ClassVar[int] = 1
    """Of `state_type`, up to 65,535. A state of another version is not read: raise it if the type changes."""

    state_pickles: ClassVar[bool] = False
    """Whether a `state_type` has pickles in it, which `restore` reads: estimators of libraries."""

    @abstractmethod
    def process(self, block: Any) -> Given:
        """Takes the next block (Events where the input is "events"); gives the rows it completes, if any.

        A block that does not begin where the one before ended (`first` jumps) follows a gap: state that
        joins rows begins anew there, and the rows that are given behind it are numbered so that a gap shows
        in them too. Where gaps come to light within a block, as they do in decoders that look at event
        times, several blocks are given.

        How the stream is cut into blocks changes no result, to the last bit. Where it raises
        (OperationFailed, or anything), the state is as it was before the call: the block is lost to this
        step, and the next one is taken as following a gap. So whoever put several chunks into one block can
        try them one by one. But PartlyRejected has what was given for the rest of the block, and the state
        has gone on.
        """

    def counts(self) -> Mapping[str, int]:
        """What it counted since its stream began, such as gaps; the worker's status shows what is not 0."""
        return {}

    def state(self) -> Any:
        """All that is kept between blocks: a `state_type`, or what can be pickled. Later blocks do not change
        what was given.
        """
        return None

    def restore(self, state: Any) -> None:  # noqa: B027
        """Goes on from a `state()` of an operation with the same parameters; None begins anew."""

    def take_up(self, state: Any) -> None:
        """Goes on with what was learned elsewhere; OperationFailed where that is not possible."""
        raise OperationFailed(f"{type(self).__name__} keeps no model that could be put back.")


class FunctionOperation(Operation):
    """An operation that a function makes of each block by itself: it keeps nothing between blocks.

    The function takes the block, and the keyword parameters that a policy may set. It gives what
    `Operation.process` may give, or an array with as many rows as the block has: they take the place of the
    block's rows.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **parameters: Any) -> None:
        self._parameters = parameters

    def process(self, block: Any) -> Given:
        """What the function gives; OperationFailed where it is neither blocks nor as many rows."""
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

_built_in: dict[str, type[Operation]] = {}
_users: Mapping[str, type[Operation]] = {}
_registry: ContextVar[dict[str, type[Operation]]] = ContextVar("operations", default=_built_in)


def operation(name: str, *, input: str = "samples", output: str = "") -> Callable[[Decorated], Decorated]:
    """Decorator: policies name the class, or the function (see `FunctionOperation`), as `name`.

    A later one takes an earlier one's place. `input` and `output` are the kinds of what a function takes and
    gives, by default the same; a class says so itself.
    """

    def register(decorated: Decorated) -> Decorated:
        if isinstance(decorated, type) and issubclass(decorated, Operation):
            _registry.get()[name] = decorated
        elif inspect.isfunction(decorated):
            members = {
                "__doc__": decorated.__doc__,
                "__module__": decorated.__module__,
                "function": staticmethod(decorated),
                "input": input,
                "output": output or input,
            }
            _registry.get()[name] = type(decorated.__name__, (FunctionOperation,), members)
        else:
            raise TypeError(f"@operation({name!r}) decorates a function or a subclass of Operation")
        return decorated

    return register


@contextmanager
def collected_operations() -> Iterator[dict[str, type[Operation]]]:
    """What is decorated inside goes into the dictionary that this gives, and nowhere else."""
    found: dict[str, type[Operation]] = {}
    before = _registry.set(found)
    try:
        yield found
    finally:
        _registry.reset(before)


def built_in_operations() -> Mapping[str, type[Operation]]:
    """The operations that come with the package, by name."""
    for module in BUILT_IN:
        import_module(f"windvane.processors.{module}")
    return MappingProxyType(_built_in)


def set_user_operations(found: Mapping[str, type[Operation]]) -> None:
    """From now on these are the operations of the user's own; a built-in one of the same name goes first."""
    global _users
    _users = MappingProxyType(dict(found))


def operations() -> Mapping[str, type[Operation]]:
    """All operations that policies can name, by name."""
    return MappingProxyType({**_users, **built_in_operations()})


def make_operation(step: Step) -> Operation:
    """A new operation as the step asks for it; PolicyInvalid where there can be none."""
    cls = _class(step)
    arguments = _arguments(step, cls)
    try:
        return cls(**arguments)
    except BaseException as refusal:  # an estimator, or a user's class, can raise anything
        raise PolicyInvalid(f'step "{step.name}": {as_failure(refusal)}') from refusal


def as_failure(error: BaseException) -> Exception:
    """What other people's code has raised, as an error that ends nothing and that has a message.

    That code can raise what is no `Exception`: `sys.exit`, KeyboardInterrupt, or the panic of an extension
    module in Rust (`pyo3_runtime.PanicException`).
    """
    if isinstance(error, Exception) and error_text(error):
        return error
    if isinstance(error, SystemExit):
        failure = OperationFailed(f"it called exit({error.code!r})")
    else:
        failure = OperationFailed(f"{type(error).__name__}: {error_text(error)}".removesuffix(": "))
    return failure.with_traceback(error.__traceback__)


def error_text(error: BaseException) -> str:
    """What it says; nothing if saying it raises."""
    try:
        return str(error)
    except BaseException:  # an error's own __str__ is their code too
        return ""


def resolve_inputs(steps: Sequence[Step]) -> tuple[str, ...]:
    """Where each step's input comes from: "bytes", "events", or the name of an earlier step.

    A step's `input` names an earlier step or a kind. Without it the step takes the default kind of its
    operation, and where nothing gives that, the next of the kinds that the operation also takes. A kind means
    the nearest earlier step that gives it.

    Raises:
        PolicyInvalid: an unknown operation, a name used twice or reserved, an input that nothing before
            gives, or one of a kind that the operation does not take.
    """
    earlier: dict[str, str] = {}
    sources: list[str] = []
    for step in steps:
        cls = _class(step)
        if step.name in SOURCES or step.name in earlier:
            why = "is reserved" if step.name in SOURCES else "is that of an earlier step too"
            raise PolicyInvalid(f'step "{step.name}": its name {why}; give it another `name`')
        sources.append(_source(step, (cls.input, *cls.accepts), earlier))
        earlier[step.name] = cls.output
    return tuple(sources)


def check_pipeline(policy: Policy) -> None:
    """PolicyInvalid where the policy's pipeline could not run; names the step and what is allowed."""
    sources = resolve_inputs(policy.pipeline)
    kept = {step.name for step in policy.pipeline if step.keep}
    for step, source in zip(policy.pipeline, sources, strict=True):
        if _class(step).reads_stored_source and source not in kept:
            raise PolicyInvalid(
                f'step "{step.name}": "{step.operation}" is trained on the stored rows of "{source}", which '
                f'has keep = false; set keep = true for "{source}"'
            )
        if source == "bytes" and policy.format != "raw":
            raise PolicyInvalid(
                f'step "{step.name}": reads the bytes of records, but the format of the policy is '
                f'"{policy.format}"; set format = "raw", or begin with an operation that reads events, such '
                'as "fields"'
            )
        make_operation(step)


def _class(step: Step) -> type[Operation]:
    known = operations()
    if step.operation not in known:
        raise PolicyInvalid(
            f'step "{step.name}": the operation "{step.operation}" is not known{meant(step.operation, known)}'
        )
    return known[step.operation]


def _source(step: Step, takes: tuple[str, ...], earlier: Mapping[str, str]) -> str:
    if step.input is None:
        source = next((found for kind in takes if (found := _nearest(kind, earlier))), None)
        if source is None:
            raise PolicyInvalid(
                f'step "{step.name}": needs {" or ".join(takes)}, which no earlier step gives; put one '
                "before it"
            )
        return source
    source = _nearest(step.input, earlier)
    if source is None:
        there = dict.fromkeys([*SOURCES, *earlier, *earlier.values()])
        raise PolicyInvalid(
            f'step "{step.name}": the input "{step.input}" is given by no earlier '
            f"step{meant(step.input, there)}"
        )
    kind = earlier.get(source, source)
    if kind not in takes:
        raise PolicyInvalid(
            f'step "{step.name}": the input "{step.input}" is {kind}, but "{step.operation}" takes '
            f"{' or '.join(takes)}"
        )
    return source


def _nearest(name: str, earlier: Mapping[str, str]) -> str | None:
    if name in SOURCES or name in earlier:
        return name
    return next((step for step, kind in reversed(list(earlier.items())) if kind == name), None)


def parameters_of(cls: type[Operation]) -> tuple[dict[str, Any], dict[str, inspect.Parameter]]:
    """Types and parameters, by name, of what a policy may set of an operation."""
    taker = cls.function if issubclass(cls, FunctionOperation) else cls.__init__
    hints = get_type_hints(taker, include_extras=True)
    parameters = inspect.signature(taker).parameters
    return hints, {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def _arguments(step: Step, cls: type[Operation]) -> dict[str, Any]:
    hints, known = parameters_of(cls)
    arguments: dict[str, Any] = {}
    for name, value in step.parameters.items():
        if name not in known:
            raise PolicyInvalid(
                f'step "{step.name}": "{step.operation}" has no parameter "{name}"{meant(name, known)}'
            )
        wanted = hints.get(name, Any)
        prepare(wanted)
        try:
            arguments[name] = msgspec.convert(value, wanted)
        except msgspec.ValidationError as refusal:
            raise PolicyInvalid(
                f'step "{step.name}": {name} of "{step.operation}" is {value!r}, must be '
                f"{describe(hints.get(name, Any))}"
            ) from refusal
        except BaseException as error:  # a type of a user's class that no value can be checked against
            raise PolicyInvalid(
                f'step "{step.name}": {name} of "{step.operation}" cannot be checked: {as_failure(error)}'
            ) from error
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise PolicyInvalid(
                f'step "{step.name}": {name} is missing, which "{step.operation}" needs: '
                f"{describe(hints.get(name, Any))}"
            )
    return arguments


def meant(given: str, allowed: Iterable[str]) -> str:
    """The end of a message that refuses a name: what may have been meant, and what there is."""
    names = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(given.lower(), names, n=1)
    hint = f'; did you mean "{names[close[0]]}"?' if close else ";"
    return f"{hint} Allowed: {', '.join(names.values()) or 'none'}"
