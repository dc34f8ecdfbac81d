"""Who may send: the `allow` rules of a policy, and their evaluation."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct

from ...errors import PolicyInvalid

MAX_RULES = 1000
MAX_RULE_ENTRIES = 10_000
LOCAL = "local"
"""The sender, and in a rule the network, of clients that connect through a Unix socket."""
_REMEMBERED_SENDERS = 4096

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Allow(Struct, frozen=True):
    """One rule: who is one of `identities` and connects from one of `networks` may send.

    A list that is left out asks for nothing, so a rule has at least one of them. Identities are user names
    and names in client certificates, `*` in one stands for any characters; networks are addresses with a
    prefix (CIDR), single addresses, or "local" for the Unix socket.
    """

    identities: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


def check_rules(rules: Sequence[Allow]) -> None:
    """Raises PolicyInvalid for invalid rules; names the path."""
    if len(rules) > MAX_RULES:
        raise PolicyInvalid(f"allow: has {len(rules)} rules, at most {MAX_RULES} are allowed")
    for i, rule in enumerate(rules):
        if not rule.identities and not rule.networks:
            raise PolicyInvalid(
                f"allow[{i}]: allows no client; give it `identities` or `networks`, or leave all rules out "
                "to accept any client that may connect"
            )
        for name, entries in (("identities", rule.identities), ("networks", rule.networks)):
            if len(entries) > MAX_RULE_ENTRIES:
                raise PolicyInvalid(
                    f"allow[{i}].{name}: has {len(entries)} entries, at most {MAX_RULE_ENTRIES} are allowed"
                )
        for j, identity in enumerate(rule.identities):
            if not 1 <= len(identity) <= 500:
                raise PolicyInvalid(f"allow[{i}].identities[{j}]: must have 1 to 500 characters")
        for j, network in enumerate(rule.networks):
            try:
                _network(network)
            except ValueError as error:
                raise PolicyInvalid(
                    f"allow[{i}].networks[{j}]: {error}; write 10.7.0.0/16, 2001:db8::/32, one address, or "
                    f'"{LOCAL}" for the Unix socket'
                ) from error


class Admission:
    """The compiled rules of one policy; caches the results for the last 4,096 senders."""

    def __init__(self, rules: Sequence[Allow]) -> None:
        self._rules = [
            (_identities(rule.identities), [_network(network) for network in rule.networks]) for rule in rules
        ]
        self._remembered = lru_cache(maxsize=_REMEMBERED_SENDERS)(self._judge)

    def allows(self, sender: str, identity: str | None) -> bool:
        """Whether a rule admits the peer at the address `sender`; without rules every peer is admitted."""
        return not self._rules or self._remembered(sender, identity)

    def _judge(self, sender: str, identity: str | None) -> bool:
        address = _address(sender)
        return any(
            (identities is None or (identity is not None and identities.fullmatch(identity) is not None))
            and (not networks or any(_contains(network, sender, address) for network in networks))
            for identities, networks in self._rules
        )


def _identities(identities: Sequence[str]) -> re.Pattern[str] | None:
    if not identities:
        return None
    patterns = [
        # Each literal between two `*` matches at its first position, without backtracking.
        re.escape(first) + "".join(f"(?>.*?{re.escape(part)})" for part in middle) + f".*{re.escape(last)}"
        if stars
        else re.escape(first)
        for first, middle, last, stars in map(_parts, identities)
    ]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL)


def _parts(identity: str) -> tuple[str, list[str], str, bool]:
    first, *rest = re.split(r"\*+", identity)
    return first, rest[:-1], rest[-1] if rest else "", bool(rest)


def _network(text: str) -> _Network | None:
    """None for the Unix socket."""
    return None if text == LOCAL else ipaddress.ip_network(text)


def _address(sender: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, IPv4-mapped IPv6 ones as IPv4; None if it is not an IP address."""
    try:
        address = ipaddress.ip_address(sender.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _contains(
    network: _Network | None,
    sender: str,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
) -> bool:
    if network is None:
        return sender == LOCAL
    return address is not None and address in network
