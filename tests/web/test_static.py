import pytest

from tests.web.served_home import Client, Home, build_interface, problem


@pytest.fixture
def built(home: Home) -> None:
    build_interface(home)
    (home.path / "secret.txt").write_text("swordfish")


async def test_without_a_build_the_page_says_how_to_make_one(client: Client) -> None:
    answer = await client.get("/")
    assert (answer.status, answer.content_type) == (503, "text/html")
    assert "make ui" in await answer.text()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("path", ["/", "/index.html"])
async def test_an_address_of_the_interface_is_its_one_page(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert "Windvane" in await answer.text()
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("path", "root"),
    [("/nowhere", "./"), ("/streams/voice", "../"), ("/a/b/<c>", "../../"), ("/a.js", "./")],
)
async def test_an_address_without_a_page_says_so_and_leads_back(client: Client, path: str, root: str) -> None:
    answer = await client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    text = await answer.text()
    assert (answer.status, answer.content_type) == (404, "text/html")
    assert "Page not found" in text
    assert f'href="{root}"' in text
    assert "<c>" not in text
    await problem(await client.get(path, headers={"Accept": "application/json"}), 404)


@pytest.mark.usefixtures("built")
async def test_a_file_with_a_hash_in_its_name_may_be_kept_for_ever(client: Client) -> None:
    answer = await client.get("/assets/main-abc123.js")
    assert (answer.status, await answer.text()) == (200, "export {}")
    assert answer.content_type.endswith("/javascript")
    assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone.js",
        "/..%2fsecret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/%2fetc%2fhosts.conf",
        "/a%00.js",
    ],
)
async def test_what_is_not_in_the_build_is_not_served(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status == 404
    assert "swordfish" not in await answer.text()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api", "/ingest/voice", "/erp5/x"])
async def test_below_the_api_there_are_problems_not_pages(client: Client, path: str) -> None:
    answer = await client.get(path)
    await problem(answer, 405 if path == "/ingest/voice" else 404)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    "path", ["/", "/assets/main-abc123.js", "/api/v1/health", "/api/v1/nothing", "/metrics"]
)
async def test_every_answer_tells_browsers_to_be_careful(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
