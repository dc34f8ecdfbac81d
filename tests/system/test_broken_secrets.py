"""`windvane up` over secrets that cannot be used: only the forward port stays closed, until they can be
used.
"""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.ingest.forward.forward_site import write_security
from tests.processes import Running, wait_until, what_send_says

USER = '[[user]]\nname = "north"\npassword = "p1"\n'


def is_open(up: Running) -> bool:
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex(up.forward) == 0


def answer(up: Running, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{up.ready['web']}{path}", timeout=30) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.system
def test_up_runs_on_a_broken_file_names_its_line_and_opens_the_port_when_it_is_corrected(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_security(home, USER + "pasword = 1\n")
    up = Running("up", home)
    up.start()
    try:
        assert not is_open(up)
        status, health = answer(up, "/api/v1/health")
        assert (status, str(health).count("settings-broken")) == (503, 1)
        assert "forward-security.toml: line 4: user[0]: object contains unknown field" in str(health)
        log = up.log.read_text()
        assert "line 4" in log
        assert f"ready, forward port {up.ready['forward']} shut" in log
        assert "ready, forward 1" not in log
        said = what_send_says(home, up.ready["forward"], tmp_path)
        assert f"the gateway of {home} runs, and its forward port is shut: " in said
        assert "line 4" in said
        assert "does the gateway run?" not in said

        write_security(home, USER)  # for HTTP alone: no health condition
        wait_until(lambda: answer(up, "/api/v1/health")[0] == 200, "health")
        assert not is_open(up)
        assert "write the line shared_key" in up.log.read_text()

        write_security(home, 'shared_key = ""\n' + USER)
        wait_until(lambda: is_open(up), "the forward port")
    finally:
        assert up.stop() == 0
