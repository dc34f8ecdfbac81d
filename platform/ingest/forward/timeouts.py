"""How long a connection may take: handshake, message, reading its acks, silence. The time is passed in."""

from typing import NamedTuple

from ...config import GatewaySettings

RESTING_BYTES = 4096
"""A connection that sent less since the last look gives back the memory that it does not need."""


class Overdue(NamedTuple):
    """What took too long."""

    what: str
    """For the log and the counter; "" for an idle connection, which ends without a word."""
    limit_s: float
    must_abort: bool = False
    """The peer does not read, so that what is written to it would never leave."""


class State(NamedTuple):
    """What a connection does at the moment of a look."""

    is_ending: bool
    is_shaking_hands: bool
    is_paused: bool
    is_write_paused: bool
    blocks_others: bool
    """It holds memory that other connections wait for."""
    in_flight_chunks: int
    pending_bytes: int
    """Of an incomplete message."""


class Timeouts:
    """The timeouts of one connection, in seconds of the event loop's clock; `look` is called every second."""

    def __init__(self, settings: GatewaySettings, *, now_s: float) -> None:
        self.received_bytes = 0
        self.has_completed = False
        """A message was completed since the last look."""
        self.is_resting = False
        """Little came between the last two looks."""
        self._settings = settings
        self._looked_at_bytes = 0
        self._heard_s = self._began_s = self._write_paused_s = self._lively_s = now_s

    def write_paused(self, now_s: float) -> None:
        """The peer reads no acks from now on."""
        self._write_paused_s = now_s

    def end_begun(self, now_s: float) -> None:
        """The connection is being closed."""
        self._heard_s = now_s

    def look(self, now_s: float, state: State) -> Overdue | None:
        """What takes too long."""
        settings = self._settings
        came = self.received_bytes - self._looked_at_bytes
        self._looked_at_bytes = self.received_bytes
        self.is_resting = came < RESTING_BYTES
        if state.is_ending or state.is_shaking_hands:
            is_late = now_s - self._heard_s > settings.handshake_timeout_s
            if state.is_ending:
                is_late = is_late and not state.in_flight_chunks
                return Overdue("", settings.handshake_timeout_s, must_abort=True) if is_late else None
            return Overdue("handshake", settings.handshake_timeout_s) if is_late else None
        if state.is_write_paused and now_s - self._write_paused_s > settings.message_timeout_s:
            return Overdue("reading its acks", settings.message_timeout_s, must_abort=True)
        if came or state.is_paused or state.in_flight_chunks:
            self._heard_s = now_s
        elif now_s - self._heard_s > settings.idle_timeout_s:
            return Overdue("", settings.idle_timeout_s)
        if came >= RESTING_BYTES or state.is_paused:
            self._lively_s = now_s
        return self._look_at_message(now_s, state)

    def _look_at_message(self, now_s: float, state: State) -> Overdue | None:
        settings = self._settings
        if self.has_completed or state.is_paused or not state.pending_bytes:
            self.has_completed = False
            self._began_s = now_s
            return None
        if state.blocks_others and now_s - self._lively_s > settings.handshake_timeout_s:
            return Overdue("message that others waited behind", settings.handshake_timeout_s)
        allowed_s = settings.message_timeout_s + state.pending_bytes / settings.message_bytes_per_s
        return Overdue("message", allowed_s) if now_s - self._began_s > allowed_s else None
