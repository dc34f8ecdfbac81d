"""Asks running workers to release a stream, so that a command can change its files."""

import contextlib
import http.client
import json
import socket
from pathlib import Path

from ...config import Settings
from ...runtime.announcements import tier_sockets

HOLD_S = 60.0
"""How long a worker leaves a stream alone that a command changes."""


def release_stream(settings: Settings, stream: str, *, seconds: float) -> None:
    """Ask all workers that run to release the stream for so long; 0: until they have data for it again."""
    body = json.dumps({"reference": stream, "seconds": seconds})
    for path in tier_sockets(settings.run_dir, "worker").values():
        with contextlib.suppress(OSError, http.client.HTTPException):  # it does not run
            connection = _UnixConnection(path)
            try:
                connection.request("POST", "/streams/release", body)
                connection.getresponse().read()
            finally:
                connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
