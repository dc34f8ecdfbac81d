"""A home of the version before format 2, upgraded while data arrives and everything is killed.

`homes/format-1.tar.xz` was written by that version: 50 chunks of each of two tags, of which its worker had
committed most when it was killed.
"""

import asyncio
import random
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from windvane.store.files.store import Store

from tests.processes import COMMAND, Running, environment, started, wait_until, windvane

pytestmark = pytest.mark.system

FORMER_HOME = Path(__file__).parent / "homes" / "format-1.tar.xz"
TAGS = ("park.a", "park.b")
STORED_CHUNKS = 50
CHUNKS = 150
SAMPLES = 640
OUTPUTS = ("samples", "spectrum", "features")
KILLS = 6


def message(tag: str, number: int) -> bytes:
    """The chunks that the former version was sent, and later ones."""
    phases = np.arange(number * SAMPLES, (number + 1) * SAMPLES) * 0.05
    data = (1000 * np.sin(phases)).astype("<i2").tobytes()
    entries = [[1_700_000_000 + number * 0.1, {"message": data}]]
    packed: bytes = msgpack.packb([tag, entries, {"chunk": f"{tag}-{number}"}])
    return packed


def former_home(folder: Path) -> Path:
    with tarfile.open(FORMER_HOME) as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


async def send(gateway: Running, numbers: Sequence[int], *, pause_s: float = 0.0) -> None:
    reader, writer = await asyncio.open_connection(*gateway.forward)
    for number in numbers:
        for tag in TAGS:
            writer.write(message(tag, number))
            async with asyncio.timeout(30):
                assert await reader.read(100)
        await asyncio.sleep(pause_s)
    writer.close()


def arrays_of(home: Path) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
    with Store(home / "store") as store:
        found = {}
        for reference in (f"{tag}:{output}" for tag in TAGS for output in OUTPUTS):
            with store.array(reference) as array:
                found[reference] = (array[:].copy(), array.times_ns[:].copy())
        return found


def is_stored(home: Path) -> bool:
    with Store(home / "store") as store:
        return all(len(store.array(f"{tag}:samples")) == CHUNKS * SAMPLES for tag in TAGS)


def killed_on_the_way(command: Sequence[str], home: Path, after_s: float) -> None:
    with started(command, env=environment(home), stderr=subprocess.DEVNULL) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=after_s)
        process.kill()


async def upgrade_and_kill(gateway: Running, worker: Running, home: Path) -> None:
    chance = random.Random(7)
    sending = asyncio.ensure_future(send(gateway, range(STORED_CHUNKS, CHUNKS), pause_s=0.05))
    for turn in range(KILLS):
        command = [*COMMAND, "upgrade"]
        await asyncio.to_thread(killed_on_the_way, command, home, chance.uniform(0.3, 1.5))
        if turn % 2:
            worker.kill()
            await asyncio.to_thread(worker.start)
    await sending


def test_a_home_of_the_former_version_is_upgraded_while_data_arrives_and_all_is_killed(
    tmp_path: Path,
) -> None:
    home = former_home(tmp_path)
    undisturbed = shutil.copytree(home, tmp_path / "undisturbed")
    with Running("gateway", undisturbed) as gateway, Running("process", undisturbed):
        asyncio.run(send(gateway, range(STORED_CHUNKS, CHUNKS)))
        wait_until(lambda: is_stored(undisturbed), "all is stored in the home that is not upgraded")
    with Store(undisturbed / "store") as store:
        assert {store.array(reference).format for reference in store.arrays()} == {1}

    with Running("gateway", home) as gateway, Running("process", home) as worker:
        asyncio.run(upgrade_and_kill(gateway, worker, home))
        upgraded = windvane(home, "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr.decode()
        wait_until(lambda: is_stored(home), "all is stored")
    with Store(home / "store") as store:
        assert {reference: store.array(reference).format for reference in store.arrays()} == {
            f"{tag}:{output}": 2 for tag in TAGS for output in OUTPUTS
        }
        assert not list((home / "store").rglob(".upgrade-*"))
    found, expected = arrays_of(home), arrays_of(undisturbed)
    for reference, (rows, times) in expected.items():
        assert np.array_equal(found[reference][0], rows), reference
        assert np.array_equal(found[reference][1], times), reference
    verified = windvane(home, "verify")
    assert verified.returncode == 0, verified.stdout.decode() + verified.stderr.decode()
    sealed = windvane(home, "seal", "park.a:spectrum")
    assert sealed.returncode == 0, sealed.stderr.decode()
    opened = zarr.open_array(sealed.stdout.decode().strip(), mode="r")
    assert np.array_equal(np.asarray(opened[:]), expected["park.a:spectrum"][0])
