"""Which policy a tag belongs to."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from ...errors import PolicyInvalid
from .policy import Policy
from .tag_pattern import MAX_TAG_BYTES, TagPattern

MATCH_CACHE_TAGS = 32_768
"""How many tags a PolicyTable caches the policy of: about 20 MB at most."""


class PolicyTable:
    """Which policy a tag belongs to: of all that match, the one with the most specific pattern.

    No wildcard precedes `*`, `*` precedes `**`; then the longer text outside of wildcards, then the smaller
    reference. Immutable and thread-safe: a change of policies makes a new table. The policy of a tag is
    cached for the last MATCH_CACHE_TAGS tags, so that a tag is matched once.
    """

    def __init__(self, policies: Iterable[Policy], *, former: "PolicyTable | None" = None) -> None:
        """Raises PolicyInvalid for a pattern that is not valid, and for two policies of one reference.

        Patterns that `former` contains are not recompiled.
        """
        compiled = {} if former is None else former._patterns
        self.policies: Mapping[str, Policy]
        by_reference: dict[str, Policy] = {}
        entries: list[tuple[TagPattern, Policy]] = []
        for policy in policies:
            if by_reference.setdefault(policy.reference, policy) is not policy:
                raise PolicyInvalid(f'there are two policies "{policy.reference}"; rename one of them')
            entries.extend((compiled.get(tag) or TagPattern(tag), policy) for tag in policy.tags)
        entries.sort(key=lambda entry: (entry[0].specificity, entry[1].reference))
        self.policies = MappingProxyType(by_reference)
        self._patterns: dict[str, TagPattern] = {pattern.text: pattern for pattern, _ in entries}
        # Literal tags always precede the others, and need no search.
        self._spelt_out: dict[str, Policy] = {}
        self._wild: list[tuple[TagPattern, Policy]] = []
        for pattern, policy in entries:
            if pattern.literals is None:
                self._wild.append((pattern, policy))
            for literal in pattern.literals or ():
                self._spelt_out.setdefault(literal, policy)
        self._find_once = lru_cache(maxsize=MATCH_CACHE_TAGS)(self._find)

    def match(self, tag: str) -> Policy | None:
        """The policy of a tag; None if there is none, or the tag is longer than MAX_TAG_BYTES."""
        # A character takes at least a byte; the exact length is computed once.
        return self._find_once(tag) if len(tag) <= MAX_TAG_BYTES else None

    def _find(self, tag: str) -> Policy | None:
        if not tag or len(tag.encode("utf-8", "surrogatepass")) > MAX_TAG_BYTES:
            return None
        spelt_out = self._spelt_out.get(tag)
        if spelt_out is not None:
            return spelt_out
        return next((policy for pattern, policy in self._wild if pattern.matches(tag)), None)
