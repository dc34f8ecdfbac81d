"""Authentication of senders over HTTP: users and tokens of forward-security.toml, on the real ports."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from multidict import CIMultiDict
from windvane.config import Settings
from windvane.errors import ConfigInvalid
from windvane.ingest.security.http_credentials import ACCESS_HEADER, CredentialsWrong, identity_of
from windvane.ingest.security.settings import parse_security
from windvane.web import tier_client as tiers

from tests.ingest.forward.forward_site import write_security
from tests.ingest.test_gateway import EVENT, Site, running

TOKEN = "a long and random token"
SECURITY = f"""
shared_key = "key"
[[user]]
name = "north"
password = "pässword:with a colon"
[[user]]
name = "south"
password = "other"
[[token]]
name = "sensor"
token = "{TOKEN}"
"""
FROM_THE_WEB = {"X-Forwarded-For": "10.7.0.3"}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def who(authorization: str | None, security: str | None = SECURITY, **more: str) -> str | None:
    headers = CIMultiDict({**FROM_THE_WEB, **{name.replace("_", "-"): value for name, value in more.items()}})
    if authorization is not None:
        headers["authorization"] = authorization
    parsed = None if security is None else parse_security(security)
    return identity_of(headers, parsed, sender=headers["X-Forwarded-For"])


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (basic("north", "pässword:with a colon"), "north"),
        (basic("south", "other").replace("Basic", "bASIC "), "south"),
        (f"Bearer {TOKEN}", "sensor"),
        (f"bearer   {TOKEN} ", "sensor"),
    ],
)
def test_right_credentials_are_an_identity(authorization: str, name: str) -> None:
    assert who(authorization) == name


@pytest.mark.parametrize(
    "authorization",
    [
        basic("north", "other"),
        basic("north", ""),
        basic("nobody", "other"),
        basic("", ""),
        basic("sensor", TOKEN),
        "Basic " + base64.b64encode(b"north").decode(),
        "Basic " + base64.b64encode(b"\xff:other").decode(),
        "Basic %%%",
        "Basic",
        "Bearer other",
        "Bearer key",
        "Bearer ",
        "Bearer \udcff",
        f"Digest {TOKEN}",
        "",
    ],
)
@pytest.mark.parametrize("security", [SECURITY, 'shared_key = "key"', None])
def test_wrong_credentials_are_never_accepted(authorization: str, security: str | None) -> None:
    with pytest.raises(CredentialsWrong) as caught:
        who(authorization, security)
    for secret in ("other", TOKEN, "pässword"):
        assert secret not in str(caught.value) + caught.value.detail


def test_credentials_are_required_if_any_are_configured() -> None:
    with pytest.raises(CredentialsWrong):
        who(None)
    assert who(None, 'shared_key = "key"') is None
    assert who(None, None) is None


def test_a_client_with_the_access_token_is_admitted_without_a_name() -> None:
    assert ACCESS_HEADER == tiers.ACCESS_HEADER
    assert who(None, X_Windvane_Access="token") is None


def test_networks_hold_over_http_too() -> None:
    more = '[[client]]\nnetworks = ["10.7.0.0/16"]\nusers = ["north", "sensor"]\n'
    assert who(f"Bearer {TOKEN}", SECURITY + more) == "sensor"
    with pytest.raises(CredentialsWrong, match="for this address"):
        who(basic("south", "other"), SECURITY + more)
    away = {"X_Forwarded_For": "10.8.0.1"}
    assert who(basic("south", "other"), SECURITY + more, **away) == "south"
    with pytest.raises(CredentialsWrong, match="for this address"):
        who(f"Bearer {TOKEN}", SECURITY.replace("[[user]]", "others = false\n[[user]]", 1) + more, **away)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[token]]\nname = "a"\ntoken = "short"', "token"),
        (SECURITY + f'[[token]]\nname = "north"\ntoken = "{TOKEN}2"', "is there twice"),
        (SECURITY + f'[[token]]\nname = "other"\ntoken = "{TOKEN}"', "equal"),
        ('shared_key = "k"\n[[user]]\nname = "unix:root"\npassword = "p"', "user of this machine"),
    ],
)
def test_a_file_with_invalid_tokens_is_rejected(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_security(text)
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_tokens_alone_are_enough_of_a_file() -> None:
    assert who(f"Bearer {TOKEN}", f'[[token]]\nname = "sensor"\ntoken = "{TOKEN}"') == "sensor"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    write_security(tmp_path, SECURITY)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        yield site


async def test_the_identity_is_what_allow_asks_for(site: Site) -> None:
    await site.policy("t", allow=[{"identities": ["north", "sens*"]}])
    for authorization, status in (
        (basic("north", "pässword:with a colon"), 204),
        (f"Bearer {TOKEN}", 204),
        (basic("south", "other"), 403),
        (basic("south", "wrong"), 401),
        (None, 401),
    ):
        headers = dict(FROM_THE_WEB) if authorization is None else {"Authorization": authorization}
        async with (
            site.http() as http,
            http.post("/ingest/t?reference=t", data=EVENT, headers=headers) as answer,
        ):
            assert answer.status == status
            challenge = answer.headers.get("WWW-Authenticate", "")
            assert challenge.startswith("Basic ") == (status == 401)
    assert len(await site.chunks("t")) == 2
    assert [(letter.code, letter.times) for letter in site.letters().list()] == [("sender-not-allowed", 1)]


async def test_the_body_of_a_sender_that_is_not_allowed_is_not_unpacked(site: Site) -> None:
    await site.policy("t", allow=[{"identities": ["north"]}])
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "gzip"}
    async with (
        site.http() as http,
        http.post("/ingest/t?reference=t", data=b"no gzip", headers=headers) as answer,
    ):
        assert answer.status == 403
