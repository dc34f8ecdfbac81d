"""Fixtures and rules for the tests of every part; the rules are described in docs/testing.md."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from tests.kafka_broker import kafka
from tests.postgresql_server import postgresql, postgresql_server
from tests.run_guard import guard_this_run, restore_signals_of_children

__all__ = ["kafka", "postgresql", "postgresql_server", "proof"]

PROCESS_TIMEOUT_S = 300.0
"""Of tests with `system`, `kafka` or `browser`: they share the machine with the processes that they start."""
_PROCESS_MARKERS = ("system", "kafka", "browser")
_STARTS_A_PROCESS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})

_may_start_processes = True  # outside of tests: pytest, and fixtures of a session, may


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", action="store_true", help="run full counts instead of a sample of them")


def pytest_configure(config: pytest.Config) -> None:
    # A deadline for each example would be an assertion about the machine; pytest-timeout bounds the test.
    # The same examples in every CI run: a change is red for what it did. Other runs look for new ones.
    settings.register_profile("windvane", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("windvane")
    guard_this_run()
    restore_signals_of_children()
    sys.addaudithook(_forbid_processes)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")
        if "tests/system/" in item.nodeid:
            item.add_marker("system")
        if not config.getoption("--proof"):
            for full_only in item.iter_markers("proof"):
                if full_only.kwargs.get("sample") is False:
                    item.add_marker(pytest.mark.skip(reason="full counts only: run with --proof"))
        _set_timeout(item)
    _require_unique_ids(items)


def _require_unique_ids(items: list[pytest.Item]) -> None:
    """pytest-xdist runs one of several tests that share an ID, and does not report the others."""
    ids = Counter(item.nodeid for item in items if item.get_closest_marker("alone") is None)
    if shared := [id for id, count in ids.items() if count > 1]:
        raise pytest.UsageError(f"several tests share an ID, mark them `alone`: {', '.join(shared[:5])}")


def _set_timeout(item: pytest.Item) -> None:
    """That of its `long_running(timeout_s, reason)`, else that of its kind, else that of pyproject."""
    longer = item.get_closest_marker("long_running")
    if longer is not None:
        item.add_marker(pytest.mark.timeout(_seconds_of(item.nodeid, **longer.kwargs)))
    elif item.get_closest_marker("timeout") is None and any(map(item.get_closest_marker, _PROCESS_MARKERS)):
        item.add_marker(pytest.mark.timeout(PROCESS_TIMEOUT_S))


def _seconds_of(test: str, *, timeout_s: float, reason: str) -> float:
    if not reason:
        raise pytest.UsageError(f"{test}: long_running needs a reason")
    return timeout_s


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """A test without a marker for it starts no process, so that `make check` is quick and needs nothing."""
    global _may_start_processes
    _may_start_processes = any(map(item.get_closest_marker, _PROCESS_MARKERS))
    try:
        return (yield)
    finally:
        _may_start_processes = True


def _forbid_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS_A_PROCESS and not _may_start_processes:
        command = f"{arguments[1]!r:.200}" if len(arguments) > 1 else event
        raise RuntimeError(f"this test starts a process ({command}): mark it with `pytest.mark.system`")


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> bool:
    """Whether full counts are requested (`make proof`), and not a sample of them (`make test`)."""
    return bool(request.config.getoption("--proof"))


_FIGURE = "figure"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line with a figure that the test found; all lines are printed after the tests."""
    return lambda line: request.node.user_properties.append((_FIGURE, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    figures = [line for report in reports for name, line in report.user_properties if name == _FIGURE]
    if figures:
        terminalreporter.section("figures")
        for line in dict.fromkeys(figures):
            terminalreporter.write_line(line)
