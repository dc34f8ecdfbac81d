"""Third-party clients: their data is stored byte for byte, and they get the acks that they request."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fluent.sender import FluentSender
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane

CLIENTS = Path(__file__).resolve().parents[1] / "clients"


def create(site: Running, tag: str) -> None:
    created = windvane(site.home, "policy", "create", tag, "--format", "raw")
    assert created.returncode == 0, created.stderr.decode()


def wait_for_bytes(site: Running, tag: str, expected: bytes) -> None:
    context = connect(site.home)
    wait_until(
        lambda: tag in context.streams and context.streams[tag].size >= len(expected), f"{tag} is stored"
    )
    assert context.streams[tag][:] == expected


@pytest.mark.parametrize("nanosecond_precision", [False, True])
def test_fluent_logger_of_python(site: Running, speech: Path, nanosecond_precision: bool) -> None:
    tag = f"python.{nanosecond_precision}".lower()
    create(site, tag)
    content = speech.read_bytes()
    host, port = site.forward
    sender = FluentSender(
        tag,
        host=host,
        port=port,
        nanosecond_precision=nanosecond_precision,
        msgpack_kwargs={"use_bin_type": True},
    )
    for at in range(0, len(content), 2048):
        assert sender.emit(None, {"message": content[at : at + 2048]}), sender.last_error
    sender.close()
    wait_for_bytes(site, tag, content)


@pytest.mark.parametrize("mode", ["Message", "Forward", "PackedForward", "CompressedPackedForward"])
def test_fluent_org_logger_of_node_with_acks(site: Running, speech: Path, mode: str) -> None:
    node = shutil.which("node")
    assert node is not None, "make test brings Node.js where the machine has none"
    tag = f"node.{mode}"
    create(site, tag)
    sent = subprocess.run(
        [node, "send.mjs", str(site.forward[1]), tag, str(speech), "2048", mode],
        cwd=CLIENTS,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr.decode()
    assert sent.stdout.decode().strip() == f"{-(-speech.stat().st_size // 2048)} acked"
    wait_for_bytes(site, tag, speech.read_bytes())
