"""`windvane ls --usage`: the bytes of policies, streams and arrays, and what retention drops next."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..config import Settings
from ..errors import WindvaneError
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import policy_from_mapping
from ..store.catalog.policy_follower import IN_FORCE, POLICY
from ..store.catalog.retention_rules import Retention
from ..store.interface import StoreEngine, StreamReader
from ..store.oldest_segment import OldestSegment, Output, oldest_segment
from .data import format_time, print_table

NS_PER_HOUR = 3_600_000_000_000


class OutputUsage(NamedTuple):
    """What a stream or an array takes. `oldest` is dropped next, at `expires_ns` if that is known."""

    policy: str
    reference: str
    is_stream: bool
    size_bytes: int
    first_ns: int | None
    oldest: OldestSegment | None
    expires_ns: int | None


class PolicyUsage(NamedTuple):
    """What the outputs of a policy take together; retention drops from `following` next."""

    streams: int = 0
    arrays: int = 0
    size_bytes: int = 0
    following: OutputUsage | None = None

    def with_output(self, usage: OutputUsage) -> "PolicyUsage":
        """The same with one more output."""
        following = self.following
        if usage.oldest is not None and (following is None or _order(usage) < _order(following)):
            following = usage
        return PolicyUsage(
            self.streams + usage.is_stream,
            self.arrays + (not usage.is_stream),
            self.size_bytes + usage.size_bytes,
            following,
        )


def _order(usage: OutputUsage) -> tuple[bool, int]:
    assert usage.oldest is not None
    return usage.expires_ns is None, usage.expires_ns or usage.oldest.last_ns


def usages(
    store: StoreEngine, retentions: Mapping[str, Retention], *, with_first: bool = True
) -> Iterator[OutputUsage]:
    """Yields each stream, followed by its arrays. Memory: that of one stream; damaged ones are left out.

    `with_first`: with the first time that is kept, which is a read of each output's files more.
    """
    for reference in store.streams():
        try:
            with store.stream(reference) as stream:
                policy = str(stream.attrs.get("policy") or "")
                retention = retentions.get(policy, Retention())
                first_ns = stream.first_arrival_ns if with_first else None
                yield _usage(policy, stream, first_ns, retention.stream_hours)
        except (WindvaneError, OSError):
            policy, retention = "", Retention()
        for name in store.arrays(reference):
            try:
                with store.array(name) as array:
                    has_first = with_first and len(array) > array.start
                    first_ns = int(array.times_ns[array.start]) if has_first else None
                    is_current = "~" not in name.partition(":")[2]
                    yield _usage(policy, array, first_ns, retention.array_hours if is_current else None)
            except (WindvaneError, OSError, IndexError):
                continue


def _usage(policy: str, output: Output, first_ns: int | None, hours: float | None) -> OutputUsage:
    oldest = oldest_segment(output)
    expires_ns = None
    if oldest is not None and hours is not None:
        expires_ns = oldest.last_ns + int(hours * NS_PER_HOUR)
    is_stream = isinstance(output, StreamReader)
    return OutputUsage(policy, output.reference, is_stream, output.kept_bytes, first_ns, oldest, expires_ns)


def print_usage(settings: Settings, store: StoreEngine, what: str | None) -> None:
    """What `ls --usage` prints: of policies, or of each stream or array."""
    retentions = asyncio.run(_retentions(settings))
    of_each = what in ("streams", "arrays")
    found = usages(store, retentions, with_first=of_each)
    empty = f"no data streams in {settings.home}"
    if what is not None and of_each:
        headings = (what[:-1], "policy", "bytes", "kept from", "dropped next", "bytes then")
        rows = [_output_row(each) for each in found if each.is_stream == (what == "streams")]
        print_table(headings, rows, empty=empty)
        return
    policies: dict[str, PolicyUsage] = {}
    for each in found:
        policies[each.policy] = policies.get(each.policy, PolicyUsage()).with_output(each)
    print_table(
        ("policy", "streams", "arrays", "bytes", "bound", "dropped next", "of", "bytes then"),
        [_policy_row(name, policies[name], retentions.get(name, Retention())) for name in sorted(policies)],
        empty=empty,
    )


async def _retentions(settings: Settings) -> dict[str, Retention]:
    if not settings.has_catalog_elsewhere and not (settings.home / "catalog.sqlite").exists():
        return {}
    catalog = await Catalog.open(settings.catalog_url)
    try:
        found: dict[str, Retention] = {}
        after: str | None = None
        while page := await catalog.list(POLICY, after=after):
            for document in page:
                if document.state == IN_FORCE:
                    found[document.reference] = policy_from_mapping(document.body).retention
            after = page[-1].reference
        return found
    finally:
        await catalog.close()


def _output_row(usage: OutputUsage) -> tuple[str | int, ...]:
    is_known = usage.oldest is not None and usage.expires_ns is not None
    return (
        usage.reference,
        usage.policy,
        usage.size_bytes,
        "" if usage.first_ns is None else format_time(usage.first_ns),
        _time_or_now(usage.expires_ns),
        usage.oldest.size_bytes if usage.oldest is not None and is_known else "",
    )


def _policy_row(name: str, usage: PolicyUsage, retention: Retention) -> tuple[str | int, ...]:
    following, bound = usage.following, retention.bytes
    time_text, reference, size = "", "", ""
    if following is not None and following.oldest is not None:
        if bound is not None and usage.size_bytes > bound:
            time_text = "now"
        elif following.expires_ns is not None:
            time_text = _time_or_now(following.expires_ns)
        elif bound is not None:
            time_text = "at the bound"
        if time_text:
            reference, size = following.reference, str(following.oldest.size_bytes)
    bound_text = "" if bound is None else str(bound)
    return name, usage.streams, usage.arrays, usage.size_bytes, bound_text, time_text, reference, size


def _time_or_now(expires_ns: int | None) -> str:
    if expires_ns is None:
        return ""
    return "now" if expires_ns <= time.time_ns() else format_time(expires_ns)
