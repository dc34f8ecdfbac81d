"""The rows that models give: one of scores for each row that they get."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..operations.base.block import Block


def columns_of(block: Block) -> tuple[str, ...]:
    """The names of the columns of rows (n, columns); `column0`, `column1`, … if they have none."""
    return block.columns or tuple(f"column{index}" for index in range(block.rows.shape[1]))


def score_attrs(
    kind: str, outputs: tuple[str, ...], estimator: str, parameters: dict[str, Any] | None, scaler: str | None
) -> dict[str, Any]:
    """The attributes of an array of scores."""
    return {
        "kind": kind,
        "columns": list(outputs),
        "estimator": estimator,
        "parameters": dict(parameters or {}),
        "scaler": scaler,
    }


def score_block(
    block: Block, scores: NDArray[np.float64], outputs: tuple[str, ...], attrs: dict[str, Any]
) -> Block:
    """Scores (n, outputs) as a block: a row for each row of `block`, at the same times."""
    return Block(
        rows=scores,
        first=block.first,
        times=block.times.of_counts(block.first, block.times.ends),
        rate_hz=block.rate_hz,
        columns=outputs,
        attrs=attrs,
    )
