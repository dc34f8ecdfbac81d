"""Former name of `windvane.operations`, which operations of users import."""

from .operations.base.block import Block

__all__ = ["Block"]
