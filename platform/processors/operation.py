"""Former name of `windvane.operations`, which operations of users import."""

from .operations.base.operation import Operation, operation

__all__ = ["Operation", "operation"]
