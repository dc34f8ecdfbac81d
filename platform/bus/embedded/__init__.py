"""The embedded engine: a log of segment files in a directory of this machine.

Open `segment_log.py` first: it has the format, and what a crash can do to it. `bus.py` is the engine.
"""
