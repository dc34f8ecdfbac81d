"""`windvane dead-letter …`: on the file itself, and a replay through a gateway that really runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.databases.interfaces import DeadLetters
from windvane.store.files.store import Store

from tests.processes import Running, windvane
from tests.store.files.resumed import resumed

from .conftest import Run

EVENT = bytes(msgpack.packb([1_790_000_000, {"message": "hello"}]))
LETTER = DeadLetter(
    code="no-policy",
    reason="no policy takes the tag 'app.log'",
    tag="app.log",
    sender="10.0.0.7",
    policy=None,
    payload=EVENT,
    time_ns=1_790_000_000_500_000_000,
)
STEP_FAILED = replace(
    LETTER,
    code="step-failed",
    reason="step 'spectrum' failed",
    detail="Traceback (most recent call last):\n  boom\x1b[31m",
    policy="voice",
)


@pytest.fixture
def letters(home: Path) -> Iterator[DeadLetters]:
    letters = SqlDeadLetters(home / "dead-letters.sqlite")
    yield letters
    letters.close()


def test_letters_are_listed_one_a_line_newest_first(run: Run, letters: DeadLetters) -> None:
    letters.add_all([LETTER, replace(LETTER, time_ns=LETTER.time_ns + 10**9), STEP_FAILED])
    newest, oldest = run("dead-letter", "list").stdout.splitlines()
    assert newest.split("\t")[3] == "step-failed"
    assert oldest.split("\t") == [
        *("1", "2026-09-21T14:13:20.500Z", "2026-09-21T14:13:21.500Z", "no-policy", "2"),
        *(str(len(EVENT)), "app.log", "10.0.0.7", "no policy takes the tag 'app.log'"),
    ]
    assert len(run("dead-letter", "list", "--code", "no-policy").stdout.splitlines()) == 1
    assert len(run("dead-letter", "list", "--limit", "1").stdout.splitlines()) == 1
    assert run("dead-letter", "list", "--tag", "other.**").stdout == ""
    assert len(run("dead-letter", "list", "--tag", "app.*").stdout.splitlines()) == 2


def test_what_a_sender_wrote_cannot_break_a_line_or_reach_the_terminal(
    run: Run, letters: DeadLetters
) -> None:
    letters.add(replace(LETTER, tag="a\tb\nc\x1b[31m"))
    [line] = run("dead-letter", "list").stdout.splitlines()
    assert line.count("\t") == 8
    assert "\x1b" not in run("dead-letter", "show", "1").stdout


def test_letters_that_were_evicted_are_reported(run: Run, home: Path) -> None:
    letters = SqlDeadLetters(home / "dead-letters.sqlite", max_bytes=2000)
    for number in range(6):
        letters.add(replace(LETTER, payload=b"%d" % number * 500))
    letters.close()
    result = run("dead-letter", "list")
    kept = len(result.stdout.splitlines())
    assert f"{6 - kept} letters evicted" in result.stderr


def test_show_has_the_reason_the_decoded_events_and_the_traceback(run: Run, letters: DeadLetters) -> None:
    letters.add_all([LETTER, STEP_FAILED])
    shown = run("dead-letter", "show", "2").stdout
    assert "step 'spectrum' failed" in shown
    assert '{"time": "2026-09-21T14:13:20.000000000Z", "record": {"message":"hello"}}' in shown
    assert "Traceback (most recent call last):" in shown
    assert "archived already" in shown
    assert "can be replayed" in run("dead-letter", "show", "1").stdout
    assert run("dead-letter", "show", "1", "--payload").stdout_bytes == EVENT
    assert "99" in run("dead-letter", "show", "99", exit_code=1).stderr


def test_letters_are_dropped_by_number_by_code_and_all(run: Run, letters: DeadLetters) -> None:
    letters.add_all([replace(LETTER, payload=b"%d" % number) for number in range(4)])
    letters.add(STEP_FAILED)
    assert "dropped 2 letters" in run("dead-letter", "drop", "1", "3").stdout
    assert "3" in run("dead-letter", "drop", "3", exit_code=1).stderr
    assert "dropped 1 letter\n" in run("dead-letter", "drop", "--code", "step-failed").stdout
    assert "dropped 2 letters" in run("dead-letter", "drop", "--all").stdout
    assert letters.statistics().count == letters.statistics().bytes == 0


def test_letters_are_dropped_by_code_and_tag_over_many_pages(
    run: Run, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.commands.dead_letter.PAGE_LETTERS", 3)
    tags = ["app.log", "turbine.t1"]
    letters.add_all([replace(LETTER, payload=b"%d" % n, tag=tags[n % 2]) for n in range(20)])
    assert (
        "dropped 10 letters"
        in run("dead-letter", "drop", "--code", "no-policy", "--tag", "turbine.**").stdout
    )
    assert {letter.tag for letter in letters.list()} == {"app.log"}


def test_a_letter_says_when_its_chunk_has_arrived_since(run: Run, home: Path, letters: DeadLetters) -> None:
    long_id = b"0123456789abcdef0123456789abcdef0123456789"
    ids = {1: b"retried", 2: b"not-yet", 3: None, 4: long_id, 5: b"before", 6: b"in-parts", 7: b"retr"}
    for number, chunk_id in ids.items():
        letters.add(replace(LETTER, payload=b"%d" % number, chunk_id=chunk_id))
    rejected_ns = LETTER.time_ns
    with resumed(Store(home / "store").stream_writer("app.log", attrs={})) as stream:
        for chunk_id, arrived_ns in (
            (b"before", rejected_ns - 10**9),
            (b"retried", rejected_ns + 10**9),
            (b"other", rejected_ns + 2 * 10**9),
            (b"in-parts:0-100", rejected_ns + 3 * 10**9),
            (b"in-parts:100-200", rejected_ns + 4 * 10**9),
            (long_id, rejected_ns + 5 * 10**9),
            (long_id + b"x", rejected_ns + 4 * 10**9),
        ):
            stream.append(b"x", arrived_ns=arrived_ns, chunk_id=chunk_id, events=1)
    said = {
        int(line.split("\t")[0]): line.partition("(arrived ")[2][:24]
        for line in run("dead-letter", "list").stdout.splitlines()
    }
    assert {number: time for number, time in said.items() if time} == {
        1: "2026-09-21T14:13:21.500Z",
        4: "2026-09-21T14:13:25.500Z",
        6: "2026-09-21T14:13:23.500Z",
    }
    shown = run("dead-letter", "show", "1").stdout
    assert "2026-09-21T14:13:21.500Z, resent by its sender" in shown
    assert "arrived  " not in run("dead-letter", "show", "2").stdout


@pytest.mark.parametrize("options", [[], ["1", "--all"], ["1", "--code", "x"], ["0"], ["x"]])
@pytest.mark.parametrize("command", ["replay", "drop"])
def test_what_is_meant_must_be_said(run: Run, letters: DeadLetters, command: str, options: list[str]) -> None:
    letters.add(LETTER)
    run("dead-letter", command, *options, exit_code=2)
    assert letters.statistics().count == 1


def test_without_a_gateway_a_replay_says_so_and_keeps_the_letters(run: Run, letters: DeadLetters) -> None:
    letters.add(LETTER)
    error = run("dead-letter", "replay", "--all", exit_code=1).stderr
    assert "windvane gateway" in error
    assert letters.statistics().count == 1


def test_without_a_home_nothing_is_made(run: Run, tmp_path: Path) -> None:
    assert "no home" in run("dead-letter", "list", "--home", str(tmp_path / "none"), exit_code=1).stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.system
def test_a_replay_goes_through_the_running_gateway(home: Path, letters: DeadLetters) -> None:
    body = json.dumps([{"a": n} for n in range(5)]).encode()
    letters.add_all(
        [
            *(replace(LETTER, payload=EVENT + bytes(msgpack.packb([n, {}]))) for n in range(30)),
            *[replace(LETTER, payload=body, format="application/json")] * 2,
            replace(LETTER, code="malformed", payload=b"\xc1"),
            STEP_FAILED,
        ]
    )
    with Running("gateway", home) as gateway:
        rejected = windvane(home, "dead-letter", "replay", "1")
        assert rejected.returncode == 1
        assert b"was rejected again and is kept: no policy takes the tag" in rejected.stderr
        windvane(home, "policy", "create", "logs", "--tag", "app.**", "--preset", "logs")
        alone = windvane(home, "dead-letter", "replay", "33")
        assert (alone.returncode, b"archived already" in alone.stderr) == (1, True)
        result = windvane(home, "dead-letter", "replay", "--all")
        assert result.returncode == 1  # one is malformed still
        assert b"letter 31: it arrived 2 times without an ID" in result.stderr
        assert b"31 letters replayed and durable, 1 stayed" in result.stderr
        assert b"not replayed: 1 step-failed" in result.stderr
        assert gateway.status()["events_total"] == 30 * 2 + 5
    assert [letter.code for letter in letters.list()] == ["step-failed", "malformed"]
