"""WebSockets whose clients must mask their frames (RFC 6455, section 5.1), which aiohttp does not check."""

from typing import Protocol

from aiohttp import WSCloseCode, web
from aiohttp.http import WebSocketError, WebSocketWriter
from aiohttp.web_request import BaseRequest

_MASKED = 0x80
_LENGTH_BYTES = {126: 2, 127: 8}


class MaskCheck:
    """Walks over a client's bytes from frame to frame, however they are cut into reads."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> bool:
        """Whether every frame that begins in `data` is masked."""
        at = 0
        while at < len(data):
            if self._skip:
                skipped = min(self._skip, len(data) - at)
                self._skip -= skipped
                at += skipped
                continue
            self._header.append(data[at])
            at += 1
            if len(self._header) < 2:
                continue
            second = self._header[1]
            if not second & _MASKED:
                return False
            length_bytes = _LENGTH_BYTES.get(second & ~_MASKED, 0)
            if len(self._header) < 2 + length_bytes:
                continue
            length = int.from_bytes(self._header[2:]) if length_bytes else second & ~_MASKED
            self._skip = 4 + length
            self._header.clear()
        return True


class _Reader(Protocol):
    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class MaskedWebSocket(web.WebSocketResponse):
    """A WebSocket that a frame without a mask ends, with close code 1002 (protocol error)."""

    def _post_start(self, request: BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        # aiohttp has no place of its own for this: its reader is wrapped as soon as it has been made.
        connection = request.protocol
        early = bytes(connection._message_tail)
        super()._post_start(request, protocol, writer)
        checked = _CheckedReader(connection._payload_parser, self)
        connection._payload_parser = checked
        checked.check(early)

    def end_unmasked(self) -> None:
        """What `receive` meets next is the error, for which it closes the connection."""
        assert self._reader is not None
        self._reader.set_exception(
            WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client must mask its frames (RFC 6455, 5.1)")
        )


class _CheckedReader:
    def __init__(self, reader: _Reader, websocket: MaskedWebSocket) -> None:
        self._reader = reader
        self._websocket = websocket
        self._check = MaskCheck()
        self._broken = False

    def check(self, data: bytes) -> bool:
        if not self._broken and not self._check.feed(data):
            self._broken = True
            self._websocket.end_unmasked()
        return not self._broken

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        return self._reader.feed_data(data) if self.check(data) else (True, b"")

    def feed_eof(self) -> None:
        self._reader.feed_eof()
