"""Whether a sender may send a tag: before anything of the payload is looked at."""

from ..errors import ChunkRejected
from ..store.databases.dead_letters import MAX_PAYLOAD_BYTES
from .chunk import IncomingChunk
from .policy_book import InForce, PolicyBook


def find_rules(policies: PolicyBook, chunk: IncomingChunk) -> InForce | None:
    """The policy of a chunk, with what was made of it: the policy that it names, else that of its tag."""
    return policies.match(chunk.tag) if chunk.policy is None else policies.get(chunk.policy)


def no_policy(chunk: IncomingChunk) -> ChunkRejected:
    """The rejection of a chunk for which `find_rules` finds nothing."""
    if chunk.policy is not None:
        return ChunkRejected("no-policy", f"there is no policy {chunk.policy!r}; see `windvane policy list`")
    return ChunkRejected(
        "no-policy",
        f"no policy takes the tag {chunk.tag!r}; make one with `windvane policy create`{_who_keeps(chunk)}",
    )


def admit(chunk: IncomingChunk, rules: InForce) -> None:
    """Raises ChunkRejected if the sender must not send this tag to the policy."""
    policy = rules.policy
    if not rules.admission.allows(chunk.sender, chunk.identity):
        who = "the anonymous sender" if chunk.identity is None else repr(chunk.identity)
        raise ChunkRejected(
            "sender-not-allowed",
            f"policy {policy.reference!r} does not allow {who} at {chunk.sender} to send {chunk.tag!r}; "
            f"add the identity or the network to a rule of `allow`{_who_keeps(chunk)}",
        )
    if chunk.policy is not None and rules.own_tags.match(chunk.tag) is None:
        raise ChunkRejected(
            "tag-not-allowed",
            f"policy {policy.reference!r} does not take the tag {chunk.tag!r}; "
            f"its tags: {', '.join(policy.tags)}",
        )


def _who_keeps(chunk: IncomingChunk) -> str:
    """Who has a chunk that came over the forward protocol and is not acked; to be put behind what to do."""
    if chunk.is_replay or chunk.policy is not None:
        return ""
    if chunk.chunk_id is None and chunk.signal:
        return (
            ". Its sender asked for no ack and does not keep it, and of metrics and traces that are not "
            "taken a sample alone is kept here: set require_ack_response in the sender"
        )
    if chunk.chunk_id is None and len(chunk.payload) > MAX_PAYLOAD_BYTES:
        return (
            ". Its sender asked for no ack and does not keep it, and here its beginning alone is kept: set "
            "require_ack_response in the sender, and let it send smaller chunks"
        )
    if chunk.chunk_id is None:
        return (
            ". Its sender asked for no ack and does not keep it: replay the dead letter then, and set "
            "require_ack_response in the sender"
        )
    return (
        ". It is not acked and its connection is closed, so that the sender keeps it and retries, within its "
        "own retry limit"
    )
