"""`windvane …` in this process, where a process of its own would show nothing more."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from windvane.cli import main

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (path / "store").mkdir()
    return path


@pytest.fixture
def run(home: Path) -> Run:
    """Calls a command over `home`; fails the test where the exit code is not what is expected."""

    def call(*arguments: str, exit_code: int = 0, input: bytes | None = None) -> Result:
        environment = {"WINDVANE_HOME": str(home)}
        result = CliRunner().invoke(main, list(arguments), env=environment, input=input)
        assert result.exit_code == exit_code, result.output
        return result

    return call
