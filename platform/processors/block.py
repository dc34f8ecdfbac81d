"""Former name of `windvane.processors.operations.base.block`, which operations of users import."""

from .operations.base.block import Block

__all__ = ["Block"]
