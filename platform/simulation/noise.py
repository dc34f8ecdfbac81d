"""Reproducible random numbers: noise by block, and one number for each integer."""

import numpy as np
from numpy.typing import NDArray


def white(seed: int, block: int, size: int) -> NDArray[np.float64]:
    """`size` normally distributed numbers, mean 0, variance 1: those of this block of this seed."""
    return np.random.Generator(np.random.Philox(key=(seed << 64) | block % 2**64)).standard_normal(size)


def uniform(seed: int, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each of `numbers`: SplitMix64 (Steele, Lea, Flood 2014), top 53 bits."""
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53
