"""HealthConditions of a tier: reported and cleared by key, said once, counted, bounded."""

import errno
import logging
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from windvane.errors import BusUnavailable, DiskReserveUsed, StoreFailed
from windvane.runtime import health_conditions as module
from windvane.runtime.health_conditions import (
    MAX_CONDITIONS,
    MAX_LISTED,
    HealthCondition,
    HealthConditions,
    code_of,
)


@pytest.fixture
def health(caplog: pytest.LogCaptureFixture) -> HealthConditions:
    caplog.set_level(logging.INFO)
    return HealthConditions(logging.getLogger("windvane.test"))


def test_a_trouble_is_logged_when_it_begins_and_when_it_ends_and_not_in_between(
    health: HealthConditions, caplog: pytest.LogCaptureFixture
) -> None:
    for free in range(100):
        health.report("disk", "disk-full", f"{free} bytes are free")
    assert health.listed() == [HealthCondition("disk-full", "99 bytes are free")]
    health.clear("disk")
    health.clear("disk")
    assert health.listed() == []
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "disk-full: 0 bytes are free"),
        ("INFO", "disk-full has ended (99 bytes are free)"),
    ]


def test_a_trouble_that_comes_and_goes_is_logged_once_a_minute(
    health: HealthConditions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(1000):
        health.report("bus", "bus-away", "no broker answers")
        health.clear("bus")
    assert len(caplog.records) == 2
    monkeypatch.setattr(module, "REPEAT_S", 0.0)  # a minute later
    health.report("bus", "bus-away", "no broker answers")
    assert len(caplog.records) == 3


def test_a_detail_that_is_an_identity_makes_another_trouble_and_the_last_is_always_logged(
    health: HealthConditions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: int) -> None:
        health.report("file", "settings-broken", f"line {line}", detail_is_identity=True)

    broken(2)
    broken(2)
    broken(3)
    health.clear("file")
    broken(3)
    first = ["settings-broken: line 2", "settings-broken: line 3", "settings-broken has ended (line 3)"]
    assert caplog.messages == [*first, "settings-broken: line 3"]
    for line in range(1000):
        broken(line)
    logged = [message for message in caplog.messages if "ended" not in message]
    assert len(logged) == module.IDENTITY_LINES
    monkeypatch.setattr(module, "REPEAT_S", 0.0)  # a minute later
    assert health.listed() == [HealthCondition("settings-broken", "line 999")]
    assert caplog.messages[-1] == "settings-broken: line 999"


def test_a_trouble_whose_code_changes_is_another(
    health: HealthConditions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPEAT_S", 0.0)
    health.report("bus", "bus-away", "away")
    health.report("bus", "io-error", "broken")
    assert caplog.messages == ["bus-away: away", "io-error: broken"]
    assert [each.code for each in health.current()] == ["io-error"]


def test_a_trouble_with_an_end_is_over_then_unless_it_is_reported_again(health: HealthConditions) -> None:
    health.report("publish", "bus-away", "failed", for_s=-1.0)
    assert health.current() == []
    health.report("publish", "bus-away", "failed", for_s=-1.0)
    health.report("publish", "bus-away", "failed", for_s=1000.0)
    assert len(health.current()) == 1


def test_keys_are_bounded_and_what_is_left_out_is_counted(health: HealthConditions) -> None:
    for number in range(MAX_CONDITIONS + 50):
        health.report(f"stream-{number}", "no-checkpoint", f"stream {number}")
    assert len(health.current()) == MAX_CONDITIONS
    listed = health.listed()
    assert len(listed) == MAX_LISTED + 1
    left_out = MAX_CONDITIONS + 50 - MAX_LISTED
    assert listed[-1] == HealthCondition("no-checkpoint", f"{left_out} more with this code; see the log")
    health.clear("stream-0")
    health.report("stream-new", "no-checkpoint", "has room now")
    assert health.current()[-1].detail == "has room now"
    print(f"{MAX_CONDITIONS + 50} keys: {MAX_CONDITIONS} kept, {len(listed)} listed")


def test_the_metrics_count_what_holds_and_what_was_reported(health: HealthConditions) -> None:
    registry = CollectorRegistry()
    registry.register(health)
    health.report("a", "io-error", "a")
    health.report("b", "io-error", "b")
    health.report("b", "io-error", "still b")
    health.clear("a")
    page = generate_latest(registry).decode()
    assert 'windvane_troubles{code="io-error"} 1.0' in page
    assert 'windvane_troubles_reported_total{code="io-error"} 2.0' in page


def test_threads_may_report_and_clear_at_once(health: HealthConditions) -> None:
    def work(name: str) -> None:
        for _ in range(500):
            health.report(name, "stuck", name)
            health.listed()
            health.clear(name)

    threads = [threading.Thread(target=work, args=(f"thread-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert health.current() == []


def chained(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def sqlite_full(path: Path) -> sqlite3.Error:
    database = sqlite3.connect(path)
    database.execute("PRAGMA max_page_count = 3")
    database.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.Error) as failed:
        database.execute("INSERT INTO t VALUES (?)", (bytes(100_000),))
    database.close()
    return failed.value


def test_the_system_s_reason_is_found_through_causes_and_in_words(tmp_path: Path) -> None:
    full, broken = (OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO))
    assert code_of(full) == "disk-full"
    assert code_of(chained(StoreFailed("x"), chained(BusUnavailable("y"), full))) == "disk-full"
    assert code_of(OSError(errno.EDQUOT, "quota")) == "disk-full"
    assert code_of(DiskReserveUsed("no room")) == "disk-full"
    assert code_of(sqlite_full(tmp_path / "full.sqlite")) == "disk-full"
    assert code_of(broken) == "io-error"
    with open("/proc/self/mem", "rb") as memory, pytest.raises(OSError, match="Input/output") as failed:
        os.pread(memory.fileno(), 1, 0)  # the kernel's own
    assert code_of(failed.value) == "io-error"
    assert code_of(BusUnavailable(f"cannot write x: {broken.strerror}. Nothing was kept")) == "io-error"
    assert code_of(StoreFailed("x.sqlite: cannot commit: disk I/O error; …")) == "io-error"
    for other in (None, BusUnavailable("away"), OSError(errno.EACCES, "no"), ValueError("full")):
        assert code_of(other) is None
