"""JSON events as people and small devices send them with `nc`: a connection that begins so goes on so."""

from tests.ingest.wire.notation import Fixture, Stored, wire


def t(payload: str, events: int = 1, chunk_id: bytes | None = None) -> tuple[Stored, ...]:
    return (Stored("t", wire(payload), events, chunk_id),)


def taken(name: str, sent: bytes, stored: tuple[Stored, ...], answered: bytes = b"") -> Fixture:
    return Fixture(f"JSON: {name}", sent, stored, answered, speaks="json")


def ends(name: str, sent: bytes) -> Fixture:
    return Fixture(f"JSON: {name}", sent, refused=("framing", sent), closes=True)


JSON = [
    taken("an event", b'["t",1790000000,{"a":1}]', t('92 ce 6a b1 3b 80 81 a1 "a" 01')),
    taken("seconds with a fraction", b'["t",1.5,{}]', t("92 cb 3f f8 00 00 00 00 00 00 80")),
    taken("no time", b'["t",null,{}]', t("92 00 80")),
    taken(
        "an event with a chunk id",
        b'["t",1,{},{"chunk":"c"}]',
        t("92 01 80", chunk_id=b"c"),
        b'{"ack":"c"}',
    ),
    taken(
        "several events with a chunk id",
        b'["t",[[1,{}],[2,{"b":[true,null,"\\u00fc"]}]],{"chunk":"c","size":2}]',
        t('92 01 80 92 02 81 a1 "b" 93 c3 c0 a2 c3 bc', 2, b"c"),
        b'{"ack":"c"}',
    ),
    taken("brackets and quotes in a string", b'["t",1,{"a":"]\\"}"}]', t('92 01 81 a1 "a" a3 5d 22 7d')),
    taken("white space in it", b'[ "t" ,\r\n 1 ,\t{ } ]', t("92 01 80")),
]

BROKEN_JSON = [
    ends("an object", b'{"tag":"t"}'),
    ends("no record", b'["t",1]'),
    ends("a record that is no object", b'["t",1,"text"]'),
    ends("a number too large for msgpack", b'["t",1,{"a":18446744073709551616}]'),
    ends("deeper than 256", b"[" * 300),
    ends("no UTF-8", b'["t",1,{"a":"\xff"}]'),
    Fixture(
        "JSON: msgpack behind it",
        b'["t",1,{}]\x93\xa1t\x01\x80',
        t("92 01 80"),
        refused=("framing", b"\x93\xa1t\x01\x80"),
        closes=True,
    ),
]
