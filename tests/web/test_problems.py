import logging

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from windvane import errors
from windvane.web.problems import mark_answering, problem_middleware

from tests.web.served_home import Client, problem


async def ask(handler: object) -> Client:
    """A client of an application whose one route is `handler`."""
    app = web.Application(middlewares=[problem_middleware])
    app.on_response_prepare.append(mark_answering)
    app.router.add_get("/", handler)  # type: ignore[arg-type]
    client: Client = TestClient(TestServer(app))
    await client.start_server()
    return client


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.StreamNotFound, 404),
        (errors.DeadLetterNotFound, 404),
        (errors.RangeGone, 410),
        (errors.RevisionConflict, 409),
        (errors.PolicyInvalid, 422),
        (errors.DocumentInvalid, 422),
        (errors.CatalogUnavailable, 503),
        (errors.BusUnavailable, 503),
        (errors.StoreLocked, 503),
        (errors.StoreFailed, 500),
        (errors.WindvaneError, 500),
    ],
)
async def test_an_error_of_the_tree_has_its_status_and_keeps_its_words(
    kind: type[errors.WindvaneError], status: int
) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise kind("the thing, the cause, the next step")

    async with await ask(fail) as client:
        answer = await client.get("/")
        members = await problem(answer, status)
    assert members["detail"] == "the thing, the cause, the next step"
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_an_unexpected_error_is_a_500_with_details_only_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise RuntimeError("the password is swordfish")

    async with await ask(fail) as client:
        answer = await client.get("/")
        await problem(answer, 500)
        assert "swordfish" not in await answer.text()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "swordfish" in str(record.exc_info[1])


async def test_an_answer_that_fails_after_it_began_is_seen_to_be_incomplete() -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"the beginning")
        raise errors.RangeGone("dropped meanwhile")

    async with await ask(fail) as client:
        answer = await client.get("/")
        with pytest.raises(ClientPayloadError):
            await answer.read()


async def test_an_address_that_is_not_there_and_a_method_that_is_not_taken_are_problems(
    client: Client,
) -> None:
    assert "/api/v1/nothing" in (await problem(await client.get("/api/v1/nothing"), 404))["detail"]
    answer = await client.delete("/api/v1/streams")
    await problem(answer, 405)
    assert answer.headers["Allow"] == "GET,HEAD"
