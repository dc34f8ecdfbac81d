"""What cannot be used of secrets and certificates keeps the forward port shut, and nothing else."""

import asyncio
import logging
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from windvane.config import Settings

from tests.ingest.forward.forward_site import (
    EVENT,
    TIMEOUT_S,
    Authority,
    ForwardSite,
    forward_site,
    packed,
    write_security,
)
from tests.ingest.security.test_tls import gateway_files, trusting
from tests.ingest.test_gateway import Site, read_ack, running
from tests.ingest.test_gateway_log import basic

KEYED = 'shared_key = "k3y"\n'
USER = '[[user]]\nname = "north"\npassword = "p1"\n'
STRANGER = {"X-Forwarded-For": "10.0.0.7"}  # as the web tier says it
LOGIN = {**STRANGER, "Authorization": basic("north", "p1")}

BROKEN = {
    "invalid TOML": (KEYED + "[[user]\n", "line 2: is not valid TOML"),
    "unended": (KEYED + 'hostname = "x', "line 2: is not valid TOML"),
    "a wrong type": (KEYED + "others = 3\n", "line 2: others: expected `bool`"),
    "an unknown key": (
        KEYED + "sharedkey = 3\n",
        "line 2: the file: object contains unknown field `sharedkey`",
    ),
    "empty": ("", "the file: has neither shared_key nor"),
}


def is_port_shut(site: ForwardSite | Site) -> bool:
    host, port = (site.host, site.port) if isinstance(site, ForwardSite) else site.forward
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex((host, port)) != 0


def troubles(site: ForwardSite) -> list[tuple[str, str]]:
    return [(trouble.code, trouble.detail) for trouble in site.telemetry.health.current()]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
async def test_broken_from_the_start_it_is_shut_names_the_line_and_opens_when_it_is_corrected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    async with forward_site(tmp_path, security=text, handshake_timeout_s=0.2) as site:
        assert is_port_shut(site)
        [(code, detail)] = troubles(site)
        assert code == "settings-broken"
        assert f"{tmp_path}/forward-security.toml: {said}" in detail
        assert "the forward port stays shut" in detail.lower()
        write_security(tmp_path, KEYED + USER)
        await site.until(lambda: site.server.is_open)
        assert troubles(site) == []
        async with site.connected() as peer:
            assert (await peer.shake_hands(b"k3y", user=b"north", password=b"p1"))[1] is True
            assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("mistake", ["gone", "mode"])
async def test_another_mistake_does_not_open_it(tmp_path: Path, mistake: str) -> None:
    async with forward_site(tmp_path, security="broken = [", handshake_timeout_s=0.2) as site:
        path = tmp_path / "forward-security.toml"
        if mistake == "gone":
            path.unlink()
        else:
            write_security(tmp_path, KEYED)
            path.chmod(0o644)
        said = "is gone" if mistake == "gone" else "chmod 600"
        await site.until(lambda: said in (site.telemetry.forward_shut or ""))
        assert is_port_shut(site)


@pytest.mark.parametrize(
    "text",
    [USER, '[[token]]\nname = "n"\ntoken = "0123456789abcdef"\n', "others = false\n" + KEYED + USER],
    ids=["users", "tokens", "others"],
)
async def test_a_file_for_http_alone_is_valid_and_the_log_says_how_to_open_the_port(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with forward_site(tmp_path, security=text, handshake_timeout_s=0.2) as site:
        assert is_port_shut(site)
        assert troubles(site) == []
        [line] = [record.getMessage() for record in caplog.records]
        assert "the forward port is shut" in line
        assert "above line 1" in line or "others = false" in line
        write_security(tmp_path, KEYED + USER)
        await site.until(lambda: site.server.is_open)
        assert site.telemetry.forward_shut is None


async def test_without_its_key_an_open_port_admits_no_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forward_site(tmp_path, security=KEYED + USER, handshake_timeout_s=0.4) as site:
        async with site.connected() as before:
            await before.shake_hands(b"k3y", user=b"north", password=b"p1")
            write_security(tmp_path, USER)
            assert await before.closed() == b""
        async with site.connected() as peer:
            assert (await peer.shake_hands(b"k3y", user=b"north", password=b"p1"))[1] is False
    assert "has no shared_key" in caplog.text


@pytest.mark.parametrize("again", ["corrected", "as it was"])
async def test_broken_while_it_runs_the_old_file_holds_and_health_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, again: str
) -> None:
    path, kept = tmp_path / "forward-security.toml", tmp_path / "kept"
    write_security(tmp_path, KEYED + USER)
    path.rename(kept)
    path.symlink_to(kept)  # as secrets are mounted into containers
    async with forward_site(tmp_path, handshake_timeout_s=0.2) as site:
        path.unlink()
        write_security(tmp_path, KEYED + USER.replace("[[user]]", "[[user]"))
        await site.until(lambda: troubles(site) and "line 2" in troubles(site)[0][1])
        [(code, detail)] = troubles(site)
        assert code == "settings-broken"
        assert "forward-security.toml: line 2: is not valid TOML" in detail
        assert "in force stays in force" in detail
        async with site.connected() as peer:
            assert (await peer.shake_hands(b"k3y", user=b"north", password=b"p1"))[1] is True
        if again == "corrected":
            write_security(tmp_path, KEYED + USER)
        else:
            path.unlink()
            path.symlink_to(kept)
        await site.until(lambda: not troubles(site))
    assert len([line for line in errors(caplog) if "line 2" in line]) == 1


async def test_certificates_that_cannot_be_used_keep_it_shut_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files: dict[str, Any] = gateway_files(authority)
    cert = files["tls_cert_file"]
    shutil.move(cert, tmp_path / "kept")
    async with forward_site(tmp_path, handshake_timeout_s=0.2, **files) as site:
        assert is_port_shut(site)
        [(code, detail)] = troubles(site)
        assert (code, f"{cert}: cannot be read" in detail) == ("settings-broken", True)
        shutil.move(tmp_path / "kept", cert)
        await site.until(lambda: site.server.is_open)
        assert troubles(site) == []
        async with site.connected(**trusting(authority)) as peer:
            assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"


@pytest.fixture
async def unknown(tmp_path: Path) -> AsyncIterator[Site]:
    write_security(tmp_path, KEYED + "[[user]\n")
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("t")
        yield site


async def test_all_else_runs_and_senders_over_http_keep_what_they_have(unknown: Site) -> None:
    assert is_port_shut(unknown)
    async with unknown.http() as http:
        for headers in (STRANGER, LOGIN):
            async with http.post("/ingest/t?reference=t", data=EVENT, headers=headers) as answer:
                assert (answer.status, "Retry-After" in answer.headers) == (503, True)
                assert "forward-security.toml" in (await answer.json())["detail"]
        # The access token of the home, and the gateway's own socket.
        for headers in ({**STRANGER, "X-Windvane-Access": "1"}, {}):
            async with http.post("/ingest/t?reference=t", data=EVENT, headers=headers) as answer:
                assert answer.status == 204
        async with http.get("/status") as answer:
            status = await answer.json()
        assert "line 2" in status["forward_shut"]
        assert [trouble["code"] for trouble in status["troubles"]] == ["settings-broken"]
    # From this machine a sender needs no port.
    reader, writer = await asyncio.open_unix_connection(unknown.settings.forward_socket)
    writer.write(packed("t", EVENT, chunk="c"))
    assert await read_ack(reader) == "c"
    writer.close()
    write_security(unknown.settings.home, KEYED + USER)
    async with unknown.http() as http, asyncio.timeout(TIMEOUT_S):
        status = 503
        while status == 503:
            async with http.post("/ingest/t?reference=t", data=EVENT, headers=LOGIN) as answer:
                status = answer.status
        assert status == 204


async def test_a_file_of_users_alone_guards_http(tmp_path: Path) -> None:
    write_security(tmp_path, USER)
    async with running(Settings(home=tmp_path, forward="0.0.0.0:0")) as site, site.http() as http:
        await site.policy("t")
        wrong = {**STRANGER, "Authorization": basic("north", "p2")}
        for headers, status in ((LOGIN, 204), (wrong, 401), (STRANGER, 401)):
            async with http.post("/ingest/t?reference=t", data=EVENT, headers=headers) as answer:
                assert answer.status == status
