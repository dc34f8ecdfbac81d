"""Ingestion policies as documents. A policy is in force while it is published."""

from collections.abc import Mapping
from typing import Any

from ....errors import PolicyInvalid
from ..document_type import DocumentType, Transition
from ..policy import Policy, policy_from_mapping, policy_to_mapping


def _normalize(reference: str, title: str, body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    # The body of a policy contains its reference and title, so that it can be stored in a file.
    if body.get("reference", reference) != reference:
        raise PolicyInvalid(
            f"reference: the body says {body['reference']!r} and the address {reference!r}; "
            "leave it out of the body, or make them equal"
        )
    titled = {**body, "title": title} if title else body
    policy = policy_from_mapping({**titled, "reference": reference})
    return policy.title, policy_to_mapping(policy)


TYPE = DocumentType(
    name="policy",
    body=Policy,
    states=("draft", "published"),
    initial_state="published",
    transitions=(
        Transition(
            "publish",
            sources=("draft",),
            target="published",
            roles=("admin",),
            summary="Put the policy into force.",
        ),
        Transition(
            "withdraw",
            sources=("published",),
            target="draft",
            roles=("admin",),
            summary="Take the policy out of force: its tags may no longer enter. What was recorded stays.",
        ),
    ),
    edit_roles=("admin",),
    normalize=_normalize,
    own_references=True,
    plural="policies",
    list_command="windvane policy list",
)
