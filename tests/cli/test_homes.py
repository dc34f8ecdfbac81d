"""Which home a command works on among other homes and servers; no data reaches a wrong home silently."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from windvane.cli import main
from windvane.runtime import installations
from windvane.runtime.installations import home_of_gateway, listener_uid, noted_as_running, running_homes

from tests.processes import COMMAND, Running, environment, wait_until

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

User = Callable[..., Result]


class NewUser:
    """A user without a home of Windvane, in places of its own."""

    def __init__(self, directory: Path) -> None:
        self.default = directory / "data" / "windvane"
        self.runtime = directory / "runtime"
        self.runtime.mkdir(mode=0o700)
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.environ = {
            "XDG_DATA_HOME": str(self.default.parent),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "TMPDIR": str(self.temporary),
            "HOME": str(directory),
        }

    def note_directories(self) -> list[Path]:
        running = Path(self.environ["HOME"]) / ".local" / "state" / "windvane" / "running"
        return [self.runtime / "windvane", self.temporary / f"windvane-{os.geteuid()}", running]

    def run(self, *arguments: str, exit_code: int = 0, environ: Mapping[str, str] | None = None) -> Result:
        given = {**self.environ, "WINDVANE_HOME": None, "WINDVANE_CATALOG": None, **(environ or {})}
        result = CliRunner().invoke(main, list(arguments), env=given)
        assert result.exit_code == exit_code, result.output
        return result


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewUser:
    made = NewUser(tmp_path)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


LOOKING_AND_CHANGING = [
    ["ls"],
    ["ls", "arrays"],
    ["ls", "policies"],
    ["cat", "voice"],
    ["export", "voice:spectrum", "x.npy"],
    ["policy", "create", "voice"],
    ["policy", "list"],
    ["policy", "show", "voice"],
    ["policy", "delete", "voice"],
    ["apply", __file__],
    ["send", "voice", __file__],
    ["drop", "voice:spectrum~1"],
    ["alarm", "list"],
    ["dead-letter", "list"],
    ["dead-letter", "replay", "--all"],
    ["operation", "new", "clip"],
    ["model", "train", "voice:strange"],
    ["reprocess", "voice"],
    ["verify"],
    ["recover", "list"],
    ["topics", "list"],
    ["topics", "apply"],
    ["topics", "take-over", "--bus", "kafka://127.0.0.1:1"],
]


@pytest.mark.parametrize("arguments", LOOKING_AND_CHANGING, ids=lambda words: " ".join(words[:2]))
def test_a_default_home_that_is_missing_is_said_and_not_made(user: NewUser, arguments: list[str]) -> None:
    said = user.run(*arguments, exit_code=1).stderr
    assert said.startswith(f"windvane: there is no home directory {user.default}, the default")
    assert "`windvane up`" in said
    assert said.count("\n") == 1
    assert not user.default.parent.exists()


def test_what_needs_no_home_works_without_one(user: NewUser, tmp_path: Path) -> None:
    assert "pcm" in user.run("operation", "list").stdout
    assert "wrote" in user.run("simulate", "--wav", str(tmp_path / "tone.wav")).stdout
    user.run("--help")
    assert not user.default.parent.exists()


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_home_that_is_named_is_made(user: NewUser, tmp_path: Path, by_variable: bool) -> None:
    home = tmp_path / "named"
    option = [] if by_variable else ["--home", str(home)]
    variable = {"WINDVANE_HOME": str(home)} if by_variable else {}
    result = user.run("policy", "create", "voice", *option, environ=variable)
    assert result.stderr == ""
    assert (home / "catalog.sqlite").exists()
    assert not user.default.parent.exists()


def test_the_one_installation_that_runs_is_found(user: NewUser, tmp_path: Path) -> None:
    home = tmp_path / "other"
    with noted_as_running(home, "up"):
        result = user.run("policy", "create", "voice")
        assert result.stderr == (
            f"windvane: working on {home}, over which Windvane runs; the default home {user.default} does "
            "not exist\n"
        )
        assert user.run("ls", "policies").stdout.startswith("voice\t")
        (tmp_path / "named").mkdir()
        named = user.run("policy", "create", "other", "--home", str(tmp_path / "named"))
        assert named.stderr == ""
    assert (home / "catalog.sqlite").exists()
    assert not user.default.parent.exists()
    user.run("ls", "policies", exit_code=1)  # it runs no more


def test_of_several_that_run_none_is_taken(
    user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(installations, "running_homes", lambda: [first, second])
    monkeypatch.setattr("windvane.commands.common.homes.running_homes", lambda: [first, second])
    said = user.run("policy", "create", "voice", exit_code=1).stderr
    assert f"Windvane runs over {first} and {second}: name one of them with --home" in said
    assert not first.exists()


def test_a_default_home_over_which_nothing_runs_is_said_while_another_one_runs(
    user: NewUser, tmp_path: Path
) -> None:
    user.run("policy", "create", "voice", "--home", str(user.default))
    assert user.run("ls", "policies").stderr == ""
    with noted_as_running(tmp_path / "other", "web"):
        result = user.run("ls", "policies")
        assert result.stdout.startswith("voice\t")
        assert f"working on {user.default}, the default home, over which nothing runs" in result.stderr
        assert str(tmp_path / "other") in result.stderr
    with noted_as_running(user.default, "web"):
        assert user.run("ls", "policies").stderr == ""


def test_empty_listings_say_so_next_to_the_output(user: NewUser, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    (home / "store").mkdir(parents=True, mode=0o700)
    for arguments, said in (
        (["ls"], "no data streams in"),
        (["ls", "arrays"], "no data arrays in"),
        (["ls", "policies"], "no policies in"),
        (["policy", "list"], "no policies in"),
        (["ls", "--replaced"], "no replaced arrays in"),
        (["dead-letter", "list"], "no dead letters in"),
        (["dead-letter", "list", "--code", "framing"], "no dead letters of code framing in"),
        (["dead-letter", "replay", "--all"], "no dead letters in"),
        (["dead-letter", "replay", "--tag", "a.*"], "no dead letters of a tag that a.* matches in"),
        (["alarm", "list"], "no open alarms in"),
        (["alarm", "list", "--state", "all"], "no alarms in"),
        (["topics", "list"], "no topics"),
    ):
        result = user.run(*arguments, "--home", str(home))
        assert result.stdout == ""
        assert result.stderr.startswith(said)


def test_an_empty_listing_says_how_many_chunks_wait_for_the_worker(user: NewUser, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "store").mkdir(parents=True, mode=0o700)
    (home / "run").mkdir(mode=0o700)
    body = b'{"lag_messages": 3}'
    with socket.socket(socket.AF_UNIX) as worker:
        worker.bind(str(home / "run" / "worker.sock"))
        worker.listen()

        def answer() -> None:
            accepted, _ = worker.accept()
            with accepted:
                assert accepted.recv(4096).startswith(b"GET /status ")
                accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        answering = threading.Thread(target=answer)
        answering.start()
        said = user.run("ls", "--home", str(home)).stderr
        answering.join(timeout=10)
    assert said == f"no data streams in {home}; 3 chunks wait to be stored by the worker\n"
    # It was killed: its socket is there, and it answers no more.
    assert "send something" in user.run("ls", "--home", str(home)).stderr


def test_a_process_that_has_ended_is_not_found_and_its_note_goes(user: NewUser, tmp_path: Path) -> None:
    notes = user.runtime / "windvane"
    with noted_as_running(tmp_path / "mine", "up"):
        [mine] = notes.iterdir()
        # Another process had this number, or none has that one.
        (notes / f"{os.getppid()}.json").write_text('{"home": "/x", "tier": "up", "started": 1}')
        (notes / "4194305.json").write_text('{"home": "/y", "tier": "up", "started": 1}')
        (notes / "1.json").write_text("no JSON")
        assert running_homes() == [tmp_path / "mine"]
        assert mine.exists()
    with noted_as_running(tmp_path / "mine", "up"):
        assert [path.name for path in notes.iterdir()] == [mine.name]
    assert list(notes.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_directory_that_others_can_write_to_is_not_believed(
    user: NewUser, tmp_path: Path, mode: int
) -> None:
    with noted_as_running(tmp_path / "mine", "up"):
        for directory in user.note_directories():
            assert running_homes() == [tmp_path / "mine"]
            directory.chmod(mode)
        assert running_homes() == []
    for directory in user.note_directories():
        directory.chmod(0o700)


def test_what_runs_is_found_from_an_environment_with_other_directories(
    user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"XDG_RUNTIME_DIR": tmp_path / "r", "TMPDIR": tmp_path / "t", "HOME": tmp_path / "h"}
    for directory in other.values():
        directory.mkdir(mode=0o700)
    with noted_as_running(tmp_path / "mine", "up"):
        for kept in other:
            with monkeypatch.context() as changed:
                for name in other.keys() - {kept}:
                    changed.setenv(name, str(other[name]))
                assert running_homes() == [tmp_path / "mine"]
    assert running_homes() == []


def test_a_note_that_was_removed_is_written_again(
    user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installations, "RENEW_S", 0.01)
    with noted_as_running(tmp_path / "mine", "up"):
        for directory in user.note_directories():
            shutil.rmtree(directory)
        for directory in user.note_directories():
            wait_until(lambda: list(directory.glob("*.json")), f"a note in {directory}")  # noqa: B023
        assert running_homes() == [tmp_path / "mine"]
    assert not [note for directory in user.note_directories() for note in directory.iterdir()]


def test_a_directory_of_another_user_is_not_believed(
    user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noted_as_running(tmp_path / "mine", "up"):
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
        assert running_homes() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_listens_at_a_port_is_known(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        port = listening.getsockname()[1]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert listener_uid(shown) is None
        listening.listen()
        assert listener_uid(shown) == listener_uid(f"localhost:{port}") == os.geteuid()
        assert listener_uid(f"192.0.2.1:{port}") is None


def test_a_server_of_another_user_is_not_sent_to_unless_it_is_named(
    user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.commands.common.receiver.listener_uid", lambda address: 4_000_000)
    (tmp_path / "home" / "store").mkdir(parents=True, mode=0o700)
    said = user.run("send", "t", os.devnull, "--home", str(tmp_path / "home"), exit_code=1).stderr
    assert "the server at 127.0.0.1:24224 is one of user 4000000" in said
    (tmp_path / "empty").touch()
    result = user.run("send", "t", str(tmp_path / "empty"), "--to", "127.0.0.1:24224")
    assert "the server at 127.0.0.1:24224 is one of user 4000000" in result.stderr


def test_that_nothing_runs_is_not_said_while_a_process_of_this_user_listens(
    user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.commands.common.homes.listener_uid", lambda address: os.geteuid())
    said = user.run("ls", exit_code=1).stderr
    assert "a process of this user listens at 127.0.0.1:24224" in said
    assert "no Windvane of this user runs" not in said


@pytest.fixture(scope="module")
def other_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NewUser, Running]]:
    """A new user, whose Windvane runs over another home than the default one."""
    directory = tmp_path_factory.mktemp("other_home")
    new_user = NewUser(directory)
    with Running("up", directory / "served", environ=new_user.environ) as running:
        yield new_user, running


def run_as(new_user: NewUser, line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of the README, as the user types it; the default home is named by nothing."""
    inherited = environment(new_user.default, new_user.environ)
    del inherited["WINDVANE_HOME"]
    words = [*COMMAND, *shlex.split(line)[1:]]
    return subprocess.run(
        words, env={**inherited, **more}, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.system
def test_the_readme_s_commands_work_on_the_home_that_is_served(
    other_home: tuple[NewUser, Running], tmp_path: Path
) -> None:
    new_user, served = other_home
    [lines] = [
        block for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) if "windvane send voice" in block
    ]
    for line in lines.splitlines():
        done = run_as(new_user, line, tmp_path)
        if "export" in line:
            # The spectrum is made while the recording arrives.
            wait_until(lambda: run_as(new_user, line, tmp_path).returncode == 0, "the spectrum is made")  # noqa: B023
            continue
        assert done.returncode == 0, done.stderr
        if "simulate" not in line:
            assert f"working on {served.home}, over which Windvane runs" in done.stderr
    assert (tmp_path / "spectrum.npy").stat().st_size > 1000
    recording = subprocess.run(
        [*COMMAND, "cat", "voice"], env=environment(served.home), capture_output=True, timeout=60, check=True
    )
    assert recording.stdout == (tmp_path / "tone.wav").read_bytes()
    assert not new_user.default.exists()


@pytest.mark.system
def test_send_says_that_it_reaches_another_home(other_home: tuple[NewUser, Running], tmp_path: Path) -> None:
    new_user, served = other_home
    (tmp_path / "file").write_bytes(b"x")
    mine = tmp_path / "mine"
    # Its settings name the port at which the other one's gateway listens, as two homes with defaults do.
    mine.mkdir(mode=0o700)
    (mine / "windvane.toml").write_text(f'forward = "{served.ready["forward"]}"\n')
    created = run_as(new_user, "windvane policy create tag", tmp_path, WINDVANE_HOME=str(served.home))
    assert created.returncode == 0, created.stderr
    for line in ("windvane send tag file", f"windvane send tag file --to {served.ready['forward']}"):
        done = run_as(new_user, line, tmp_path, WINDVANE_HOME=str(mine))
        assert done.returncode == 0, done.stderr
        first, last = done.stderr.splitlines()
        assert first.startswith(
            f"windvane: {served.ready['forward']} is the gateway of {served.home}, not of {mine}; "
        )
        assert f"all acked; tag at {served.ready['forward']} of {served.home}" in last
    to_its_own = run_as(new_user, "windvane send tag file", tmp_path, WINDVANE_HOME=str(served.home))
    assert to_its_own.stderr.count("\n") == 1
    assert home_of_gateway("127.0.0.1:1") is None


@pytest.mark.system
def test_send_says_that_the_port_is_not_that_of_its_home(
    other_home: tuple[NewUser, Running], tmp_path: Path
) -> None:
    new_user, served = other_home
    (tmp_path / "file").write_bytes(b"x")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    port = served.ready["forward"]
    (mine / "windvane.toml").write_text(f'forward = "{port}"\n')
    created = run_as(new_user, "windvane policy create foreign", tmp_path, WINDVANE_HOME=str(served.home))
    assert created.returncode == 0, created.stderr
    other = NewUser(tmp_path)  # for whom no note is where a command looks
    for line in ("windvane send foreign file", f"windvane send foreign file --to {port}"):
        done = run_as(new_user, line, tmp_path, **other.environ, WINDVANE_HOME=str(mine))
        assert done.returncode == 0, done.stderr
        first, last = done.stderr.splitlines()
        assert first.startswith(f"windvane: {port} is not the gateway of {mine}, over which nothing runs; ")
        assert f"all acked; foreign at {port}, which is not the gateway of {mine}" in last
    to_its_own = run_as(
        new_user, "windvane send foreign file", tmp_path, **other.environ, WINDVANE_HOME=str(served.home)
    )
    assert to_its_own.stderr.count("\n") == 1


@pytest.mark.system
def test_send_says_how_many_of_the_acked_events_were_rejected(
    other_home: tuple[NewUser, Running], tmp_path: Path
) -> None:
    new_user, served = other_home
    policy = 'reference = "{}"\nschema = \'\'\'{{"type": "record", "name": "r", "fields": [{}]}}\'\'\'\n{}'
    field = '{"name": "n", "type": "long"}'
    (tmp_path / "some.toml").write_text(policy.format("some", field, ""))
    (tmp_path / "whole.toml").write_text(policy.format("whole", field, 'invalid_records = "refuse"\n'))
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"n": {n if n % 3 else chr(34) * 2}}}\n' for n in range(9))
    )
    home = {"WINDVANE_HOME": str(served.home)}
    for tag, rejected in (("some", 3), ("whole", 9)):
        done = run_as(new_user, f"windvane apply {tag}.toml", tmp_path, **home)
        assert done.returncode == 0, done.stderr
        done = run_as(new_user, f"windvane send {tag} rows.jsonl --format jsonl", tmp_path, **home)
        assert done.returncode == 0, done.stderr
        assert f"all acked, of which {rejected} events rejected (schema; see `windvane dead-le" in done.stderr
    socket_path = served.home / "run" / "forward.sock"
    done = run_as(
        new_user,
        f"windvane send some rows.jsonl --format jsonl --to unix:{socket_path}",
        tmp_path,
        WINDVANE_HOME=str(tmp_path / "mine"),
    )
    assert f"forward.sock is the gateway of {served.home}, not of {tmp_path / 'mine'}" in done.stderr
    assert "all acked, of which 3 events rejected (schema; see `windvane dead-letter list --ho" in done.stderr
    # So many chunks that `send` requests their outcomes more than once.
    (tmp_path / "many.jsonl").write_text('{"n": ""}\n{"n": 1}\n' * 1500)
    done = run_as(new_user, "windvane send some many.jsonl --format jsonl --chunk-bytes 1", tmp_path, **home)
    assert "all acked, of which 1,500 events rejected" in done.stderr
