"""The table of rejections: complete, within its bounds, and what clients see of it stays."""

import ast
from http import HTTPStatus
from pathlib import Path
from typing import get_args

import pytest
from windvane import rejections
from windvane.rejections import OTHER_VERSIONS, REJECTIONS, WITHHELD, RejectionCode, share_of

PLATFORM = Path(__file__).resolve().parents[1] / "platform"
HTTP_STATUS = {
    **{"no-policy": 404, "sender-not-allowed": 403, "tag-not-allowed": 403, "bad-tag": 400},
    **{"unsupported-type": 415, "unsupported-compression": 415, "over-rate": 429},
    **dict.fromkeys(
        ("too-large", "too-large-decoded", "too-many-events", "too-many-members", "too-slow"), 413
    ),
    **dict.fromkeys(("not-logs", "not-metrics", "malformed", "bad-time", "invalid-event", "schema"), 422),
    **{"event-too-large": 422},
}


def test_every_code_is_one_row_and_every_row_a_code() -> None:
    assert tuple(REJECTIONS) == get_args(RejectionCode)
    assert all(code == kind.code for code, kind in REJECTIONS.items())


def test_a_code_without_a_row_fails_the_import() -> None:
    *all_but_the_last, last = REJECTIONS.values()
    for rows in (all_but_the_last, [*all_but_the_last, last, last]):
        with pytest.raises(ValueError, match="differ"):
            rejections._table(*rows)


def test_the_guarantees_are_together_no_more_than_the_dead_letters() -> None:
    guaranteed = sum(kind.share.guaranteed for kind in REJECTIONS.values()) + OTHER_VERSIONS.guaranteed
    assert guaranteed <= 1
    assert all(0 < kind.share.guaranteed <= kind.share.at_most <= 1 for kind in REJECTIONS.values())


def test_clients_see_the_same_statuses() -> None:
    answers = {code: kind.http_status for code, kind in REJECTIONS.items() if kind.http_status is not None}
    assert {code: int(status) for code, status in answers.items()} == HTTP_STATUS
    assert all(isinstance(status, HTTPStatus) for status in answers.values())


def test_an_ack_is_withheld_only_if_an_operator_can_let_the_sender_in() -> None:
    assert {"no-policy", "sender-not-allowed"} == WITHHELD


def test_only_letters_whose_chunk_is_stored_or_that_have_no_chunk_can_never_be_replayed() -> None:
    obstacles = {code for code, kind in REJECTIONS.items() if not kind.is_replayable}
    assert obstacles == {"bad-tag", "framing", "not-logs", "not-published", "step-failed", "bad-envelope"}
    assert not any(kind.was_published and not kind.is_replayable for kind in REJECTIONS.values())


def test_a_code_of_another_version_has_a_share_too() -> None:
    assert share_of("of-another-version") is OTHER_VERSIONS


def test_every_code_that_the_sources_write_is_in_the_table() -> None:
    """mypy says it too, but for what it does not see, such as code that `Any` reaches."""
    written = {
        argument.value
        for path in PLATFORM.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and _name_of(call.func) in ("ChunkRefused", "ChunkRejected", "keep")
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        if " " not in argument.value
    }
    assert len(written) > 15
    assert written <= REJECTIONS.keys()


def test_every_row_says_what_happened_and_what_to_do() -> None:
    for kind in REJECTIONS.values():
        assert kind.cause.endswith(".")
        assert kind.remedy.endswith(".")
        assert kind.obstacle is None or not kind.obstacle.endswith(".")


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
