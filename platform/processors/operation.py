"""Former name of `windvane.processors.operations.base.operation`, which operations of users import."""

from .operations.base.operation import Operation, operation

__all__ = ["Operation", "operation"]
