"""Events and records as bytes: encoding, times, nesting, and the memory that decoding takes.

Open `events.py` first: the one place that knows how fluentd encodes events.
"""
