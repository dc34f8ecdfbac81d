"""The bounds of a range on the command line."""

from typing import TYPE_CHECKING, Any

import click

from ...errors import SelectionInvalid

if TYPE_CHECKING:
    from ...records.bounds import Bound


class BoundType(click.ParamType["Bound"]):
    """A number, or a time in RFC 3339 or ns: `parse_bound`."""

    name = "bound"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Bound":
        """The bound; a mistake ends the command with exit code 2."""
        from ...records.bounds import parse_bound

        try:
            bound: Bound = parse_bound(value) if isinstance(value, str) else value
        except SelectionInvalid as error:
            self.fail(str(error), param, ctx)
        return bound


BOUND = BoundType()
