"""Invalid bytes: which ones close their connection, which only reject their chunk, and what is kept of them.

Invalid framing closes the connection; the received part of the message is kept. A chunk with valid framing
and invalid content is kept and, if requested, acked, so that its sender does not resend it forever.
"""

import gzip

from tests.ingest.wire.notation import Fixture, Stored, wire
from tests.ingest.wire.well_formed import FIRST, delivered

ACK_C = wire('81 a3 "ack" a1 "c"')
CHUNK_C = '81 a5 "chunk" a1 "c"'
DEEP = 1_200  # deeper than msgpack goes, and short enough for one read


def ends(name: str, sent: bytes, kept: bytes | None = None, before: bytes = b"") -> Fixture:
    """The connection ends, and the bytes are kept."""
    return Fixture(name, before + sent, rejected=("framing", sent if kept is None else kept), closes=True)


def rejected(name: str, code: str, head: str, payload: bytes, option: str = CHUNK_C) -> Fixture:
    """The chunk goes to the dead letters, is acked, and the connection stays open."""
    return Fixture(name, wire(head) + payload + wire(option), answered=ACK_C, rejected=(code, payload))


def in_part(name: str, head: str, bad: bytes, option: str = CHUNK_C) -> Fixture:
    """The first event is stored, the bytes after it go to the dead letters; the chunk is acked."""
    stored = (Stored("t", FIRST, 1, b"c"),)
    return Fixture(name, wire(head) + FIRST + bad + wire(option), stored, ACK_C, ("invalid-event", bad))


def invalid(name: str, sent: str, event: str) -> Fixture:
    """No worker can store the event: it goes to the dead letters."""
    return Fixture(name, wire(sent), rejected=("invalid-event", wire(event)))


def nested(head: str, inner: str) -> bytes:
    return wire(head) + wire(inner) * DEEP


DEEP_EVENT = nested("92 00", '81 a1 "a"') + b"\xc0"

OTHER_PROTOCOLS = [
    ends("HTTP", b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"),
    ends("TLS on a port without TLS", wire("16 03 01 02 00 01 00 01 fc 03 03")),
    ends("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ends("syslog", b"<13>Oct 11 22:14:15 host app: text\n"),
    ends("a PING on a port without a handshake", wire('96 a4 "PING" a1 "h" a1 "s" a1 "d" a0 a0')),
]

ARRAYS = [
    ends("a map", wire('81 a1 "t" 01')),
    ends("a string", wire('a1 "t"')),
    ends("a positive number", wire("07")),
    ends("a negative number", wire("ff")),
    ends("the byte that is never used", wire("c1")),
    ends("an array of none", wire('90 a1 "t" a0')),
    ends("an array of 1", wire('91 a1 "t" a0')),
    ends("an array of 5", wire('95 a1 "t" 00 80 80 80')),
    ends("PackedForward of 4", wire('94 a1 "t" a0 80 80')),
    ends("Forward of 4", wire('94 a1 "t" 90 80 80')),
    ends("Message mode of 2", wire('92 a1 "t" 00')),
    ends("array32 of 2^32 - 1", wire('dd ff ff ff ff a1 "t" a0')),
    ends("array16 of 65,535", wire('dc ff ff a1 "t" 90')),
]

TAGS = [
    ends("a tag that is a number", wire("92 01 a0")),
    ends("a tag that is nil", wire("92 c0 a0")),
    ends("a tag that is an array", wire('92 91 a1 "t" a0')),
    ends("a tag that is an ext", wire('92 c7 01 00 "t" a0')),
    ends("a tag of 1,025 bytes", wire("92 da 04 01") + b"t" * 1025 + b"\xa0"),
    ends("a tag that announces 4 GiB", wire("92 db ff ff ff ff") + b"t" * 2000),
    rejected("a tag that is empty", "bad-tag", "93 a0 c4 12", FIRST),
    rejected("a tag of 1,024 bytes", "bad-tag", "93 da 04 00" + " 74" * 1024 + "c4 12", FIRST),
    rejected("a tag with a colon", "bad-tag", '93 a3 "t:x" c4 12', FIRST),
    rejected("a tag with a line break", "bad-tag", '93 a3 "t" 0a "x" c4 12', FIRST),
    rejected("a tag with a zero byte", "bad-tag", '93 a2 "t" 00 c4 12', FIRST),
    Fixture(
        "a tag that no policy takes is not acked: its sender keeps it",
        wire('93 a3 "a.b" c4 12') + FIRST + wire(CHUNK_C),
        rejected=("no-policy", FIRST),
    ),
]

LENGTHS = [
    ends("a bin that announces 4 GiB", wire('92 a1 "t" c6 ff ff ff ff 00 00')),
    ends("a str that announces 4 GiB", wire('93 a1 "t" db ff ff ff ff 00 00')),
    ends("a bin one byte over the limit", wire('92 a1 "t" c6 02 00 00 00')),
]

ENTRIES = [
    ends("the byte that is never used, in an entry", wire('92 a1 "t" 91 92 00 c1')),
    ends("the byte that is never used, in a record of Message mode", wire('93 a1 "t" 00 81 a1 "a" c1')),
    ends("the byte that is never used, in an option", wire('93 a1 "t" a0 81 a1 "a" c1')),
    rejected("Forward mode nested too deep", "invalid-event", '93 a1 "t" 91', DEEP_EVENT),
    Fixture(
        "a record nested too deep",
        wire('94 a1 "t" 00') + DEEP_EVENT[2:] + wire(CHUNK_C),
        answered=ACK_C,
        rejected=("invalid-event", DEEP_EVENT),
    ),
    ends("the byte that is never used, nested too deep", nested('93 a1 "t"', "81") + b"\xc1"),
    ends("an option nested too deep", nested('93 a1 "t" a0', "91")),
    ends("an option that is a number", wire('93 a1 "t" a0 07')),
    ends("an option that is a string", wire('93 a1 "t" a0 a1 "x"')),
    ends("an option that is an array", wire('93 a1 "t" a0 91 01')),
    ends("an option with an array as a key", wire('93 a1 "t" a0 81 90 01')),
    ends("an option with a map as a key", wire('93 a1 "t" a0 81 80 01')),
    ends("an option over 64 KiB", wire('93 a1 "t" a0 81 a1 "x" c6 00 01 00 00') + bytes(65536)),
    ends(
        "an option in Message mode over 64 KiB",
        wire('94 a1 "t" 00 80 81 a1 "x" c6 00 01 00 00') + bytes(65536),
    ),
    ends(
        "a broken message behind a good one",
        wire('95 a1 "t" 00 80 80 80'),
        before=wire('92 a1 "t" a0'),
    ),
]

PAYLOADS = [
    rejected("a payload that is not an event", "malformed", '93 a1 "t" c4 01', b"\x80"),
    rejected("a payload that begins with a record", "malformed", '93 a1 "t" c4 03', wire('81 a1 "a"')),
    rejected("a payload of a triple", "malformed", '93 a1 "t" c4 04', wire("93 00 80 80")),
    rejected("a payload that ends inside its event", "malformed", '93 a1 "t" c4 11', FIRST[:-1]),
    in_part("a payload with bytes behind its event", '93 a1 "t" c4 13', b"\xda"),
    in_part("a payload with the byte that is never used", '93 a1 "t" c4 13', b"\xc1"),
    in_part("a payload that ends inside its second event", '93 a1 "t" c4 22', FIRST[:-2]),
    in_part("a second event that is a triple", '93 a1 "t" c4 16', wire("93 00 80 80")),
    in_part("a second event that is none", '93 a1 "t" c4 13', wire("c0")),
    in_part(
        "a second event with a time in milliseconds",
        '93 a1 "t" c4 1d',
        wire("92 cf 00 00 01 a0 c4 50 fc 00 80"),
    ),
    in_part("a second event nested too deep", '93 a1 "t" c5 04 c5', nested("92 00", "91") + b"\xc0"),
    rejected("an event of 2^32 - 1 fields", "malformed", '93 a1 "t" c4 07', wire("92 00 df ff ff ff ff")),
    rejected("an event with a bin of 4 GiB", "malformed", '93 a1 "t" c4 07', wire("92 00 c6 ff ff ff ff")),
    rejected(
        "an event nested too deep",
        "invalid-event",
        '93 a1 "t" c5 04 b2',
        nested("92 00", "91"),
    ),
    in_part(
        "a size that hides a broken event",
        '93 a1 "t" c4 13',
        b"\xc1",
        '82 a4 "size" 01 a5 "chunk" a1 "c"',
    ),
]


GZIP = gzip.compress(FIRST, mtime=0)
ZSTD = wire("28 b5 2f fd 20 12 91 00 00") + FIRST


def unpacks_badly(name: str, payload: bytes, how: str, code: str = "malformed") -> Fixture:
    option = f'82 aa "compressed" {0xA0 | len(how):02x} "{how}" a5 "chunk" a1 "c"'
    return rejected(name, code, f'93 a1 "t" c4 {len(payload):02x}', payload, option)


COMPRESSIONS = [
    unpacks_badly("what says gzip and is text", FIRST, "gzip"),
    unpacks_badly("what says gzip and is zstd", ZSTD, "gzip"),
    unpacks_badly("what says zstd and is gzip", GZIP, "zstd"),
    unpacks_badly("what says text and is gzip", GZIP, "text"),
    unpacks_badly("an unknown compression", FIRST, "lzma", "unsupported-compression"),
    unpacks_badly("a compression without a name", FIRST, "", "unsupported-compression"),
    unpacks_badly("gzip cut inside its header", GZIP[:5], "gzip"),
    unpacks_badly("gzip cut inside its data", GZIP[:20], "gzip"),
    unpacks_badly("gzip cut inside its checksum", GZIP[:-1], "gzip"),
    unpacks_badly("gzip with another checksum", GZIP[:-5] + b"\0" + GZIP[-4:], "gzip"),
    unpacks_badly("gzip with another size", GZIP[:-1] + b"\1", "gzip"),
    unpacks_badly("gzip and then something else", GZIP + b"\0\0x", "gzip"),
    unpacks_badly("zstd cut inside its header", ZSTD[:5], "zstd"),
    unpacks_badly("zstd cut inside its data", ZSTD[:-1], "zstd"),
    unpacks_badly("zstd and then something else", ZSTD + b"\0\0\0\0\0", "zstd"),
    unpacks_badly(
        "zstd that asks for a window of 3.75 TiB", wire("28 b5 2f fd 00 ff 01 00 00"), "zstd", "too-large"
    ),
    unpacks_badly("zstd of an unknown dictionary", wire("28 b5 2f fd 21 01 12 91 00 00") + FIRST, "zstd"),
    unpacks_badly("gzip that holds no events", gzip.compress(b"text", mtime=0), "gzip"),
]

BROKEN = [*OTHER_PROTOCOLS, *ARRAYS, *TAGS, *LENGTHS, *ENTRIES, *PAYLOADS, *COMPRESSIONS]

ODD = [
    invalid("a time that is nil", '93 a1 "t" c0 80', "92 c0 80"),
    invalid("a time that is a map", '93 a1 "t" 80 80', "92 80 80"),
    invalid(
        "an EventTime of 7 bytes",
        '93 a1 "t" c7 07 00 00 00 00 00 00 00 00 80',
        "92 c7 07 00 00 00 00 00 00 00 00 80",
    ),
    Fixture(
        "an ext of type -1, which is a time",
        wire('93 a1 "t" d6 ff 6a b1 3b 80 80'),
        delivered(wire("92 d6 ff 6a b1 3b 80 80"), 1),
    ),
    Fixture(
        "a record that is a bare string", wire('93 a1 "t" 00 a1 "x"'), delivered(wire('92 00 a1 "x"'), 1)
    ),
]
