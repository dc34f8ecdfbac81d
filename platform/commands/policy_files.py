"""From a file, a preset and what was given by hand to a checked policy, and from there into the catalog."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from ..config import Settings
from ..errors import DocumentNotFound, PolicyInvalid, RevisionConflict
from ..processors.operations.base.presets import with_preset
from ..processors.operations.base.user_operations import UserOperations
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import (
    Policy,
    mapping_from_toml,
    policy_from_mapping,
    policy_to_mapping,
)
from ..store.catalog.policy_table import PolicyTable
from ..store.catalog.tag_pattern import TagPattern

POLICY = "policy"

Change = Literal["created", "changed", "unchanged"]


def read_policies(file: Path) -> list[dict[str, Any]]:
    """The policies of a file as mappings, not yet checked. Raises `PolicyInvalid`.

    TOML holds [[policy]] tables, or the settings of one policy at its top; JSON (by its suffix) the same. A
    `schema` that is a path, seen from the file, is replaced by the Avro schema in it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{file} is not text in UTF-8: {error}") from None
    content: Any
    if file.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise PolicyInvalid(f"{file} is not valid JSON: {error}") from None
    else:
        content = mapping_from_toml(text, source=str(file))
    if isinstance(content, dict) and "policy" in content:
        surplus = sorted(content.keys() - {"policy"})
        if surplus:
            raise PolicyInvalid(f"{file}: `{surplus[0]}` is outside [[policy]]; move it below one")
        content = content["policy"]
    policies = content if isinstance(content, list) else [content]
    if not any(policies) or not all(isinstance(each, dict) for each in policies):
        raise PolicyInvalid(f'{file}: holds no policy; write [[policy]] and below it `reference = "…"`')
    return [_with_schema(each, file) for each in policies]


def _with_schema(mapping: dict[str, Any], file: Path) -> dict[str, Any]:
    schema = mapping.get("schema")
    if not isinstance(schema, str) or schema.lstrip().startswith("{"):
        return mapping
    path = file.parent / schema
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyInvalid(
            f"{file}: schema: {path} cannot be read: {error.strerror}; name a file with an Avro schema"
        ) from None
    except (ValueError, RecursionError) as error:
        raise PolicyInvalid(f"{file}: schema: {path} is not valid JSON: {error}") from None
    return {**mapping, "schema": read}


def complete_policy(mapping: Mapping[str, Any], operations: UserOperations) -> Policy:
    """A policy from its mapping, in which `preset` may name what lies below it; checked with its pipeline.

    Raises `PolicyInvalid`.
    """
    given = dict(mapping)
    preset = given.pop("preset", None)
    policy = policy_from_mapping(given if preset is None else with_preset(str(preset), given))
    try:
        operations.check_pipeline(policy)
    except PolicyInvalid as error:
        raise PolicyInvalid(f'policy "{policy.reference}": {error}') from error
    return policy


def describe(policy: Policy) -> str:
    """One line about a policy."""
    steps = " → ".join(step.name for step in policy.pipeline)
    tags = ", ".join(policy.tags)
    return f"{policy.reference}: tags {tags}; format {policy.format}; pipeline {steps or '(none)'}"


async def create(catalog: Catalog, policy: Policy) -> None:
    """Put a policy that must be new. Raises `PolicyInvalid`."""
    title, body = _document(policy)
    try:
        await catalog.put(POLICY, policy.reference, title=title, body=body, if_revision=0)
    except RevisionConflict:
        raise PolicyInvalid(
            f"there is a policy {policy.reference!r} already; see it with `windvane policy show "
            f"{policy.reference}`, or give --replace"
        ) from None


async def put(catalog: Catalog, policy: Policy) -> Change:
    """Create or replace; where nothing differs nothing is written."""
    title, body = _document(policy)
    try:
        old = await catalog.get(POLICY, policy.reference)
    except DocumentNotFound:
        await catalog.put(POLICY, policy.reference, title=title, body=body)
        return "created"
    if (old.title, old.body) == (title, body):
        return "unchanged"
    await catalog.put(POLICY, policy.reference, title=title, body=body, state=old.state)
    return "changed"


async def overlaps(catalog: Catalog, made: Iterable[Policy]) -> list[str]:
    """A line for each tag pattern of `made` that another policy also has: which policy gets the tags.

    Covers equal patterns and literal tags; other overlaps are not detected.
    """
    policies: dict[str, Policy] = {}
    after: str | None = None
    while page := await catalog.list(POLICY, after=after):
        for document in page:
            with suppress(PolicyInvalid):  # no gateway takes it either
                each = policy_from_mapping(document.body)
                policies[each.reference] = each
        after = page[-1].reference
    table = PolicyTable(policies.values())
    lines: dict[str, None] = {}
    for own in made:
        for tag in own.tags:
            same = sorted(each.reference for each in policies.values() if tag in each.tags)
            literals = TagPattern(tag).literals
            if literals is None and len(same) > 1:
                others = ", ".join(same[1:])
                lines[f"{tag} goes to {same[0]} first, not to {others}: same pattern, smaller name"] = None
            for literal in literals or ():
                winner = table.match(literal)
                losers = ({*same, own.reference} - {winner.reference}) if winner is not None else set()
                if winner is not None and losers:
                    why = (
                        "same pattern, smaller name" if tag in winner.tags else "its pattern is more specific"
                    )
                    others = ", ".join(sorted(losers))
                    lines[f"{literal} goes to {winner.reference} first, not to {others}: {why}"] = None
    return list(lines)


async def create_demo_policies(settings: Settings) -> list[str]:
    """Create the simulation's policies where they do not exist; gives the references of those."""
    with as_file(files("windvane.simulation") / "policies.toml") as file:
        mappings = read_policies(file)
    created = []
    operations = UserOperations(settings.operations_dir)
    catalog = await Catalog.open(settings.catalog_url)
    try:
        for mapping in mappings:
            try:
                await catalog.get(POLICY, mapping["reference"])
            except DocumentNotFound:
                # Checked only if it is new: the check loads all operations, which takes seconds.
                await create(catalog, complete_policy(mapping, operations))
                created.append(mapping["reference"])
    finally:
        await catalog.close()
    return created


def _document(policy: Policy) -> tuple[str, dict[str, Any]]:
    # Through JSON, as the catalog does it, so that what is read back compares equal.
    return policy.title, json.loads(json.dumps(policy_to_mapping(policy)))
