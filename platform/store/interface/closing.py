"""What all parts of a store have in common: each is closed, or used in a `with` statement."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Something that `close` releases; leaving a `with` block closes it."""

    @abstractmethod
    def close(self) -> None:
        """Release what it holds. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
