"""No test waits for a process or a thread without a bound: a hang would take the whole run with it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
STARTERS = {
    "tests/processes.py",
    "tests/run_guard.py",
    "tests/other_machine.py",
    "tests/system/test_kills.py",
}
"""Kill what they have started by themselves."""
CASES = "tests/field/"
"""Inputs that are kept unchanged: `tests/field/test_cases.py` bounds the process that each runs in."""
_RUNS = {"run", "check_call", "check_output", "call"}
_BOUNDS = ("timeout", "timeout_s")


def unbounded(source: str, name: str) -> Iterator[str]:
    """Each call that may wait for ever, with its line."""
    tree = ast.parse(source)
    awaited: set[int] = set()  # what a coroutine waits for ends with the test's timeout: its loop runs on
    for node in ast.walk(tree):
        if isinstance(node, ast.Await):
            awaited |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        method, has_timeout = node.func.attr, any(each.arg in _BOUNDS for each in node.keywords)
        owner = ast.unparse(node.func.value)
        if owner == "subprocess" and method in _RUNS and not has_timeout:
            yield f"{name}:{node.lineno}: subprocess.{method} without a timeout"
        elif owner == "subprocess" and method == "Popen" and name not in STARTERS:
            yield f"{name}:{node.lineno}: subprocess.Popen; use `started` of tests/processes.py"
        elif (
            method in ("wait", "communicate", "join")
            and not (has_timeout or node.args)
            and id(node) not in awaited
        ):
            yield f"{name}:{node.lineno}: {owner}.{method}() without a timeout"


def test_every_wait_in_the_tests_has_a_bound() -> None:
    found: list[str] = []
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS.parent).as_posix()
        if "node_modules" not in name and not (name.startswith(CASES) and path.name in ("try.py", "wv.py")):
            found += unbounded(path.read_text(encoding="utf-8"), name)
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(command, check=True)",
        "with subprocess.Popen(command) as process: pass",
        "process.wait()",
        "process.communicate()",
        "thread.join()",
    ],
)
def test_an_unbounded_wait_is_found(line: str) -> None:
    assert len(list(unbounded(line, "tests/test_x.py"))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(command, timeout=60)",
        "process.wait(timeout=60)",
        "process.wait(60)",
        '", ".join(names)',
        "async def f(event):\n    await event.wait()",
    ],
)
def test_a_bounded_wait_is_not(line: str) -> None:
    assert list(unbounded(line, "tests/test_x.py")) == []
