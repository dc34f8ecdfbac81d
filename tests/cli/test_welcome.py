"""What `windvane up` prints when it is ready."""

import socket
from pathlib import Path

import pytest
from windvane.commands.welcome import welcome
from windvane.config import Settings


@pytest.mark.parametrize(
    ("bound", "opened"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:9000", "http://[::1]:9000"),
        ("192.0.2.7:80", "http://192.0.2.7:80"),
    ],
)
def test_the_address_is_one_that_a_browser_here_can_open(bound: str, opened: str) -> None:
    report = {"web": f"http://{bound}", "forward": "127.0.0.1:24224"}
    first, *rest = welcome(Settings(home=Path("/h")), report, demo=False).splitlines()
    assert first == f"Windvane is up. Open {opened}"
    port = bound.rpartition(":")[2]
    elsewhere = f"  elsewhere     http://{socket.gethostname()}:{port}"
    assert (elsewhere in rest) == (bound.startswith(("0.0.0.0", "[::]")))
    assert ("  token         in /h/token" in rest) == (not bound.startswith("127."))
    assert "  home          /h" in rest


def test_a_forward_port_that_is_shut_is_called_so(tmp_path: Path) -> None:
    report = {"web": "http://127.0.0.1:8080", "forward": "127.0.0.1:24224"}
    (tmp_path / "forward-security.toml").touch(0o600)
    assert "  forward port  127.0.0.1:24224, shut: " in welcome(Settings(home=tmp_path), report, demo=False)
