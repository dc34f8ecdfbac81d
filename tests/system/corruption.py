"""A home with data in every kind of file, damage to one of them, and the data that must survive."""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from windvane.lab import connect

from tests.processes import Running, windvane
from tests.store.repair.damaging import KINDS
from tests.system.disturbance import FAST_CHECKPOINTS, Chunk, Release, chunks_of, send_until_acked

SEGMENT = f"{0:020d}.seg"
LOG_SEGMENT = f"{0:020d}.log"
CHUNKS = 20
_EVENT_BYTES = (1301, 1302, 1303)
CHUNK_BYTES = sum(_EVENT_BYTES)
POLICIES = """
[[policy]]
reference = "park"
tags = ["park.**"]
format = "raw"
partitions = 1
[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy]]
reference = "near"
tags = ["near.**"]
format = "raw"
partitions = 1

[[policy]]
reference = "third"
tags = ["third.**"]
format = "raw"
partitions = 1
"""


def payload(chunk: Chunk) -> bytes:
    """What the chunk appends to its stream."""
    entries = msgpack.Unpacker(strict_map_key=False)
    entries.feed(msgpack.unpackb(chunk.message)[1])
    return b"".join(entry[1]["message"] for entry in entries)


@dataclass
class Tiers:
    """A gateway and a worker over a home; either may be down."""

    home: Path
    bus: str = "embedded:"

    def __post_init__(self) -> None:
        self.gateway = Running("gateway", self.home, "--bus", self.bus)
        self.worker = Running("worker", self.home, "--bus", self.bus, environ=FAST_CHECKPOINTS)

    def __enter__(self) -> "Tiers":
        self.gateway.start()
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.end()
        self.gateway.end()

    def send(self, chunks: Mapping[str, Sequence[Chunk]]) -> None:
        """Until all are acked."""

        async def all_of_them() -> None:
            await asyncio.gather(
                *(
                    send_until_acked(self.gateway, list(of_tag), Release(len(of_tag)))
                    for of_tag in chunks.values()
                )
            )

        asyncio.run(asyncio.wait_for(all_of_them(), 60))


def content(home: Path, tag: str) -> bytes:
    """The bytes of a stream, b"" if it does not exist."""
    context = connect(home)
    return bytes(context.streams[tag][:]) if tag in context.streams else b""


def expected(chunks: Sequence[Chunk]) -> bytes:
    """The bytes of a stream of these chunks."""
    return b"".join(map(payload, chunks))


def make_home(home: Path, tags: Sequence[str], *, bus: str = "embedded:") -> dict[str, list[Chunk]]:
    """A home whose streams hold `CHUNKS` chunks each; nothing runs."""
    from tests.processes import wait_until

    home.mkdir()
    (home / "policies.toml").write_text(POLICIES)
    applied = windvane(home, "apply", str(home / "policies.toml"))
    assert applied.returncode == 0, applied.stderr.decode()
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in tags}
    with Tiers(home, bus) as tiers:
        tiers.send(chunks)
        wait_until(
            lambda: all(content(home, tag) == expected(of_tag) for tag, of_tag in chunks.items()),
            "all is stored",
        )
        # Rejected input, so that there are dead letters.
        bad = msgpack.packb(["park.bad", [[1, {"other": 1}]], {"chunk": "bad"}])
        asyncio.run(_send(tiers.gateway, bad))
        wait_until(lambda: b"park.bad" in windvane(home, "dead-letter", "list").stdout, "the dead letter")
    return chunks


async def _send(gateway: Running, message: bytes) -> None:
    reader, writer = await asyncio.open_connection(*gateway.forward)
    writer.write(message)
    await writer.drain()
    async with asyncio.timeout(30):
        await reader.read(100)
    writer.close()


def copy_of(home: Path, path: Path) -> Path:
    """Another home with the same content."""
    shutil.copytree(home, path, ignore=shutil.ignore_patterns("run", "*-ready.json"))
    return path


def damage(path: Path, kind: str, at: int) -> None:
    """Damages the file, which must exist."""
    KINDS[kind](path, at)


def verify(home: Path, *options: str) -> dict[str, Any]:
    """The output of `windvane verify --json`; its exit code must match."""
    ran = windvane(home, "verify", "--json", *options)
    assert ran.stdout, ran.stderr.decode()
    found: dict[str, Any] = json.loads(ran.stdout)
    fresh = [each for each in found["damages"] if not each["known"]]
    assert ran.returncode == (1 if fresh else 0), ran.stderr.decode()
    return found


def follow(home: Path, remedies: Sequence[str]) -> list[str]:
    """Runs the printed commands, and returns their output. One command repairs everything that it is printed
    for.
    """
    commands = {remedy.partition("windvane ")[2].partition(",")[0] for remedy in remedies}
    repairs = [command for command in commands if command.startswith("verify --repair ")]
    if repairs:
        commands = commands.difference(repairs)
        commands.add(" ".join(["verify --repair", *(each.split()[-1] for each in sorted(repairs))]))
    said = []
    for command in sorted(commands, reverse=True):  # repairs before decisions
        ran = windvane(home, *command.split())
        said.append(f"{command}: {ran.stdout.decode()}{ran.stderr.decode()}")
    return said
