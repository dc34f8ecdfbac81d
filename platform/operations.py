"""What an operation is written with: `from windvane.operations import Operation, operation, Block`.

An operation is a function or a class with the decorator `operation`. It is found in a file of
HOME/operations (docs/own-operations.md), or by an entry point of its package (docs/write-an-operation.md).
"""

from .errors import OperationFailed, PolicyInvalid
from .processors.operations.base.block import Block, Events, EventTimes, Given, blocks_of
from .processors.operations.base.operation import Operation, PartlyRejected, operation
from .processors.operations.base.reach import Reach
from .processors.operations.base.state_codec import Integer
from .processors.operations.base.steps import check_pipeline, make_operation, resolve_inputs

__all__ = [
    "Block",
    "EventTimes",
    "Events",
    "Given",
    "Integer",
    "Operation",
    "OperationFailed",
    "PartlyRejected",
    "PolicyInvalid",
    "Reach",
    "blocks_of",
    "check_pipeline",
    "make_operation",
    "operation",
    "resolve_inputs",
]
