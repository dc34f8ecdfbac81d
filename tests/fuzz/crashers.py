"""Inputs with which fuzzing found a fault; each fault is fixed, and the tests replay the input.

A crasher is an input of `target.take`: the protocol, the size of the pieces, and the bytes.
"""

CRASHERS: dict[str, bytes] = {}
