"""`windvane operation`: operations of one's own, written, tried and listed."""

import asyncio
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from ..errors import ConfigInvalid, OperationFileInvalid
from .common.options import home_options, home_options_of
from .data import print_table, require_home

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..processors.operations.base.block import Block, Events
    from ..processors.worker.reprocessing.trial import Trial
    from ..store.catalog.policy import Policy

_FUNCTION = '''"""An operation of your own, which policies name as a step: `operation = "{name}"`.

The worker loads the file again when it changes. `windvane operation check {name} STREAM` tries it on
data that is there. See docs/own-operations.md.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta
from windvane.operations import operation


@operation("{name}", input="samples")
def {function}(block, *, limit: Annotated[float, Meta(gt=0)] = 1.0):
    """Samples, clipped to ±limit."""
    # block.rows is (rows, channels); also there: block.rate_hz, block.columns, block.row_times_ns
    return np.clip(block.rows, -limit, limit)
'''

_CLASS = '''"""An operation of your own, which policies name as a step: `operation = "{name}"`.

The worker loads the file again when it changes, and gives the new one the state of the old one. `windvane
operation check {name} STREAM` tries it on data that is there. See docs/own-operations.md.
"""

from dataclasses import replace

import numpy as np
from windvane.operations import Operation, operation


@operation("{name}")
class {function}(Operation):
    """The running mean of each channel since the stream began."""

    input = "samples"
    output = "values"

    def __init__(self, *, start: float = 0.0):
        # The keyword parameters are what a policy may set.
        self._sum = start
        self._count = 0

    def process(self, block):
        # block.rows is (rows, channels): one row comes out for each that comes in.
        counts = self._count + np.arange(1, len(block.rows) + 1)[:, None]
        rows = block.rows.astype(np.float64)
        # One sum after the other, from the last of the block before: else a cut would change the last bits.
        sums = np.cumsum(np.vstack([np.broadcast_to(self._sum, rows[:1].shape), rows]), axis=0)[1:]
        self._sum, self._count = sums[-1], int(counts[-1, 0])
        return replace(block, rows=sums / counts)

    def state(self):
        # All that is kept between blocks: it goes into the checkpoint.
        return self._sum, self._count

    def restore(self, state):
        self._sum, self._count = state
'''


@click.group(short_help="Operations of your own: new, check, list.")
def operation() -> None:
    """Operations of your own: Python files in HOME/operations that policies can name as steps.

    \b
    Examples:
      windvane operation new clip
      windvane operation check clip turbine.t01.gearbox --set limit=0.5
      windvane operation list
    """


@operation.command()
@click.argument("name")
@click.option("--class", "as_class", is_flag=True, help="A class, which keeps state; else a function.")
@home_options
def new(settings: Settings, name: str, as_class: bool) -> None:
    """Write HOME/operations/NAME.py, to begin with.

    \b
    Examples:
      windvane operation new clip
      windvane operation new running-mean --class
    """
    if not name.isascii() or not name.replace("-", "_").isidentifier():
        raise ConfigInvalid(
            f"{name!r} is not a valid name of an operation; use letters, digits, dashes and underscores"
        )
    from ..processors.operations.base.registry import is_built_in

    if is_built_in(name):
        raise ConfigInvalid(f"{name!r} is a built-in operation; give yours another name")
    words = name.replace("-", "_").split("_")
    function = "".join(word.capitalize() for word in words) if as_class else "_".join(words)
    settings.operations_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.operations_dir / f"{name.replace('-', '_')}.py"
    text = (_CLASS if as_class else _FUNCTION).format(name=name, function=function)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigInvalid(f"{path} is there already; give the operation another name") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"wrote {path}\nnext: edit it, then `windvane operation check {name} STREAM`")


@operation.command("list")
@home_options_of(if_missing="ignore")
def list_operations(settings: Settings) -> None:
    """List all operations, with their input, their output, and the file or package that brings them.

    \b
    Examples:
      windvane operation list
    """
    from ..errors import ExtensionInvalid
    from ..extensions import OPERATIONS
    from ..processors.operations.base.registry import operation_class, operation_names
    from ..processors.operations.base.user_operations import UserOperations

    own = UserOperations(settings.operations_dir)
    own.refresh()
    rows: list[tuple[str, str, str, str, str]] = []
    problems = [*own.broken.values(), *OPERATIONS.conflicts.values()]
    for name in operation_names():
        try:
            cls = operation_class(name)
        except ExtensionInvalid as error:
            problems.append(str(error))
            continue
        file, extension = own.files.get(name), OPERATIONS.extensions.get(name)
        if file is not None:
            origin = file.name
            if extension is not None:
                problems.append(extension.unusable(f"{file} has an operation of that name, which is used"))
        else:
            assert extension is not None
            origin = "built in" if extension.is_built_in else f"{extension.package} {extension.version}"
        paragraph = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
        purpose = re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]
        rows.append((name, " or ".join([cls.input, *cls.accepts]), cls.output, origin, purpose))
    print_table(("operation", "takes", "gives", "from", ""), rows, empty="")
    for problem in problems:
        click.echo(f"not loaded: {problem}", err=True)


@operation.command(short_help="Try an operation on recorded data.")
@click.argument("name")
@click.argument("stream", required=False)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A parameter, as JSON or text.")
@click.option(
    "--chunks", type=click.IntRange(min=1), default=100, show_default=True, help="How many of the last ones."
)
@home_options
def check(settings: Settings, name: str, stream: str | None, given: Sequence[str], chunks: int) -> None:
    """Load the operation NAME and run it on what STREAM has recorded, behind the steps of its policy.

    Shows what goes in and what comes out, and says where the operation breaks a promise: rows must not depend
    on how the data is cut into blocks, nor on a restart. Nothing is stored.

    \b
    Examples:
      windvane operation check clip
      windvane operation check clip turbine.t01.gearbox --set limit=0.5
    """
    from ..processors.operations.base.user_operations import UserOperations

    own = UserOperations(settings.operations_dir)
    own.refresh()
    for path, reason in own.broken.items():
        if path.stem == name.replace("-", "_"):
            raise OperationFileInvalid(reason)
    parameters = dict(_parameter(each) for each in given)
    if stream is None:
        from ..processors.operations.base.steps import make_operation
        from ..store.catalog.policy import Step

        make_operation(Step(operation=name, parameters=parameters))
        click.echo(f"{name} can be loaded and made; name a stream to run it on (`windvane ls`)")
        return
    from ..processors.worker.reprocessing.trial import try_operation
    from ..store.interface import open_store
    from .common.interrupts import interrupted_between_blocks

    require_home(settings)
    recorded = open_store(settings.store, settings.home).stream(stream)
    policy = policy_of_stream(settings, str(recorded.attrs.get("policy")))
    with interrupted_between_blocks() as check_interrupt:
        trial = try_operation(
            recorded, policy, name, parameters, chunks=chunks, between_blocks=check_interrupt
        )
    _show(name, trial)
    if trial.errors or trial.violations:
        click.get_current_context().exit(1)


def policy_of_stream(settings: Settings, reference: str) -> "Policy":
    """The current policy of a stream. Raises `ConfigInvalid` if it was deleted."""
    from ..errors import DocumentNotFound
    from ..store.catalog.catalog import Catalog
    from ..store.catalog.policy import policy_from_mapping

    async def read() -> "Policy":
        catalog = await Catalog.open(settings.catalog_url)
        try:
            return policy_from_mapping((await catalog.get("policy", reference)).body)
        finally:
            await catalog.close()

    try:
        return asyncio.run(read())
    except DocumentNotFound:
        raise ConfigInvalid(
            f"the policy {reference!r} of this stream is gone; create it again, then come back"
        ) from None


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigInvalid(f"--set {text}: write NAME=VALUE, for example --set limit=0.5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show(name: str, trial: "Trial") -> None:
    click.echo(f"{trial.chunks} chunks")
    click.echo(f"  in   {_described(trial.inputs)}")
    click.echo(f"  out  {_described(trial.outputs)}")
    first = [str(error) or repr(error) for error in trial.errors[:1]]
    for line in first:
        click.secho(f"✗ {name} raised {len(trial.errors)} times, first: {line}", fg="red", err=True)
        _show_place(name, trial.errors[0])
    for violation in trial.violations:
        click.secho(f"✗ {violation}", fg="red", err=True)
    if not trial.errors and not trial.violations:
        click.secho("✓ the same rows however the data is cut, and over a restart", fg="green")


def _show_place(name: str, error: Exception) -> None:
    import traceback

    from ..processors.operations.base.registry import operation_class

    module = sys.modules.get(operation_class(name).__module__)
    file = getattr(module, "__file__", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            click.echo(f"  {frame.filename}, line {frame.lineno}: {frame.line}", err=True)


def _described(given: Sequence["Block | Events"]) -> str:
    import numpy as np

    from ..processors.operations.base.block import Block

    blocks = [each for each in given if isinstance(each, Block)]
    if not blocks:
        events = sum(len(each.records) for each in given if not isinstance(each, Block))
        return f"{events:,} events" if given else "nothing"
    kinds = {(block.rows.dtype.str, block.rows.shape[1:]) for block in blocks}
    if len(kinds) > 1:
        return f"rows of {len(kinds)} different shapes: an array would be set aside at each change"
    rows = np.concatenate([block.rows for block in blocks])
    head = f"{len(rows):,} rows of {rows.dtype} {rows.shape[1:]}"
    if blocks[0].rate_hz:
        head += f" at {blocks[0].rate_hz:g} Hz"
    columns = blocks[0].columns or tuple(
        str(index) for index in range(rows.shape[-1] if rows.ndim > 1 else 1)
    )
    flat = rows.reshape(len(rows), -1)
    if not np.issubdtype(flat.dtype, np.number):
        return head
    lines = [head]
    lines += [
        _column(label, flat[:, index]) for index, label in enumerate(columns[:8]) if index < flat.shape[1]
    ]
    if flat.shape[1] > 8:
        lines.append(f"       … and {flat.shape[1] - 8} more columns")
    return "\n".join(lines)


def _column(label: str, values: "NDArray[np.generic]") -> str:
    import numpy as np

    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return f"       {label:<20.20} no finite value"
    return (
        f"       {label:<20.20} {finite.min():>11.4g} … {finite.max():<11.4g} mean {finite.mean():<11.4g} "
        f"{sparkline(numbers)}"
    )


def sparkline(values: "NDArray[np.float64]", *, cells: int = 40) -> str:
    """The course of the values as a line of block characters: the mean of each cell's share of them."""
    import numpy as np

    means = [part[np.isfinite(part)] for part in np.array_split(values, min(cells, len(values)))]
    heights = [float(part.mean()) if len(part) else math.nan for part in means]
    known = [height for height in heights if not math.isnan(height)]
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if math.isnan(h) else "▁▂▃▄▅▆▇█"[min(7, int(8 * (h - low) / span))] for h in heights)


def summary_of_rows(rows: Mapping[str, int]) -> str:
    """`spectrum 12, features 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in rows.items()) or "nothing"
