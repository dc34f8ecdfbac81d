"""The revisions of policies that the history of a stream names, from the catalog."""

import asyncio
from typing import TYPE_CHECKING

from ...config import Settings
from ...errors import CatalogUnavailable, DocumentNotFound, WindvaneError

if TYPE_CHECKING:
    from ...processors.worker.reprocessing.row_replay import KnownPolicies, KnownPolicy
    from ...store.catalog.catalog import Catalog
    from ...store.databases.checkpoint_records import StreamCheckpoint

MAX_REVISIONS = 1000


def known_policies(settings: Settings, committed: "StreamCheckpoint | None") -> "KnownPolicies":
    """The revisions that the catalog keeps of the policies in a stream's history, by digest."""
    from ...processors.worker.pipeline.steps import last_policy

    if committed is None:
        return {}
    references = {change.policy for change in committed.history.pipelines}
    if (last := last_policy(committed.states)) is not None:
        references.add(last.reference)
    return asyncio.run(_read(settings, references))


async def _read(settings: Settings, references: set[str]) -> "KnownPolicies":
    from ...store.catalog.catalog import Catalog

    found: dict[bytes, KnownPolicy] = {}
    try:
        catalog = await Catalog.open(settings.catalog_url, copy=settings.policy_copy_file)
    except CatalogUnavailable:
        return found  # the present policy is in the checkpoint, without its revision
    try:
        for reference in references:
            await _add(catalog, reference, found)
    finally:
        await catalog.close()
    return found


async def _add(catalog: "Catalog", reference: str, found: "dict[bytes, KnownPolicy]") -> None:
    from ...processors.worker.pipeline.pipeline_changes import policy_digest
    from ...processors.worker.reprocessing.row_replay import KnownPolicy
    from ...store.catalog.policy import policy_from_mapping

    try:
        document = await catalog.get("policy", reference)
    except DocumentNotFound:
        return
    for info in await catalog.history.list(document, limit=MAX_REVISIONS):
        try:
            body = (await catalog.history.at(document, info.revision)).body
            policy = policy_from_mapping(body)
        except WindvaneError:  # of another version, or gone meanwhile
            continue
        # The newest first: of equal bodies the oldest revision counts.
        found[policy_digest(policy)] = KnownPolicy(info.revision, policy)
