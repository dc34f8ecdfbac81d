"""What every command has: help with examples, errors in one line, exit codes."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from windvane.cli import main
from windvane.commands.send import _create_line

from tests.processes import started
from tests.store.files.resumed import resumed

from .conftest import Run


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_s_help_shows_examples_of_itself(path: tuple[str, ...], run: Run) -> None:
    shown = run(*path, "--help").output
    examples = shown.partition("Examples:")[2].partition("Options:")[0]
    assert re.search(rf"windvane {' '.join(path)}\b", examples)


@pytest.mark.system
def test_help_comes_without_loading_what_is_heavy() -> None:
    heavy = ["numpy", "scipy", "sqlalchemy", "aiohttp"]
    program = f"import sys, windvane.cli; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "[]\n"


@pytest.mark.system
@pytest.mark.parametrize("module", ["click", "msgspec", "windvane.commands.tiers"])
def test_ctrl_c_while_modules_are_loaded_ends_it_without_a_traceback(module: str) -> None:
    program = "from windvane.entry import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", program, "up"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
        assert starting.stderr is not None
        said = []
        for line in starting.stderr:
            said.append(line)
            if line.split("|")[-1].strip() == module:
                break
        starting.send_signal(signal.SIGINT)
        said += starting.stderr
    assert starting.returncode in (-signal.SIGINT, 130)
    assert not [line for line in said if not line.startswith("import time:") and line.strip()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cat", "nothing"], "windvane: there is no data stream"),
        (["export", "nothing:x", "x.npy"], "windvane: there is no data array"),
        (["policy", "show", "nothing"], "windvane: there is no policy 'nothing'; create one with"),
        (["policy", "delete", "nothing"], "windvane: there is no policy 'nothing'; create one with"),
        (["policy", "create", "a b"], "windvane: policy \"a b\": reference"),
        (["send", "t", os.devnull, "--to", "nowhere"], "windvane: 'nowhere' is not an address; write"),
        (["up", "--forward", "0.0.0.0:0"], "windvane: the forward port cannot be opened at 0.0.0.0:0"),
        (["gateway", "--forward", "[::]:24224"], "windvane: the forward port cannot be opened at [::]:24224"),
        (["web", "--web", "8080"], "windvane: --web: web: '8080' is not an address"),
        (["up", "--ready-file", "/no/r.json"], "windvane: --ready-file /no/r.json: the folder /no does"),
        (["ls", "--home", "/nowhere"], "windvane: there is no home directory /nowhere"),
        (["process", "--home", "/dev/null/x"], "windvane: /dev/null/x"),
    ],
)  # fmt: skip
def test_a_user_s_mistake_is_one_line_and_exit_code_1(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments, exit_code=1)
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send", "a:b", os.devnull], "'a:b' is not a valid tag"),
        (["send", "", os.devnull], "'' is not a valid tag"),
        (["send", "x" * 201, os.devnull], "is not a valid tag: 1 to 200 bytes"),
        (["send", "t", os.devnull, "--time-field", "time"], "--time-field does not go with --format raw"),
        (["send", "t", os.devnull, "--format", "jsonl", "--type", "a=text"], "--type does not go with"),
        (["send", "t", os.devnull, "--format", "csv", "--type", "a=number"], "'a=number' is not NAME=TYPE"),
        (["send", "t", os.devnull, "--format", "csv", "--keep-time-field"], "goes with --time-field"),
        (["send", "t", os.devnull, "--format", "csv", "--encoding", "hex"], "'hex' is not a known encoding"),
        (["send", "t", "/nowhere/file"], "/nowhere/file"),
        (["send", "t", os.devnull, "--chunk-bytes", "0"], "--chunk-bytes"),
        (["policy", "create", "p", "--preset", "video"], "'audio', 'vibration', 'sensors', 'logs'"),
        (["ls", "walls"], "'streams', 'arrays', 'policies'"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_are_rejected_with_what_can(
    run: Run, arguments: list[str], message: str
) -> None:
    assert message in run(*arguments, exit_code=2).stderr


def test_the_help_of_a_tier_has_only_what_means_something_to_it(run: Run) -> None:
    def shown(tier: str) -> set[str]:
        return set(
            re.findall(
                r"--(?:forward|web|bus|catalog)\b", run(tier, "--help").stdout.partition("Options:")[2]
            )
        )

    assert shown("up") == {"--forward", "--web", "--bus", "--catalog"}
    assert shown("gateway") == {"--forward", "--bus", "--catalog"}
    assert shown("worker") == shown("process") == {"--bus", "--catalog"}
    assert shown("web") == {"--web", "--catalog"}


def test_up_makes_nothing_if_the_ready_file_cannot_be_written(run: Run, tmp_path: Path) -> None:
    run("up", "--home", str(tmp_path / "new"), "--ready-file", str(tmp_path / "none" / "r.json"), exit_code=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "arrays"], ["ls", "policies"], ["policy", "show", "p"]])
def test_looking_makes_no_home_of_a_directory_that_is_none(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rejected = run(*arguments, "--home", str(other), exit_code=1).stderr
    assert rejected.startswith(f"windvane: {other} is not a Windvane home")
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("tag", "options", "line"),
    [
        ("late", [], "windvane policy create late --tag late"),
        ("my tag", ["--format", "raw"], "windvane policy create my-tag --tag 'my tag' --format raw"),
        ("a*b", [], r"windvane policy create a-b --tag 'a\*b'"),
        ("Ü", [], "windvane policy create mine --tag 'Ü'"),
    ],
)
def test_the_line_that_fixes_an_unknown_tag_can_be_pasted(tag: str, options: list[str], line: str) -> None:
    assert _create_line(tag, options=options, home=None) == line
    assert _create_line(tag, options=options, home=Path("/a b")) == f"{line} --home '/a b'"


def test_debug_shows_the_traceback(run: Run) -> None:
    assert run("--debug", "cat", "nothing", exit_code=1).exception.__class__.__name__ == "StreamNotFound"


@pytest.mark.system
def test_a_reader_that_goes_away_ends_cat_quietly(home: Path) -> None:
    from windvane.store.files.store import Store

    with Store(home / "store") as store:
        writer = resumed(store.stream_writer("big", attrs={}))
        writer.append(bytes(4_000_000), arrived_ns=1, chunk_id=None, events=1)
    command = [sys.executable, "-m", "windvane.cli", "cat", "big", "--home", str(home)]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        assert cat.stderr is not None
        assert len(cat.stdout.read(10)) == 10
        cat.stdout.close()
        assert cat.stderr.read() == b""
    assert cat.returncode == 128 + signal.SIGPIPE


@pytest.mark.system
@pytest.mark.parametrize(("tier", "flag"), [("gateway", "--forward"), ("web", "--web")])
def test_a_port_that_is_taken_is_said_with_the_flag_that_chooses_another(
    home: Path, tier: str, flag: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "windvane.cli", tier, "--home", str(home), flag, address]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert re.match(rf"windvane: .*{re.escape(address)} cannot be bound: .* {flag}", ended.stderr)
