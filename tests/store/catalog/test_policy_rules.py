"""Who may send: identities and networks, alone and together."""

import pytest
from windvane.store.catalog.policy_rules import Admission, Allow


@pytest.mark.parametrize(
    ("rules", "sender", "identity", "allowed"),
    [
        ([], "203.0.113.7", None, True),
        ([Allow(networks=("10.7.0.0/16",))], "10.7.255.1", None, True),
        ([Allow(networks=("10.7.0.0/16",))], "10.8.0.1", None, False),
        ([Allow(networks=("10.7.0.0/16",))], "::ffff:10.7.0.1", None, True),
        ([Allow(networks=("10.7.0.1",))], "10.7.0.1", None, True),
        ([Allow(networks=("2001:db8::/32",))], "2001:db8:1::5", None, True),
        ([Allow(networks=("2001:db8::/32",))], "10.7.0.1", None, False),
        ([Allow(networks=("fe80::/10",))], "fe80::1%eth0", None, True),
        ([Allow(networks=("0.0.0.0/0", "::/0"))], "local", None, False),
        ([Allow(networks=("local",))], "local", None, True),
        ([Allow(networks=("local",))], "127.0.0.1", None, False),
        ([Allow(networks=("0.0.0.0/0",))], "no address", None, False),
        ([Allow(identities=("t07",))], "10.7.0.1", "t07", True),
        ([Allow(identities=("t07",))], "10.7.0.1", "t08", False),
        ([Allow(identities=("t07",))], "10.7.0.1", "t07x", False),
        ([Allow(identities=("t07",))], "10.7.0.1", None, False),
        ([Allow(identities=("*",))], "10.7.0.1", "any known client", True),
        ([Allow(identities=("*",))], "10.7.0.1", None, False),
        ([Allow(identities=("t*.park.*",))], "10.7.0.1", "t7.park.example", True),
        ([Allow(identities=("t*.park.*",))], "10.7.0.1", "t7.mast.example", False),
        ([Allow(identities=("t.7",))], "10.7.0.1", "tx7", False),
        ([Allow(identities=("**a*",))], "10.7.0.1", "bab", True),
        ([Allow(identities=("a*a",))], "10.7.0.1", "a", False),
        ([Allow(identities=("t07",), networks=("10.7.0.0/16",))], "10.7.0.1", "t07", True),
        ([Allow(identities=("t07",), networks=("10.7.0.0/16",))], "10.8.0.1", "t07", False),
        ([Allow(identities=("t07",), networks=("10.7.0.0/16",))], "10.7.0.1", "t08", False),
        ([Allow(identities=("t07",)), Allow(networks=("10.7.0.0/16",))], "10.7.0.1", None, True),
    ],
)
def test_some_rule_must_let_the_sender_in(
    rules: list[Allow], sender: str, identity: str | None, allowed: bool
) -> None:
    admission = Admission(rules)
    assert admission.allows(sender, identity) is allowed
    assert admission.allows(sender, identity) is allowed  # and the cached result is the same


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not Admission([Allow(identities=("*a" * 200 + "b",))]).allows("local", "a" * 400)
