"""Code of the event loop reads and writes whole files through aiofiles."""

import ast
from pathlib import Path

import pytest

PLATFORM = Path(__file__).parents[2] / "platform"
WHOLE_FILE = {"read_bytes", "read_text", "write_bytes", "write_text"}


def blocking_files(source: str) -> list[int]:
    """The lines of coroutines that name `open`, `Path.read_bytes` and so on, called or given to a thread."""
    return [
        node.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if (isinstance(node, ast.Name) and node.id == "open")
        or (isinstance(node, ast.Attribute) and node.attr in WHOLE_FILE)
    ]


@pytest.mark.parametrize("room", ["web", "ingest"])
def test_no_coroutine_opens_a_file_by_itself(room: str) -> None:
    files = sorted((PLATFORM / room).rglob("*.py"))
    assert len(files) > 20
    assert {str(file): lines for file in files if (lines := blocking_files(file.read_text()))} == {}


def test_the_check_finds_them() -> None:
    assert blocking_files("async def f():\n    open('x')") == [2]
    assert blocking_files("async def f():\n    await to_thread(path.read_bytes)") == [2]
    assert blocking_files("async def f():\n    async with aiofiles.open('x') as file: ...") == []
