"""A second machine, as far as this one can provide it: a network namespace over the same file system.

A process in it has no network but a loopback of its own. One port of this machine is forwarded to it: a
client in the namespace that connects to the port reaches the same port here, through a Unix socket. A socket
belongs to the file system and not to a network.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from tests.processes import END_S, wait_until

_HOST = "127.0.0.1"
_UNSHARE = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])]
_PIECE_BYTES = 1 << 18

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def is_available() -> bool:
    """Whether network namespaces can be made here."""
    if any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "ip")):
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False, timeout=30).returncode == 0


class OtherMachine:
    """The namespace, and the way from it to one `port` of this machine; `folder` holds the socket between."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._socket = folder / "cable.sock"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "OtherMachine":
        lead = [sys.executable, "-m", "tests.other_machine", "--socket", str(self._socket)]
        lead += ["--port", str(self._port)]
        ready = self._socket.with_suffix(".ready")
        self._processes.append(subprocess.Popen([*lead, "--end", "here"]))
        inside = [*_UNSHARE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        self._processes.append(subprocess.Popen([*inside, *lead, "--end", "there", "--ready", str(ready)]))
        wait_until(lambda: ready.exists() and self._socket.exists(), "the way to the other machine")
        return self

    @property
    def inside(self) -> list[str]:
        """A command that runs another one there, and becomes it."""
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        return ["nsenter", "--net", *user, "--target", str(self._processes[-1].pid)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait(timeout=END_S)


async def _lead(port: int, path: Path, *, end: str, ready: Path | None) -> None:
    async def connect() -> Streams:
        if end == "there":
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(_HOST, port)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await connect()
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, onward_writer), _copy(onward_reader, writer))

    if end == "there":
        server = await asyncio.start_server(serve, _HOST, port)
    else:
        server = await asyncio.start_unix_server(serve, path)
    if ready is not None:
        ready.touch()
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--end", choices=["here", "there"], required=True)
    options.add_argument("--socket", type=Path, required=True)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--ready", type=Path)
    given = options.parse_args()
    asyncio.run(_lead(given.port, given.socket, end=given.end, ready=given.ready))
