"""How much memory the messages that are still on their way may take, over all connections."""

from typing import Protocol


class Receiver(Protocol):
    """Who receives a message piece by piece."""

    def admitted(self) -> None:
        """The receiver had to wait, and may continue now."""


class ReceiveBudget:
    """Bytes of incomplete messages: a receiver asks before it reads more, and waits if there is no room.

    The receiver that got room first may always continue, if necessary over the limit: so its message
    completes, and the waiting receivers are admitted in order of arrival. Memory: `limit_bytes` and one
    message. Bytes that a receiver holds before it asks are not counted (`framing.FREE_BYTES`).
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._held: dict[Receiver, int] = {}  # in the order in which they got room
        self._waiting: dict[Receiver, int] = {}  # and what they asked for

    @property
    def is_short(self) -> bool:
        """Whether a receiver waits for room."""
        return bool(self._waiting)

    def ask(self, receiver: Receiver, held_bytes: int) -> bool:
        """`receiver` has or needs `held_bytes` in all. False: it must wait until it is `admitted`."""
        before = self._held.get(receiver, 0)
        grows = held_bytes > before
        if (
            grows
            and self.used_bytes + held_bytes - before > self.limit_bytes
            and not self._is_first(receiver)
        ):
            self._waiting[receiver] = held_bytes
            return False
        self._waiting.pop(receiver, None)
        self.used_bytes += held_bytes - before
        if held_bytes:
            self._held[receiver] = held_bytes
        else:
            self._held.pop(receiver, None)
        if not grows and self._waiting:
            self._admit()
        return True

    def forget(self, receiver: Receiver) -> None:
        """It is gone, or has nothing any more."""
        self._waiting.pop(receiver, None)
        self.ask(receiver, 0)

    def _is_first(self, receiver: Receiver) -> bool:
        return next(iter(self._held), receiver) is receiver

    def _admit(self) -> None:
        first = next(iter(self._held), None)
        if first is not None and first in self._waiting:
            self._grant(first)
        for receiver in list(self._waiting):
            wanted = self._waiting.get(receiver)
            if wanted is None:
                continue
            room = self.limit_bytes - self.used_bytes + self._held.get(receiver, 0)
            if wanted > room and not self._is_first(receiver):
                break
            self._grant(receiver)

    def _grant(self, receiver: Receiver) -> None:
        wanted = self._waiting.pop(receiver)
        self.used_bytes += wanted - self._held.get(receiver, 0)
        self._held[receiver] = wanted
        receiver.admitted()
