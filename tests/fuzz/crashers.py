"""Inputs that fuzzing broke something with, once; each is mended, and replayed by the tests.

A crasher is an input of `target.take`: the door, the size of the pieces, and the bytes.
"""

CRASHERS: dict[str, bytes] = {}
