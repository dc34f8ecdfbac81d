"""`windvane up` and the commands used with it, as processes over a home of their own."""

import json
import os
import re
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from windvane.store.files.store import Store

from tests.processes import COMMAND, Running, environment, started, wait_until, windvane

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running("up", tmp_path_factory.mktemp("up") / "home") as running:
        yield running


def healthy(site: Running) -> bool:
    """Whether all is well, soon: on a busy machine a checkpoint may be late for a moment."""

    def answers() -> bool:
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(health, timeout=30) as answer:
            return bool(json.loads(answer.read())["status"] == "ok")
        return False

    health = f"{site.ready['web']}/api/v1/health"
    wait_until(answers, "all is well")
    return True


def children(pid: int) -> dict[str, int]:
    """Process ids of the tiers below `up`, by their command."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found[arguments[arguments.index(b"windvane.cli") + 1].decode()] = int(child)
    return found


def test_the_ready_file_says_where_everything_is_to_no_other_user(site: Running) -> None:
    assert sorted(site.ready) == ["forward", "token", "web"]
    assert site.ready["token"] == (site.home / "token").read_text().strip()
    assert stat.S_IMODE((site.home / "up-ready.json").stat().st_mode) == 0o600
    assert healthy(site)
    log = site.log.read_text()
    assert f"Open {site.ready['web']}" in log
    assert site.ready["token"] not in log


def test_a_second_one_over_the_same_home_is_rejected_and_the_first_continues(site: Running) -> None:
    rejected = windvane(site.home, "up", "--forward", "127.0.0.1:0", "--web", "127.0.0.1:0")
    assert rejected.returncode == 1
    assert (
        f"another `windvane up` (process {site.pid}) already runs over {site.home}"
        in rejected.stderr.decode()
    )
    assert healthy(site)


def test_send_says_what_may_be_wrong_and_ends_well_once_that_is_fixed(site: Running) -> None:
    command = [*COMMAND, "send", "late", "-", "--format", "jsonl"]
    with started(
        command,
        env=environment(site.home),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sending:
        assert sending.stdin is not None
        assert sending.stderr is not None
        sending.stdin.write('{"n": 1}\n')
        sending.stdin.close()
        said = sending.stderr.readline()
        assert said.startswith("windvane: connected, but no ack for")
        assert "windvane policy create late --tag late" in said
        assert windvane(site.home, "policy", "create", "late").returncode == 0
        *_, summary = sending.stderr.readlines()
    assert sending.returncode == 0
    assert re.match(r"sent 1 event, 9 bytes in 1 chunk, all acked; \d+ chunks? resent; late at 127", summary)
    assert stored(site, "late").startswith(b"{")


def test_send_names_the_stream_of_a_tag_that_is_spelt_otherwise(site: Running, tmp_path: Path) -> None:
    assert windvane(site.home, "policy", "create", "spelt", "--tag", "spelt.**").returncode == 0
    (tmp_path / "file").write_bytes(b"x")
    sent = windvane(site.home, "send", "spelt.\\xff", str(tmp_path / "file"))
    assert (
        r"all acked; spelt.\xff (the data stream has the reference 'spelt.\x5cxff') at "
        in sent.stderr.decode()
    )
    assert stored(site, r"spelt.\x5cxff").endswith(b'"x"}}\n')
    as_it_is = windvane(site.home, "send", "spelt.\\x41", str(tmp_path / "file"))
    assert r"all acked; spelt.\x41 at " in as_it_is.stderr.decode()


def stored(site: Running, stream: str) -> bytes:
    wait_until(lambda: windvane(site.home, "cat", stream).stdout, f"{stream} is stored")
    return windvane(site.home, "cat", stream).stdout


def test_what_is_not_a_row_is_reported_and_the_other_rows_are_stored(site: Running, tmp_path: Path) -> None:
    assert windvane(site.home, "policy", "create", "table").returncode == 0
    file = tmp_path / "table.csv"
    file.write_text("a,b\n1,2\n3\n4,5\n")
    ended = windvane(site.home, "send", "table", str(file), "--format", "csv")
    assert ended.returncode == 1
    *understood, summary, last = ended.stderr.decode().splitlines()
    assert understood == [
        "delimiter: comma; decimal point; 2 rows",
        "time: now",
        "column: a  integer",
        "column: b  integer",
    ]
    assert summary.startswith("sent 2 events, ")
    assert last == (
        f"windvane: {file}: 1 line was not sent; the first is line 3: it has 1 cell, line 1 names 2 columns"
    )
    assert stored(site, "table").count(b"\n") == 2


def test_what_follows_a_line_that_is_too_long_is_not_sent(site: Running, tmp_path: Path) -> None:
    assert windvane(site.home, "policy", "create", "long").returncode == 0
    file = tmp_path / "long.jsonl"
    file.write_bytes(b'{"a":1}\n"' + b"x" * (16 * 1024 * 1024 + 1))
    ended = windvane(site.home, "send", "long", str(file), "--format", "jsonl")
    assert ended.returncode == 1
    assert ended.stderr.decode() == (
        f"windvane: {file}: line 2 is longer than 16,777,216 bytes; send such data as raw; "
        "1 event before it is stored, the rest was not sent\n"
    )
    assert stored(site, "long").count(b"\n") == 1


def test_a_port_that_is_a_web_server_s_is_said(site: Running, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    web = site.ready["web"].removeprefix("http://")
    command = [*COMMAND, "send", "untagged", str(file), "--to", web]
    with started(command, env=environment(site.home), stderr=subprocess.PIPE, text=True) as sending:
        assert sending.stderr is not None
        said = sending.stderr.readline()
        sending.kill()
    assert said.startswith(
        f"windvane: {web} answers like a web server; the forward port is {site.ready['forward']}."
    )


@pytest.mark.parametrize(
    ("tier", "called", "options"),
    [
        ("gateway", "a gateway", ["--forward", "127.0.0.1:0"]),
        ("worker", "a worker", []),
        ("web", "a web tier", ["--web", "127.0.0.1:0"]),
    ],
)
def test_a_second_tier_over_the_same_home_is_rejected_and_touches_nothing_of_the_first(
    site: Running, tier: str, called: str, options: list[str]
) -> None:
    run_dir = site.home / "run"
    before = {path.name: path.stat().st_ino for path in run_dir.iterdir()}
    rejected = windvane(site.home, tier, *options)
    assert rejected.returncode == 1
    assert rejected.stderr.decode().startswith(
        f"windvane: {called} (process {children(site.pid)[tier]}) already runs over {site.home}; stop it"
    )
    assert {path.name: path.stat().st_ino for path in run_dir.iterdir()} == before
    assert {"gateway.json", "gateway.sock", "worker.json", "worker.sock", "web.json"} <= before.keys()


def test_ctrl_c_ends_send_with_130_and_says_what_was_not_acked(site: Running, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    command = [*COMMAND, "send", "untagged", str(file)]
    with started(command, env=environment(site.home), stderr=subprocess.PIPE, text=True) as sending:
        assert sending.stderr is not None
        assert "no policy matches untagged" in sending.stderr.readline()
        sending.send_signal(signal.SIGINT)
        said = sending.stderr.read()
    assert sending.returncode == 130
    assert "1 chunk not acked" in said
    assert "Traceback" not in said


def test_with_json_every_line_is_a_log_line(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home", "--demo", "--log-format", "json") as site:
        second = windvane(site.home, "up", "--log-format", "json")
        os.kill(children(site.pid)["worker"], signal.SIGKILL)
        wait_until(lambda: "runs again" in site.log.read_text(), "the worker runs again")
    lines = [json.loads(line) for line in site.log.read_text().splitlines()]
    assert all({"time", "level", "process", "logger", "message"} <= line.keys() for line in lines)
    from_up = [line["message"] for line in lines if line["process"] == "up"]
    assert "starting gateway, worker and web …" in from_up
    assert f"ready, web {site.ready['web']}, forward {site.ready['forward']}" in from_up
    assert {line["process"] for line in lines} == {"up", "gateway", "worker", "web", "simulation"}
    assert (second.returncode, second.stdout) == (1, b"")
    rejected = json.loads(second.stderr)
    assert (rejected["level"], rejected["process"]) == ("critical", "up")
    assert rejected["message"].startswith("another `windvane up`")


def test_a_tier_that_is_killed_comes_back_at_the_same_place(site: Running) -> None:
    before = children(site.pid)
    assert sorted(before) == ["gateway", "web", "worker"]
    for name in ("gateway", "web"):
        os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: site.log.read_text().count(" runs again ") == 2, "both run again")
    after = children(site.pid)
    assert after["worker"] == before["worker"]
    assert healthy(site)
    report = json.loads((site.home / "run" / "gateway.json").read_text())
    assert report == {"forward": site.ready["forward"]}
    log = site.log.read_text()
    assert "gateway ended (killed by SIGKILL); it starts again in 0.2 s" in log


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_cleanly_gateway_first_then_worker_then_web(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    site = Running("up", tmp_path / "home")
    site.start()
    os.kill(site.pid, number)  # once: a second signal would end it at once
    assert site.wait(timeout_s=60) == exit_code
    ended = [line.split()[2] for line in site.log.read_text().splitlines() if line.endswith(": ended")]
    assert ended == ["gateway:", "worker:", "web:"]
    left = {path.name for path in (site.home / "run").glob("*.json")}
    assert left == {f"{tier}.exit.json" for tier in ("gateway", "worker", "web")}


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    site = Running("up", tmp_path / "home")
    site.start()
    tiers = children(site.pid)
    site.kill()
    wait_until(lambda: not any(running(pid) for pid in tiers.values()), "the tiers have ended")
    site.start()  # over the same home and at the same ports
    assert site.stop() == 0


def test_the_demo_s_sensors_send_through_the_forward_port_and_their_spectra_appear(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home", "--demo") as site:
        assert sorted(children(site.pid)) == ["gateway", "simulate", "web", "worker"]
        with Store(site.home / "store") as store:
            for reference in ("turbine.t02.gearbox:spectrum", "turbine.t01.blade1:spectrum"):
                wait_until(lambda name=reference: name in store.arrays(), f"{reference} appears")  # type: ignore[misc]
                with store.array(reference) as spectrum:
                    wait_until(lambda array=spectrum: len(array) > 0, "rows appear")  # type: ignore[misc]
                    assert spectrum.row_shape == (1025,)
                    assert spectrum.attrs["unit"] == "g²/Hz"
        policies = windvane(site.home, "ls", "policies").stdout.decode().splitlines()
        assert [line.split("\t")[0] for line in policies] == ["demo-blades", "demo-drive-train", "demo-scada"]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
