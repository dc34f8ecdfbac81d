"""The analyst's side: a home's data streams and data arrays as Python and NumPy know them, without a copy.

    >>> from windvane.lab import connect
    >>> context = connect("~/.local/share/windvane")        # doctest: +SKIP
    >>> spectrum = context.arrays["turbine.t07.blade1:spectrum"]    # doctest: +SKIP
    >>> spectrum[-100:].mean(axis=0)                         # doctest: +SKIP

Nothing has to run and no network is needed: the files of the home are read as they are, and as they grow.
Open `context.py` first; `stream.py` and `array.py` are what it gives.
"""

from .array import Array
from .context import Context, connect
from .snapshot import Snapshot
from .stream import Stream

__all__ = ["Array", "Context", "Snapshot", "Stream", "connect"]
