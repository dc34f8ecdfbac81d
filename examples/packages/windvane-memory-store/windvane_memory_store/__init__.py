"""A Windvane store engine: streams and arrays in the memory of one process, for tests.

Open `store.py` first; `writers.py` has what is hard to get right.
"""

from .store import MemoryStore

__all__ = ["MemoryStore"]
