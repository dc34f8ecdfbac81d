"""`windvane backup` of homes that run or were killed: the restored home continues as the home itself."""

import asyncio
from pathlib import Path

import pytest
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    Chunk,
    Release,
    chunks_of,
    make_policy,
    results,
    send_until_acked,
    sizes_of,
    undisturbed_results,
    wait_until_stored,
)

COUNT = 120  # chunks of each stream
TAGS = ["park.t00", "park.t01", "park.t02"]
# Segments as small as they can be: many of them end, and are dropped, while they are copied.
SMALL_SEGMENTS = {"WINDVANE_BUS": "embedded:?segment_bytes=65536&retention_bytes=262144", **FAST_CHECKPOINTS}


class CountedRelease(Release):
    """Knows how many chunks of one stream are acked."""

    acked = 0

    async def wait_for(self, number: int) -> None:
        self.acked = number
        await super().wait_for(number)


def backed_up(home: Path, folder: Path) -> None:
    made = windvane(home, "backup", str(folder))
    assert made.returncode == 0, made.stderr.decode()


def restored(folder: Path, home: Path) -> Path:
    made = windvane(home, "restore", str(folder))
    assert made.returncode == 0, made.stderr.decode()
    verified = windvane(home, "verify")
    assert verified.returncode == 0, verified.stdout.decode()
    return home


async def finished(home: Path, acked: dict[str, int], chunks: dict[str, list[Chunk]]) -> dict[str, bytes]:
    """Runs the tiers over a restored home, resends every chunk to it, and gives all that is stored then.

    The worker begins alone, until all chunks that were acked before are stored: only the restored bus can
    bring them.
    """
    least = sizes_of({tag: chunks[tag][:count] for tag, count in acked.items()})

    def are_stored() -> bool:
        streams = connect(home).streams
        return all(tag in streams and streams[tag].size >= size for tag, size in least.items())

    with Running("worker", home, environ=SMALL_SEGMENTS) as worker:
        await asyncio.to_thread(wait_until, are_stored, "all acked chunks are in the restored home")
        with Running("gateway", home, environ=SMALL_SEGMENTS) as gateway:
            sending = (send_until_acked(gateway, of_tag, Release(COUNT)) for of_tag in chunks.values())
            await asyncio.gather(*sending)
            await asyncio.to_thread(wait_until_stored, [worker], home, sizes_of(chunks))
    return results(home)


@pytest.mark.long_running(timeout_s=420, reason="runs three homes to their end")
async def test_a_restored_home_has_all_that_was_acked_and_equals_an_undisturbed_run(tmp_path: Path) -> None:
    chunks = {tag: chunks_of(tag, COUNT) for tag in TAGS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)
    home = tmp_path / "home"
    make_policy(home, partitions=2)
    releases = {tag: CountedRelease(COUNT // 4) for tag in TAGS}
    gateway = Running("gateway", home, environ=SMALL_SEGMENTS)
    worker = Running("worker", home, environ=SMALL_SEGMENTS)
    gateway.start()
    worker.start()
    sending = [asyncio.ensure_future(send_until_acked(gateway, chunks[tag], releases[tag])) for tag in TAGS]
    acked: dict[str, int] = {}
    for share in (COUNT // 3, COUNT // 2):  # the second backup replaces the first one
        for release in releases.values():
            await release.allow(share)
        while any(release.acked < share // 2 for release in releases.values()):
            await asyncio.sleep(0.01)
        acked = {tag: release.acked for tag, release in releases.items()}
        await asyncio.to_thread(backed_up, home, tmp_path / "of-running")
    for release in releases.values():
        await release.allow(COUNT)
    await asyncio.gather(*sending)
    worker.kill()
    gateway.kill()
    await asyncio.to_thread(backed_up, home, tmp_path / "of-killed")
    for name, least in [("of-running", acked), ("of-killed", dict.fromkeys(TAGS, COUNT))]:
        # A short name: the paths of sockets are bounded.
        copy = await asyncio.to_thread(restored, tmp_path / name, tmp_path / name.removeprefix("of-"))
        found = await finished(copy, least, chunks)
        assert found.keys() == expected.keys()
        assert [output for output in expected if found[output] != expected[output]] == []
