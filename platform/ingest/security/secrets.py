"""The secrets in force, which authenticate clients: shared keys, users, tokens and client networks.

How a client is looked up (`ForwardSecurity.entry`): an entry that names its hostname first, else the entry
with the narrowest network that contains its address, else the common key, if `others` may connect. A client
whose hostname has an entry must match it: the common key does not replace it.
"""

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field

LOCAL_USER = "unix:"
"""How the identities of the Unix socket begin, for which the kernel vouches: no other identity may."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """What holds for the clients of one `[[client]]` table."""

    hostname: str | None
    networks: tuple[Network, ...]
    shared_key: bytes | None = field(repr=False)
    """None: it holds for logins over HTTP alone."""
    users: frozenset[str] | None
    """Who may log in from here; None: every user."""

    def holds(self, address: Address | None) -> bool:
        """Whether a client at `address` may use this entry."""
        return not self.networks or (address is not None and any(address in each for each in self.networks))

    def prefix_bits(self, address: Address | None) -> int:
        """How narrow the narrowest network is that holds `address`; -1 where none does."""
        return max((n.prefixlen for n in self.networks if address is not None and address in n), default=-1)


@dataclass(frozen=True, slots=True)
class ForwardSecurity:
    """The secrets in force. Two with the same content are equal; the repr shows none of them."""

    hostname: str
    """What the gateway calls itself in PONG."""
    shared_key: bytes | None = field(repr=False)
    """For clients without an entry; None: only clients with an entry are admitted."""
    users: dict[str, bytes] = field(repr=False)
    clients: tuple[ClientEntry, ...]
    others: bool = True
    """Whether clients without an entry may connect."""
    tokens: dict[str, bytes] = field(repr=False, default_factory=dict)
    """The tokens with which machines authenticate over HTTP, by their names."""
    first_table_line: int = field(default=1, compare=False)
    """Line of the first table in the file: keys of the whole file are above it."""

    @property
    def takes_forward(self) -> bool:
        """Whether there is a shared key: without one the forward protocol's handshake rejects all clients."""
        return self.shared_key is not None or any(each.shared_key is not None for each in self.clients)

    @property
    def why_no_forward(self) -> str:
        """What to do where it does not, as a sentence about the file."""
        if not self.others:
            return (
                "others = false, and no [[client]] has a shared_key, so the forward port stays shut; write a "
                "[[client]] with one, or take that line out"
            )
        return (
            "has no shared_key, so the forward port stays shut and senders come over HTTP alone; to open it, "
            f'write the line shared_key = "…" above line {self.first_table_line}; it may be empty ("") where '
            "every sender logs in as a [[user]]"
        )

    @property
    def has_logins(self) -> bool:
        """Whether a user or token is configured for HTTP."""
        return bool(self.users or self.tokens)

    def is_password_of(self, user: str, password: bytes) -> bool:
        """Whether the password is correct; takes the same time for an unknown user."""
        known = self.users.get(user)
        expected = secrets.token_bytes(32) if known is None else known
        return hmac.compare_digest(_digest(password), _digest(expected)) and known is not None

    def owner_of_token(self, token: bytes) -> str | None:
        """Whose it is; takes as long whether and wherever it is found."""
        found, given = None, _digest(token)
        for name, expected in self.tokens.items():
            if hmac.compare_digest(given, _digest(expected)):
                found = name
        return found

    def lets_in(self, name: str, address: Address | None) -> bool:
        """Whether a user may log in over HTTP, which has no hostname, from this address."""
        entry = self._by_network(address)
        return self.others if entry is None else entry.users is None or name in entry.users

    def entry(self, hostname: str, address: Address | None) -> ClientEntry | None:
        """What a client must know; None: it may not connect."""
        named = [entry for entry in self.clients if entry.hostname == hostname]
        if named:
            return max(
                (entry for entry in named if entry.holds(address)),
                key=lambda entry: entry.prefix_bits(address),
                default=None,
            )
        by_network = self._by_network(address)
        if by_network is not None:
            return None if by_network.shared_key is None else by_network
        if self.shared_key is None:
            return None
        return ClientEntry(hostname=None, networks=(), shared_key=self.shared_key, users=None)

    def _by_network(self, address: Address | None) -> ClientEntry | None:
        """The entry without a hostname whose network holds `address` most narrowly."""
        by_network = [e for e in self.clients if e.hostname is None and e.holds(address)]
        return max(by_network, key=lambda entry: entry.prefix_bits(address), default=None)


def _digest(secret: bytes) -> bytes:
    """Of one length, so that a comparison says nothing of the secret's."""
    return hashlib.sha256(secret).digest()


def parse_peer(host: str) -> Address | None:
    """Parses a peer's address: without its scope, IPv4 in IPv6 as IPv4; None if it is not an IP address.

    >>> parse_peer("::ffff:10.7.0.3")
    IPv4Address('10.7.0.3')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
