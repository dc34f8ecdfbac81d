"""No other user may read a home: the tiers tighten the modes of what exists, or reject it with the reason."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from windvane.config import Settings
from windvane.runtime.home_modes import secure_home

from tests.processes import COMMAND, Running, environment, windvane

pytestmark = pytest.mark.system

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(home: Path) -> dict[str, int]:
    """Of the home and of the databases in it."""
    found = {path.name: mode(path) for path in home.iterdir() if ".sqlite" in path.name}
    return {"home": mode(home), **found}


def loose_home(path: Path) -> Path:
    """A home with its databases and their logs, as a careless copy leaves it."""
    with Running("up", path):
        pass
    for each in path.glob("*.sqlite"):
        for name in (each, Path(f"{each}-wal"), Path(f"{each}-shm")):
            name.touch()
            name.chmod(0o644)
    path.chmod(0o755)
    return path


@pytest.fixture
def restored_umask() -> "list[int]":
    before = os.umask(0o022)
    os.umask(before)
    return [before]


def test_a_home_that_others_may_read_is_tightened_when_a_tier_starts(tmp_path: Path) -> None:
    home = loose_home(tmp_path / "home")
    before = modes(home)
    assert set(before.values()) == {0o755, 0o644}
    with Running("up", home) as site:
        after = modes(home)
        assert after.pop("home") == 0o700
        assert set(after.values()) == {0o600}
        made = [path for path in home.rglob("*") if not path.is_symlink() and path.is_file()]
        # What was made before lies below the home; what is made from now on is closed by itself too.
        windvane(home, "policy", "create", "voice", "--tag", "voice")
        assert "had mode 0755, which let other users in; it has 0700 now" in site.log.read_text()
    print(f"{len(before)} of {len(before)} tightened, {len(made)} files below the home")


def test_a_new_home_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home", inside=["/bin/sh", "-c", 'umask 0 && exec "$@"', "sh"]) as site:
        windvane(site.home, "policy", "create", "voice", "--tag", "voice")
        for path in [site.home, *site.home.rglob("*")]:
            if path.name == "up-ready.json" or path.is_symlink():
                continue
            assert not mode(path) & 0o077, f"{path} has mode {mode(path):04o}"


def test_a_home_for_a_group_stays_one_as_far_as_the_setting_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "windvane.toml").write_text('home_mode = "0750"\n')
    home.chmod(0o2777)
    with Running("worker", home):
        assert mode(home) == 0o2750
        assert mode(home / "checkpoints.sqlite") == 0o640
        assert mode(home / "run") == 0o700  # its sockets ask for no credentials


def test_a_stricter_home_stays_as_it_is(tmp_path: Path, restored_umask: list[int]) -> None:
    database = tmp_path / "catalog.sqlite"
    database.touch()
    database.chmod(0o400)
    tmp_path.chmod(0o700)
    try:
        secure_home(Settings(home=tmp_path, home_mode="0770"))
    finally:
        os.umask(restored_umask[0])
    assert (mode(tmp_path), mode(database)) == (0o700, 0o400)


def test_a_database_that_lies_elsewhere_is_left_alone(tmp_path: Path, restored_umask: list[int]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    elsewhere.chmod(0o644)
    home = tmp_path / "home"
    home.mkdir()
    (home / "catalog.sqlite").symlink_to(elsewhere)
    try:
        secure_home(Settings(home=home))
    finally:
        os.umask(restored_umask[0])
    assert mode(elsewhere) == 0o644


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")


def rejected(home: Path, *inside: str, command: Sequence[str] = ("worker",)) -> str:
    ended = subprocess.run(
        [*inside, *COMMAND, *command], env=environment(home), capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    return ended.stderr.decode()


@as_root
def test_a_home_of_another_user_is_rejected_unless_the_settings_say_that_it_is_meant(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    said = rejected(home)
    assert f"{home} belongs to user {NOBODY}, this process runs as user 0" in said
    assert "set home_mode" in said
    assert list(home.iterdir()) == []
    (home / "windvane.toml").write_text('home_mode = "0700"\n')
    with Running("worker", home):
        assert mode(home) == 0o700


SECURE = """
import os, sys
from pathlib import Path
from windvane.config import Settings
from windvane.errors import ConfigInvalid
from windvane.runtime.home_modes import secure_home
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
try:
    secure_home(Settings(home=Path(sys.argv[1])))
except ConfigInvalid as error:
    print(error)
"""


@as_root
def test_what_cannot_be_tightened_is_rejected() -> None:
    with tempfile.TemporaryDirectory() as open_to_others:  # as the folders of pytest are not
        Path(open_to_others).chmod(0o711)
        home = Path(open_to_others) / "home"
        home.mkdir()
        database = home / "catalog.sqlite"
        database.touch()
        database.chmod(0o644)  # of root
        os.chown(home, NOBODY, NOBODY)
        command = [sys.executable, "-c", SECURE, str(home), str(NOBODY)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert f"{database} has mode 0644, so others may use what is in it" in said
        assert f"as its owner: chmod 0600 {database}" in said
        assert mode(database) == 0o644
