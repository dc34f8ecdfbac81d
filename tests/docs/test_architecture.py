"""What docs/architecture.md names exists: rooms, files and classes."""

import re

import pytest

from tests.docs.snippets import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
ROOMS = re.findall(r"^\| `(platform/[\w/]+)` \|.*\| `([\w/.]+)` \|$", PAGE, re.MULTILINE)
SOURCES = "\n".join(path.read_text() for path in (ROOT / "platform").rglob("*.py") if "ui" not in path.parts)


@pytest.mark.parametrize(("room", "first_file"), ROOMS)
def test_a_room_has_the_file_to_open_first(room: str, first_file: str) -> None:
    assert (ROOT / room / first_file).is_file()


def test_every_room_is_listed() -> None:
    packages = {
        path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "platform").rglob("*/__init__.py")
    }
    within = {"platform/processors", "platform/store", "platform/processors/operations/wav"}
    small = {room for room in packages if room.startswith(("platform/commands/", "platform/store/catalog/"))}
    assert packages - within - small <= {room for room, _ in ROOMS}


@pytest.mark.parametrize(
    "path", sorted({each for each in CODE if re.match(r"(platform|tests|benchmarks)/", each)})
)
def test_the_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "name", sorted({each for each in CODE if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", each)})
)
def test_the_classes_exist(name: str) -> None:
    assert re.search(rf"^class {name}\b", SOURCES, re.MULTILINE)


@pytest.mark.parametrize(
    "path", re.findall(r"(?:^|\s)((?:ingest|bus|processors|store)/[\w/.]+)", PAGE, re.MULTILINE)
)
def test_the_path_of_a_chunk_names_what_exists(path: str) -> None:
    assert (ROOT / "platform" / path).exists()
