"""The bounds of a range on the command line."""

from typing import Any

import click

from ...errors import SelectionInvalid
from ...records.bounds import Bound, parse_bound


class BoundType(click.ParamType[Bound]):
    """A number, or a time in RFC 3339 or ns: `parse_bound`."""

    name = "bound"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Bound:
        """The bound; a mistake ends the command with exit code 2."""
        try:
            bound: Bound = parse_bound(value) if isinstance(value, str) else value
        except SelectionInvalid as error:
            self.fail(str(error), param, ctx)
        return bound


BOUND = BoundType()
