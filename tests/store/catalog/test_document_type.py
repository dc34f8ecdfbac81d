"""Types of documents: contradictory types are rejected, and the rules of a type are enforced."""

from typing import Any

import msgspec
import pytest
from windvane.errors import (
    ConfigInvalid,
    DocumentInvalid,
    PolicyInvalid,
    TransitionNotFound,
    TransitionRejected,
)
from windvane.store.catalog.document_type import (
    Content,
    DocumentType,
    NoArguments,
    Transition,
    document_type,
    document_types,
    register,
    unregister,
)


class Machine(msgspec.Struct, forbid_unknown_fields=True):
    maker: str
    rated_kw: float = 0.0


PUBLISH = Transition("publish", sources=("draft",), target="published", roles=("author",))
MACHINE = DocumentType(name="machine", body=Machine, states=("draft", "published"), transitions=(PUBLISH,))


def test_the_built_in_types_are_there() -> None:
    assert set(document_types()) >= {"alarm", "array", "policy", "stream"}
    assert document_type("policy").initial_state == "published"
    with pytest.raises(DocumentInvalid, match=r"there are alarm, array, .*stream"):
        document_type("polcy")


def test_a_type_that_was_registered_is_there_and_its_name_is_taken() -> None:
    register(MACHINE)
    try:
        assert document_type("machine") is register(MACHINE) is MACHINE
        other = DocumentType(name="machine", body=dict[str, Any], states=("draft",))
        with pytest.raises(ConfigInvalid, match="two document types"):
            register(other)
    finally:
        unregister("machine")
    assert "machine" not in document_types()


def test_a_body_is_stored_with_its_defaults_spelled_out() -> None:
    assert MACHINE.checked("m", "Machine", {"maker": "x"}) == ("Machine", {"maker": "x", "rated_kw": 0.0})
    for body, message in (
        ({}, "missing required field `maker`"),
        ({"maker": "x", "colour": "red"}, "unknown field `colour`"),
        ([], "must be an object"),
    ):
        with pytest.raises(DocumentInvalid, match=message):
            MACHINE.checked("m", "", body)


def test_a_policy_is_checked_by_its_own_rules() -> None:
    title, body = document_type("policy").checked("voice", "", {"title": "Voices"})
    assert (title, body["reference"], body["tags"]) == ("Voices", "voice", ["voice"])
    with pytest.raises(PolicyInvalid, match="the body says 'other'"):
        document_type("policy").checked("voice", "", {"reference": "other"})


def test_a_transition_starts_from_its_sources_only() -> None:
    draft = Content("draft", "t", {"a": 1})
    published = MACHINE.transition("publish").result("m", draft, NoArguments(), 0)
    assert published == Content("published", "t", {"a": 1})
    with pytest.raises(TransitionRejected, match='"publish" is possible when it is draft'):
        MACHINE.transition("publish").result("m", published, NoArguments(), 0)
    with pytest.raises(TransitionNotFound, match="there are: publish"):
        MACHINE.transition("archive")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Machine"}, "lower-case"),
        ({"states": ()}, "at least one is required"),
        ({"initial_state": "alive"}, "not a state"),
        ({"transitions": (PUBLISH, PUBLISH)}, "same name"),
        ({"states": ("draft",)}, r"\['published'\] are not states"),
        ({"revisions_kept": -1}, "negative"),
        (
            {"transitions": (Transition("x", sources=("draft",), target=None, roles=()),)},
            "either a target or a function",
        ),
    ],
)
def test_a_type_that_contradicts_itself_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigInvalid, match=message):
        msgspec.structs.replace(MACHINE, **changes)
