"""What fuzzing begins with: every wire fixture, and sessions behind a handshake."""

from collections.abc import Iterator
from itertools import chain, islice

from tests.fuzz.target import NONCE, SALT, as_input
from tests.ingest.forward.forward_site import ping
from tests.ingest.wire.broken import BROKEN, ODD
from tests.ingest.wire.combinations import COMPRESSIONS, forward, packed, single
from tests.ingest.wire.json_text import BROKEN_JSON, JSON
from tests.ingest.wire.well_formed import WELL_FORMED

PING = ping({b"nonce": NONCE, b"auth": SALT}, b"k3y", user=b"north", password=b"p1")
_MAX_SEED_BYTES = 4096


def seeds() -> Iterator[bytes]:
    """Inputs of the fuzz target."""
    combinations = chain(*(packed(how) for how in COMPRESSIONS), forward(), single())
    some = [combination.message for combination in islice(combinations, 0, None, 53)]
    sent = [fixture.sent for fixture in [*WELL_FORMED, *BROKEN, *ODD]] + some
    for number, each in enumerate(each for each in sent if len(each) <= _MAX_SEED_BYTES):
        yield as_input("open", each, step=number % 8)
        if number % 4 == 0:
            yield as_input("handshake", PING + each, step=number % 8)
    for fixture in [*JSON, *BROKEN_JSON]:
        yield as_input("json", fixture.sent, step=len(fixture.sent) % 5)
