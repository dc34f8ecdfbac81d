"""What a user does with curl: posts through the web port of a running installation are stored."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import msgpack
import pytest

from tests.processes import Running, wait_until, windvane

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
MIB = 1024 * 1024
AS_JSON = ("-H", "Content-Type: application/json")


@pytest.fixture(scope="module", autouse=True)
def policy(site: Running) -> None:
    made = windvane(site.home, "policy", "create", "logs", "--tag", "app.**", "--format", "json")
    assert made.returncode == 0, made.stderr.decode()


def curl(site: Running, path: str, *options: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """The status and the body."""
    command = ["curl", "--silent", "--max-time", "60", "--write-out", "%{stderr}%{http_code}"]
    done = subprocess.run(
        [*command, f"{site.ready['web']}{path}", *options],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=90,
    )
    return int(done.stderr or b"0"), done.stdout


def stored(site: Running, stream: str, lines: int) -> list[object]:
    """Returns the records of a stream, once it has this many."""

    def read() -> list[bytes]:
        return windvane(site.home, "cat", stream).stdout.splitlines()

    wait_until(lambda: len(read()) >= lines, f"{lines} lines of {stream}")
    return [json.loads(line)["record"] for line in read()]


def test_json_lines_and_msgpack_become_the_stream(site: Running) -> None:
    address = "/ingest/logs/app/web"
    for options, body in (
        (AS_JSON, b'{"n":1}'),
        (AS_JSON, b'[{"n":2},{"n":3}]'),
        (("-H", "Content-Type: application/x-ndjson"), b'{"n":4}\n{"n":5}\n'),
        (("-H", "Content-Type: application/msgpack"), bytes(msgpack.packb({"n": 6}))),
        ((*AS_JSON, "-H", "Content-Encoding: gzip"), gzip.compress(b'{"n":7}')),
    ):
        assert curl(site, address, "--data-binary", "@-", *options, stdin=body) == (204, b"")
    assert stored(site, "app.web", 7) == [{"n": n} for n in range(1, 8)]


def test_credentials_that_are_given_must_be_right(site: Running) -> None:
    token = (site.home / "token").read_text().strip()
    address = "/ingest/logs/app.known"
    for given, status in (
        (("-u", f"anybody:{token}"), 204),
        (("-H", f"Authorization: Bearer {token}"), 204),
        (("-u", "anybody:wrong"), 401),
        (("-H", "Authorization: Bearer wrong"), 401),
        (("-H", "Origin: http://elsewhere.example"), 403),
    ):
        found, body = curl(site, address, *AS_JSON, "-d", "{}", *given)
        assert found == status
        if status != 204:
            assert json.loads(body)["detail"]
    assert len(stored(site, "app.known", 2)) == 2


def test_bombs_and_bodies_over_the_limit_are_rejected_and_the_next_one_is_served(
    site: Running, tmp_path: Path
) -> None:
    address = "/ingest/logs/app.large"
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(1024 * MIB), compresslevel=9))
    (tmp_path / "large").write_bytes(b" " * 100 * MIB)
    upload = ("--data-binary", f"@{tmp_path / 'bomb'}", "-H", "Content-Encoding: gzip", *AS_JSON)
    status, body = curl(site, address, *upload)
    assert (status, json.loads(body)["code"]) == (413, "too-large")
    for how in ((), ("-H", "Transfer-Encoding: chunked")):
        status, body = curl(site, address, "--data-binary", f"@{tmp_path / 'large'}", *AS_JSON, *how)
        assert (status, json.loads(body)["code"]) == (413, "too-large")
    assert curl(site, address, *AS_JSON, "-d", '{"still":"here"}')[0] == 204
    assert stored(site, "app.large", 1) == [{"still": "here"}]


def test_a_rejected_body_is_replayed_over_the_api_once_its_cause_is_fixed(site: Running) -> None:
    for _ in range(2):
        status, _ = curl(site, "/ingest/later/later.x", *AS_JSON, "-d", '{"n":1}')
        assert status == 404
    letters = json.loads(curl(site, "/api/v1/dead-letters")[1])
    [letter] = [entry for entry in letters if entry["tag"] == "later.x"]
    assert letter["times"] == 2
    again = f"/api/v1/dead-letters/{letter['id']}/replay"
    status, body = curl(site, again, "-X", "POST")
    assert (status, json.loads(body)["code"]) == (422, "no-policy")
    made = windvane(site.home, "policy", "create", "later", "--tag", "later.*", "--format", "json")
    assert made.returncode == 0, made.stderr.decode()
    assert curl(site, again, "-X", "POST") == (204, b"")
    assert stored(site, "later.x", 1) == [{"n": 1}]
    assert curl(site, again, "-X", "POST")[0] == 404
