"""Health as an operator sees it, with real processes: each condition is reported until it is fixed."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka_broker import KafkaBroker
from tests.processes import COMMAND, Running, environment, started, wait_until, windvane
from tests.small_disk import fill, free_bytes, small_disk

Figure = Callable[[str], None]


def health(web: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{web}/api/v1/health", timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def reasons(site: Running) -> set[tuple[str, str]]:
    """The tiers and codes; status code and `status` must say the same."""
    code, found = health(site.ready["web"])
    assert (code, found["status"]) in ((200, "ok"), (503, "unhealthy"))
    return {(each["tier"], each["code"]) for each in found.get("reasons", [])}


def pids(site: Running) -> dict[str, int]:
    found = {}
    for child in Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split():
        arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found[arguments[arguments.index(b"windvane.cli") + 1].decode()] = int(child)
    return found


def wait_for(site: Running, tier: str, code: str) -> float:
    began_s = time.monotonic()
    wait_until(lambda: (tier, code) in reasons(site), f"{tier} is {code}")
    return time.monotonic() - began_s


def wait_until_well(site: Running) -> float:
    began_s = time.monotonic()
    wait_until(lambda: not reasons(site), "all is well", timeout_s=120)
    return time.monotonic() - began_s


def listed(seen_s: dict[str, float]) -> str:
    return ", ".join(f"in the {tier} after {seconds:.1f} s" for tier, seconds in seen_s.items())


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with Running("up", tmp_path / "home") as running:
        yield running


@pytest.mark.parametrize("tier", ["gateway", "worker"])
def test_a_paused_tier_is_stuck_until_it_resumes(up: Running, tier: str, figure: Figure) -> None:
    wait_until_well(up)
    pid = pids(up)[tier]
    os.kill(pid, signal.SIGSTOP)
    try:
        seen_s = wait_for(up, tier, "stuck")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until_well(up)
    figure(f"a {tier} under SIGSTOP is `stuck` after {seen_s:.1f} s (bound 5 s)")


def test_a_worker_that_is_killed_again_and_again_is_in_a_crash_loop(up: Running, figure: Figure) -> None:
    wait_until_well(up)
    for number in range(1, 4):
        os.kill(pids(up)["worker"], signal.SIGKILL)
        wait_until(
            lambda count=number: up.log.read_text().count("worker: ready") > count,  # type: ignore[misc]
            "the worker is ready again",
        )
    assert reasons(up) & {("worker", "crash-loop")}
    exits = json.loads((up.home / "run" / "worker.exit.json").read_text())
    assert (exits["signal"], exits["code"]) == (signal.SIGKILL, None)
    with urllib.request.urlopen(f"{up.ready['web']}/metrics", timeout=30) as page:
        restarts = next(line for line in page.read().decode().splitlines() if 'process="worker"' in line)
    assert restarts.endswith(" 3.0")
    figure(f"3 kills: {restarts}")


def test_separate_tiers_are_unavailable_once_killed_and_not_after_an_orderly_stop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Running("web", home) as web:
        wait_until_well(web)
        gateway = Running("gateway", home)
        gateway.start()
        wait_until_well(web)
        gateway.kill()
        wait_for(web, "gateway", "tier-away")
        gateway.start()
        wait_until_well(web)
        assert gateway.stop() == 0
        assert reasons(web) == set()


@pytest.mark.parametrize("leave_bytes", [0, 600_000])  # nothing at all, and a part of the reserve
def test_a_full_disk_is_said_in_words_and_costs_nothing(
    tmp_path: Path, figure: Figure, leave_bytes: int
) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(os.urandom(200_000))
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", size="16m") as disk, Running("up", disk / "home", log=log) as site:
        assert (
            windvane(site.home, "policy", "create", "raw", "--tag", "raw", "--format", "raw").returncode == 0
        )
        send = [*COMMAND, "send", "raw", str(payload), "--format", "raw"]
        subprocess.run(send, env=environment(site.home), check=True, capture_output=True, timeout=120)
        wait_until(lambda: len(windvane(site.home, "cat", "raw").stdout) == 200_000, "it is stored")
        wait_until_well(site)

        filler = fill(disk, leave_bytes=leave_bytes)
        assert free_bytes(disk) <= leave_bytes
        wait_for(site, "gateway", "disk-full")
        free = free_bytes(disk)
        with started(send, env=environment(site.home), stderr=subprocess.PIPE) as sending:
            seen_s = {tier: wait_for(site, tier, "disk-full") for tier in ("web", "gateway")}
            wait_until(lambda: "ERROR worker: disk-full" in log.read_text(), "the worker says it too")
            assert sending.stderr is not None
            assert b"no ack" in sending.stderr.readline()  # it keeps retrying
            with urllib.request.urlopen(f"{site.ready['web']}/metrics", timeout=30) as page:
                [shown] = [
                    line
                    for line in page.read().decode().splitlines()
                    if line.startswith("windvane_disk_free_")
                ]
            assert float(shown.split()[-1]) <= leave_bytes
            # Retries of senders do not use up the rest of the reserve.
            assert free_bytes(disk) >= free - 100_000
            filler.unlink()
            assert sending.wait(timeout=120) == 0
        well_s = wait_until_well(site)
        wait_until(lambda: len(windvane(site.home, "cat", "raw").stdout) >= 400_000, "the rest is stored")
        assert windvane(site.home, "cat", "raw").stdout == payload.read_bytes() * 2
        said = log.read_text()
        assert "Traceback" not in said
        assert said.count("worker ended") <= 1
        for tier in ("gateway", "web"):
            assert said.count(f"ERROR {tier}: disk-full") == 1
    figure(
        f"{leave_bytes} bytes left: seen {listed(seen_s)}; well {well_s:.1f} s after there was room; "
        "400 kB stored once"
    )


def test_a_tier_that_starts_on_a_full_disk_waits_for_room(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", size="16m") as disk:
        (disk / "home").mkdir()
        filler = fill(disk, leave_bytes=200_000)
        with Running("worker", disk / "home", log=log) as worker:  # ready: it waits, and reports it
            wait_until(lambda: "ERROR worker: disk-full" in log.read_text(), "it says so")
            assert not (disk / "home" / "checkpoints.sqlite").exists()
            filler.unlink()
            wait_until((disk / "home" / "checkpoints.sqlite").exists, "it resumes")
            wait_until((disk / "home" / "run" / "worker.sock").exists, "it serves its status")
            wait_until(lambda: worker.status()["troubles"] == [], "all is well")


def test_idle_tiers_report_unavailable_brokers_too(
    tmp_path: Path, kafka: KafkaBroker, figure: Figure
) -> None:
    settings = {"WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}."}
    bus = f"kafka://{kafka.address('PLAINTEXT')}"
    with Running("up", tmp_path / "home", "--bus", bus, environ=settings) as site:
        wait_until_well(site)
        kafka.kill()
        try:
            seen_s = {tier: wait_for(site, tier, "bus-away") for tier in ("gateway", "worker")}
        finally:
            kafka.start()
        well_s = wait_until_well(site)
    figure(f"brokers away: seen {listed(seen_s)}; well {well_s:.1f} s after their start")
