import base64

import pytest
from aiohttp import WSServerHandshakeError
from multidict import CIMultiDict
from windvane.web.auth import AccessRule, Verdict, judge

from tests.web.served_home import TOKEN, Client, Home, StartClient, build_interface, problem

OPEN = AccessRule(token=TOKEN, open_on_loopback=True)
CLOSED = AccessRule(token=TOKEN, open_on_loopback=False)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def verdict(rule: AccessRule, method: str = "GET", /, *, token: str | None = None, **headers: str) -> Verdict:
    given = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return judge(rule, method=method, headers=given, query_token=token)


@pytest.mark.parametrize("rule", [OPEN, CLOSED])
@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic("anybody", TOKEN), basic("", TOKEN)]
)
def test_the_token_opens_every_route(rule: AccessRule, authorization: str) -> None:
    assert verdict(rule, Host="wind.example", Authorization=authorization) is Verdict.ALLOWED


def test_the_token_in_the_address_opens_too() -> None:
    assert verdict(CLOSED, Host="wind.example", token=TOKEN) is Verdict.ALLOWED


@pytest.mark.parametrize("rule", [OPEN, CLOSED, AccessRule(token=None, open_on_loopback=True)])
@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        basic("anybody", "wrong"),
        basic(TOKEN, ""),
        "Basic %%%",
        "Digest x",
        "",
    ],
)
def test_wrong_credentials_are_never_accepted_even_if_none_are_required(
    rule: AccessRule, authorization: str
) -> None:
    assert verdict(rule, Host="localhost:8080", Authorization=authorization) is Verdict.CREDENTIALS_WRONG


def test_right_credentials_do_not_excuse_wrong_ones() -> None:
    found = verdict(OPEN, Host="localhost", Authorization=f"Bearer {TOKEN}", token="wrong")
    assert found is Verdict.CREDENTIALS_WRONG


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST:80"])
def test_by_a_loopback_name_no_credentials_are_needed_where_the_server_is_bound_to_loopback(
    host: str,
) -> None:
    assert verdict(OPEN, Host=host) is Verdict.ALLOWED
    assert verdict(CLOSED, Host=host) is Verdict.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1:8080@x",
        "",
    ],
)
def test_by_another_name_credentials_are_needed_since_a_name_can_be_bound_to_loopback(host: str) -> None:
    assert verdict(OPEN, Host=host) is Verdict.CREDENTIALS_MISSING


def test_what_a_proxy_passed_on_does_not_come_from_this_machine() -> None:
    found = verdict(OPEN, Host="127.0.0.1:8080", X_Forwarded_For="203.0.113.7")
    assert found is Verdict.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:9999", "https://localhost:8080.x"]
)
def test_pages_of_other_origins_may_not_change_anything_nor_open_a_websocket(origin: str) -> None:
    host = "localhost:8080"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert verdict(OPEN, method, Host=host, Origin=origin) is Verdict.FOREIGN_ORIGIN
    assert verdict(OPEN, Host=host, Origin=origin, Upgrade="WebSocket") is Verdict.FOREIGN_ORIGIN
    with_token = {"Authorization": f"Bearer {TOKEN}"}
    assert verdict(CLOSED, "POST", Host=host, Origin=origin, **with_token) is Verdict.FOREIGN_ORIGIN


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("localhost", "http://localhost:80"),
        ("[::1]:1", "http://[::1]:1"),
    ],
)
def test_our_own_pages_may(host: str, origin: str) -> None:
    assert verdict(OPEN, "POST", Host=host, Origin=origin) is Verdict.ALLOWED
    assert verdict(OPEN, Host=host, Origin=origin, Upgrade="websocket") is Verdict.ALLOWED


def test_without_a_token_only_loopback_is_accepted() -> None:
    nobody = AccessRule(token=None, open_on_loopback=True)
    assert verdict(nobody, Host="localhost") is Verdict.ALLOWED
    assert verdict(nobody, Host="wind.example") is Verdict.CREDENTIALS_MISSING
    assert verdict(nobody, Host="wind.example", Authorization="Bearer ") is Verdict.CREDENTIALS_WRONG


async def test_wrong_credentials_are_401_on_every_route(client: Client) -> None:
    for path in ("/api/v1/health", "/metrics", "/", "/openapi.json", "/api/v1/streams/x", "/nothing"):
        answer = await client.get(path, headers={"Authorization": "Bearer wrong"})
        await problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_foreign_host_is_rejected_with_what_to_do(client: Client) -> None:
    members = await problem(await client.get("/api/v1/health", headers={"Host": "evil.example"}), 401)
    assert "token" in members["detail"]


async def test_a_foreign_page_cannot_post_a_policy(client: Client, home: Home) -> None:
    answer = await client.post(
        "/api/v1/policies", json={"reference": "theirs"}, headers={"Origin": "http://evil.example"}
    )
    await problem(answer, 403)
    assert await home.catalog.list("policy") == []


async def test_a_foreign_page_cannot_open_the_live_feed(client: Client) -> None:
    with pytest.raises(WSServerHandshakeError, match="403"):
        await client.ws_connect("/api/v1/live", headers={"Origin": "http://evil.example"})


async def test_bound_to_the_open_every_request_needs_the_token(start: StartClient) -> None:
    client = await start(open_on_loopback=False)
    await problem(await client.get("/api/v1/health"), 401)
    with pytest.raises(WSServerHandshakeError, match="401"):
        await client.ws_connect("/api/v1/live")
    answer = await client.get("/api/v1/health", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200


async def test_the_token_in_the_address_becomes_a_cookie_that_opens_from_then_on(start: StartClient) -> None:
    client = await start(open_on_loopback=False)
    first = await client.get(
        f"/?token={TOKEN}&view=7", headers={"Accept": "text/html"}, allow_redirects=False
    )
    assert (first.status, first.headers["Location"]) == (303, "/?view=7")
    [cookie] = first.cookies.values()
    assert TOKEN not in cookie.value
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
    assert (await client.get("/api/v1/health")).status == 200
    async with client.ws_connect("/api/v1/live"):
        pass


async def test_a_cookie_that_is_not_ours_counts_as_none(start: StartClient) -> None:
    cookie = {f"windvane-{(closed := await start(open_on_loopback=False)).port}": "0" * 64}
    await problem(await closed.get("/api/v1/health", cookies=cookie), 401)
    opened = await start()
    answer = await opened.get("/api/v1/health", cookies={f"windvane-{opened.port}": "0" * 64})
    assert answer.status == 200


async def test_an_unauthenticated_client_gets_the_sign_in_page_but_nothing_of_the_home(
    start: StartClient, home: Home
) -> None:
    build_interface(home)
    home.stream("voice", b"abc")
    client = await start(open_on_loopback=False)
    browser = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate"}
    for path in ("/", "/?token=wrong"):
        page = await client.get(path, headers=browser)
        assert (page.status, page.content_type) == (401, "text/html")
        assert page.cookies == {}
    assert (await client.get("/assets/main-abc123.js")).status == 200
    for path in ("/api/v1/streams", "/metrics", "/openapi.json", "/api/v1/streams/voice/data"):
        await problem(await client.get(path, headers=browser), 401)


async def test_a_browser_is_not_made_to_ask_with_a_window_of_its_own(start: StartClient) -> None:
    client = await start(open_on_loopback=False)
    script = await client.get("/api/v1/health", headers={"Sec-Fetch-Mode": "cors"})
    program = await client.get("/api/v1/health")
    assert script.headers["WWW-Authenticate"].startswith("Bearer")
    assert program.headers["WWW-Authenticate"].startswith("Basic")
