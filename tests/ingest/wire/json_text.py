"""JSON events as users and small devices send them with `nc`: the first byte decides for a connection."""

from tests.ingest.wire.notation import Fixture, Stored, wire


def t(payload: str, events: int = 1, chunk_id: bytes | None = None) -> tuple[Stored, ...]:
    return (Stored("t", wire(payload), events, chunk_id),)


def taken(name: str, sent: bytes, stored: tuple[Stored, ...], answered: bytes = b"") -> Fixture:
    return Fixture(f"JSON: {name}", sent, stored, answered, speaks="json")


def ends(name: str, sent: bytes) -> Fixture:
    return Fixture(f"JSON: {name}", sent, rejected=("framing", sent), closes=True)


AT_1_S = "92 d7 00 00 00 00 01 00 00 00 00"  # an array of two, and EventTime

JSON = [
    taken("an event", b'["t",1790000000,{"a":1}]', t('92 d7 00 6a b1 3b 80 00 00 00 00 81 a1 "a" 01')),
    taken("seconds with a fraction", b'["t",1.5,{}]', t("92 d7 00 00 00 00 01 1d cd 65 00 80")),
    taken(
        "nine digits behind the point",
        b'["t",1790000000.123456789,{}]',
        t("92 d7 00 6a b1 3b 80 07 5b cd 15 80"),
    ),
    taken("a time as text", b'["t","1970-01-01t00:00:01z",{}]', t(f"{AT_1_S} 80")),
    taken("no time", b'["t",null,{}]', t("92 d7 00 00 00 00 00 00 00 00 00 80")),
    taken(
        "an event with a chunk id",
        b'["t",1,{},{"chunk":"c"}]',
        t(f"{AT_1_S} 80", chunk_id=b"c"),
        b'{"ack":"c"}',
    ),
    taken(
        "several events with a chunk id",
        b'["t",[[1,{}],[2,{"b":[true,null,"\\u00fc"]}]],{"chunk":"c","size":2}]',
        t(f'{AT_1_S} 80 92 d7 00 00 00 00 02 00 00 00 00 81 a1 "b" 93 c3 c0 a2 c3 bc', 2, b"c"),
        b'{"ack":"c"}',
    ),
    taken("brackets and quotes in a string", b'["t",1,{"a":"]\\"}"}]', t(f'{AT_1_S} 81 a1 "a" a3 5d 22 7d')),
    taken("NaN", b'["t",1,{"a":NaN}]', t(f'{AT_1_S} 81 a1 "a" cb 7f f8 00 00 00 00 00 00')),
    taken("a byte order mark before it", b'\xef\xbb\xbf["t",1,{}]', t(f"{AT_1_S} 80")),
    taken(
        "an integer too large for msgpack",
        b'["t",1,{"a":18446744073709551616}]',
        t(f'{AT_1_S} 81 a1 "a" b4 "18446744073709551616"'),
    ),
    taken("half of a surrogate pair", b'["t",1,{"a":"\\ud800"}]', t(f'{AT_1_S} 81 a1 "a" c4 03 ed a0 80')),
    taken("white space in it", b'[ "t" ,\r\n 1 ,\t{ } ]', t(f"{AT_1_S} 80")),
    taken(
        "a tag that equals the text of a tag that is not UTF-8",
        b'["t\\\\xff",1,{}]',
        (Stored("t\\x5cxff", wire(f"{AT_1_S} 80"), 1, None),),
    ),
]

BROKEN_JSON = [
    ends("an object", b'{"tag":"t"}'),
    ends("no record", b'["t",1]'),
    ends("a record that is not an object", b'["t",1,"text"]'),
    ends("a record deeper than 800", b'["t",1,' + b'{"a":' * 801 + b"1" + b"}" * 801 + b"]"),
    ends("deeper than any", b"[" * 900),
    ends("a mark in UTF-16", b"\xef\xbb["),
    ends("not UTF-8", b'["t",1,{"a":"\xff"}]'),
    Fixture(
        "JSON: msgpack behind it",
        b'["t",1,{}]\x93\xa1t\x01\x80',
        t(f"{AT_1_S} 80"),
        rejected=("framing", b"\x93\xa1t\x01\x80"),
        closes=True,
    ),
]
