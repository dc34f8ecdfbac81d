"""TLS on the forward port: client certificates, and certificates that change while the port is open."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from windvane.config import GatewaySettings, Settings
from windvane.errors import ConfigInvalid
from windvane.ingest.forward.client import ForwardClient
from windvane.ingest.forward.handshake import ClientCredentials
from windvane.ingest.security.tls import TlsFiles, certificate_name, make_client_context, make_server_context

from tests.ingest.forward.forward_site import EVENT, TIMEOUT_S, Authority, ForwardSite, forward_site, packed

KEYED = 'shared_key = "k3y"\n'
USERS = KEYED + '[[user]]\nname = "north"\npassword = "p1"\n'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def gateway_files(authority: Authority, *, mutual: bool = False) -> dict[str, Any]:
    cert, key = authority.issue("gateway", "127.0.0.1")
    given: dict[str, Any] = {"tls": True, "tls_cert_file": cert, "tls_key_file": key}
    return {**given, "tls_client_ca_file": authority.ca} if mutual else given


def trusting(authority: Authority, cert: Path | None = None, key: Path | None = None) -> dict[str, Any]:
    return {"ssl": make_client_context(ca=authority.ca, cert=cert, key=key), "server_hostname": "127.0.0.1"}


async def test_messages_and_acks_go_over_tls(tmp_path: Path, authority: Authority) -> None:
    async with forward_site(tmp_path, **gateway_files(authority)) as site:
        async with site.connected(**trusting(authority)) as peer:
            large = EVENT * 100_000
            assert await peer.acked(packed("t", large, chunk="one")) == b"one"
            assert await peer.acked(packed("t", EVENT, chunk="two")) == b"two"
        assert [bytes(chunk.payload) for chunk in site.chunks] == [large, EVENT]
        assert site.chunks[0].identity is None


async def test_fluentd_comes_with_tls_1_2_and_a_new_connection_for_each_chunk(
    tmp_path: Path, authority: Authority
) -> None:
    how = trusting(authority)
    how["ssl"].maximum_version = ssl.TLSVersion.TLSv1_2
    async with forward_site(tmp_path, security=KEYED, **gateway_files(authority)) as site:
        for number in range(5):
            async with site.connected(**how):
                pass  # its heartbeat
            async with site.connected(**how) as peer:
                assert peer.writer.get_extra_info("ssl_object").version() == "TLSv1.2"
                await peer.shake_hands(b"k3y")
                assert await peer.acked(packed("t", EVENT, chunk=f"{number}\n")) == b"%d\n" % number
        await site.until(lambda: site.telemetry.connections == 0)
        assert len(site.chunks) == 5


async def test_the_handshake_goes_over_tls(tmp_path: Path, authority: Authority) -> None:
    async with (
        forward_site(tmp_path, security=USERS, **gateway_files(authority)) as site,
        site.connected(**trusting(authority)) as peer,
    ):
        assert (await peer.shake_hands(b"k3y", user=b"north", password=b"p1"))[1] is True
        assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        assert site.chunks[0].identity == "north"


async def test_a_client_certificate_gives_its_name(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("t07", "t07.park.example", common_name="turbine t07")
    async with (
        forward_site(tmp_path, **gateway_files(authority, mutual=True)) as site,
        site.connected(**trusting(authority, cert, key)) as peer,
    ):
        assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        assert site.chunks[0].identity == "turbine t07"


@pytest.mark.parametrize(("security", "identity"), [(KEYED, "turbine t07"), (USERS, "north")])
async def test_a_user_says_more_than_a_certificate_and_that_more_than_a_hostname(
    tmp_path: Path, authority: Authority, security: str, identity: str
) -> None:
    cert, key = authority.issue("t07", "t07.park.example", common_name="turbine t07")
    async with (
        forward_site(tmp_path, security=security, **gateway_files(authority, mutual=True)) as site,
        site.connected(**trusting(authority, cert, key)) as peer,
    ):
        await peer.shake_hands(b"k3y", user=b"north", password=b"p1")
        await peer.acked(packed("t", EVENT, chunk="c"))
        assert site.chunks[0].identity == identity


async def test_clients_without_a_certificate_of_the_authority_are_rejected(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("stranger", "t07.park.example")
    async with forward_site(tmp_path, **gateway_files(authority, mutual=True)) as site:
        for cert, key in [(None, None), stranger]:
            async with site.connected(**trusting(authority, cert, key)) as peer:
                with pytest.raises((OSError, EOFError)):
                    await peer.acked(packed("t", EVENT, chunk="c"))
        await site.until(lambda: site.telemetry.handshakes_failed_total == 2)
        assert not site.chunks
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 2, "one line a minute for each cause"
        assert "shows no certificate" in said[0]
        assert "is not accepted" in said[1]


async def test_plain_peers_and_old_protocols_are_turned_away_and_others_served(
    tmp_path: Path, authority: Authority
) -> None:
    async with forward_site(tmp_path, handshake_timeout_s=0.2, **gateway_files(authority)) as site:
        async with site.connected() as plain, site.connected() as silent:
            await plain.send(packed("t", EVENT, chunk="c"))
            assert b"ack" not in await plain.closed()
            await silent.closed()
        old = trusting(authority)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old["ssl"].minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old["ssl"].maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):  # noqa: PT011 -- by the client's own library, or by the gateway
            async with site.connected(**old):
                pass
        async with site.connected(**trusting(authority)) as peer:
            assert await peer.acked(packed("t", EVENT, chunk="c")) == b"c"
        assert site.telemetry.handshakes_failed_total >= 2


async def serial_number(site: ForwardSite, authority: Authority) -> str:
    async with site.connected(**trusting(authority)) as peer:
        return str(peer.writer.get_extra_info("peercert")["serialNumber"])


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    async with forward_site(tmp_path, handshake_timeout_s=0.4, **gateway_files(authority)) as site:
        before = await serial_number(site, authority)
        async with site.connected(**trusting(authority)) as open_already:
            authority.issue("gateway", "127.0.0.1")
            async with asyncio.timeout(TIMEOUT_S):
                while await serial_number(site, authority) == before:
                    await asyncio.sleep(0.01)
            assert await open_already.acked(packed("t", EVENT, chunk="c")) == b"c"


async def test_a_broken_renewal_leaves_the_old_certificate_in_force(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = gateway_files(authority)
    async with forward_site(tmp_path, handshake_timeout_s=0.2, **files) as site:
        before = await serial_number(site, authority)
        files["tls_key_file"].write_text("no key")
        await site.until(lambda: "not taken over" in caplog.text)
        assert await serial_number(site, authority) == before


async def test_our_client_speaks_tls_and_shakes_hands(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("t07", "t07.park.example", common_name="turbine t07")
    async with forward_site(tmp_path, security=USERS, **gateway_files(authority, mutual=True)) as site:
        async with ForwardClient(
            f"127.0.0.1:{site.port}",
            credentials=ClientCredentials(b"k3y", user="north", password=b"p1", hostname="t07"),
            tls=make_client_context(ca=authority.ca, cert=cert, key=key),
        ) as client:
            await client.send_events("t", [(1, {"a": 1})])
        assert [chunk.identity for chunk in site.chunks] == ["north"]


async def test_our_client_does_not_send_to_a_receiver_that_it_does_not_know(
    tmp_path: Path, authority: Authority
) -> None:
    async with forward_site(tmp_path, **gateway_files(authority)) as site:
        client = ForwardClient(f"127.0.0.1:{site.port}", tls=make_client_context(), first_backoff_s=0.01)
        async with client:
            await client.send_events("t", [(1, {"a": 1})])
            await site.until(lambda: client.statistics().not_let_in)
            await client.close()
        assert not site.chunks


def test_the_error_names_the_unusable_file(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("one", "127.0.0.1")
    other = authority.issue("other", "127.0.0.1")[1]
    with pytest.raises(ConfigInvalid, match="do not belong together"):
        make_server_context(cert, other, None)
    with pytest.raises(ConfigInvalid, match=r"none\.pem: cannot be read"):
        make_server_context(tmp_path / "none.pem", key, None)
    with pytest.raises(ConfigInvalid, match=r"one\.key: holds no certificates"):
        make_server_context(cert, key, key)


@pytest.mark.parametrize(
    ("given", "missing"), [("tls_cert_file", "tls_key_file"), ("tls_client_ca_file", "tls_cert_file")]
)
def test_half_a_setting_is_rejected(tmp_path: Path, given: str, missing: str) -> None:
    gateway = msgspec.structs.replace(GatewaySettings(), **{given: Path("x.pem")})
    settings = Settings(home=tmp_path, gateway=gateway)
    with pytest.raises(ConfigInvalid, match=rf"gateway\.{missing} is missing"):
        TlsFiles.of(settings, on_broken=lambda error: None)


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subject": ((("organizationName", "Park"),), (("commonName", "t07"),))}, "t07"),
        ({"subject": (), "subjectAltName": (("URI", "spiffe://p/t07"), ("DNS", "t07.p"))}, "t07.p"),
        ({"subjectAltName": (("URI", "spiffe://p/t07"),)}, "spiffe://p/t07"),
        ({"subjectAltName": (("IP Address", "10.7.0.1"),)}, None),
        (None, None),
    ],
)
def test_a_certificates_name(certificate: dict[str, Any] | None, name: str | None) -> None:
    assert certificate_name(certificate) == name
