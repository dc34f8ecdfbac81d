"""The fuzz target itself: it takes every fixture, and what once broke something."""

from tests.fuzz.crashers import CRASHERS
from tests.fuzz.seeds import PING, seeds
from tests.fuzz.target import as_input, behind_handshake, take
from tests.ingest.wire.notation import as_fixture, wire


def test_every_seed_is_taken() -> None:
    for seed in seeds():
        take(seed)


def test_a_seed_gets_behind_the_handshake() -> None:
    assert behind_handshake(PING + b"message") == b"message"
    assert behind_handshake(PING.replace(b"north", b"south") + b"message") == b""


def test_what_broke_something_is_taken_now() -> None:
    for crasher in CRASHERS.values():
        take(crasher)


def test_an_input_is_printed_as_the_fixture_that_it_becomes() -> None:
    data = as_input("json", bytes(range(256)), step=3)
    assert wire(as_fixture(data)) == data
