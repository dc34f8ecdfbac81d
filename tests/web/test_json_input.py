"""Hostile JSON and numbers get a problem as the response at every endpoint, never status 500."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from windvane.web.json_input import MAX_NESTING, NestedTooDeeply, decode_json
from windvane.web.parameters import integer_in

from tests.web.served_home import Client, Home, problem

DEPTHS = [MAX_NESTING + 1, 300, 900, 980, 1000, 1020, 3_000, 100_000]
JSON = {"Content-Type": "application/json"}
FORMS: list[Callable[[int], str]] = [
    lambda depth: "[" * depth + "]" * depth,
    lambda depth: '{"a":' * depth + "1" + "}" * depth,
    lambda depth: '{"reference": "x", "by": "me", "pipeline": ' + "[" * depth + "]" * depth + "}",
    lambda depth: "[" * depth,
]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "policies"), ("PUT", "policies/x"), ("POST", "alarms/x/comment"), ("POST", "alarms/x/shelve")],
)
async def test_json_nested_deeply_is_a_bad_request(
    client: Client, method: str, path: str, form: Callable[[int], str], depth: int
) -> None:
    answer = await client.request(method, f"/api/v1/{path}", data=form(depth), headers=JSON)
    # If the schema is known, its first error may be reported before the depth.
    assert answer.status in ((400,) if path.startswith("policies") else (400, 422))
    await problem(answer, answer.status)


def test_the_bound_is_on_nesting_alone() -> None:
    deepest = "[" * MAX_NESTING + "]" * MAX_NESTING
    wide = "[" + ",".join(["[[]]"] * 10_000) + "]"
    for text in (deepest, wide):
        assert decode_json(text, msgspec.json.decode) == msgspec.json.decode(text)
    with pytest.raises(NestedTooDeeply):
        decode_json(f"[{deepest}]", msgspec.json.decode)


NUMBERS = ["0" * 5_000 + "999", "9" * 20, "9" * 21, "9" * 5_000, "-" + "9" * 5_000, "1" + "0" * 4_999]


@pytest.mark.parametrize("number", NUMBERS)
async def test_no_number_is_too_large_for_an_answer(client: Client, home: Home, number: str) -> None:
    for path in ("dead-letters/{}", "dead-letters/{}/payload"):
        await problem(await client.get("/api/v1/" + path.format(number)), 404)
    await problem(await client.delete(f"/api/v1/dead-letters/{number}"), 404)
    replayed = await client.post(f"/api/v1/dead-letters/{number}/replay")  # there is no gateway
    await problem(replayed, 503 if number.endswith("0999") else 404)
    for query in ("dead-letters?before={}", "dead-letters?limit={}", "alarms?before={}", "alarms?limit={}"):
        answer = await client.get("/api/v1/" + query.format(number))
        assert answer.status == (200 if len(number.lstrip("0")) <= 20 else 400)
    home.array("voice:rows", np.arange(3.0))
    for query in ("start", "stop", "step"):
        answer = await client.get(f"/api/v1/arrays/voice:rows/data?{query}={number}")
        assert answer.status == (200 if len(number.lstrip("0")) <= 20 else 400)


def test_integers_have_any_number_of_zeros_and_no_other_form() -> None:
    assert integer_in("0" * 10_000) == 0
    assert integer_in("-" + "0" * 10_000 + "7") == -7
    assert [integer_in(text) for text in ("", "-", "1_0", " 1", "²", "１", "1.0", "0x1")] == [None] * 8
