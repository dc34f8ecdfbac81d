"""Messages as forwarders send them, and as the protocol allows them, byte by byte; each is delivered.

The shapes are those of real traffic (fluentd 1.19, Fluent Bit 5.1, @fluent-org/logger 1.0, fluent-logger
0.11); tags, times and records are shortened. Unless a fixture says otherwise it carries these two events.
"""

from tests.ingest.wire.notation import Fixture, Stored, wire

FIRST = wire(
    """
    # array of 2: time, record
    92
    # EventTime: fixext8, type 0, seconds, nanoseconds
    d7 00 6a b1 3b 80 00 00 00 07
    # map of 1: str "m", bin8 of 2 that is not UTF-8
    81 a1 "m" c4 02 00 ff
    """
)
SECOND = wire('92 d7 00 6a b1 3b 80 00 00 00 07 81 a1 "m" c4 02 01 fe')
BOTH = FIRST + SECOND
BOTH_HEX = BOTH.hex(" ")

CHUNK = b"A" * 22 + b"==\n"  # fluentd's: 24 characters of base64, and a newline
ACK = wire(
    """
    # map of 1: str "ack", str of 25
    81 a3 "ack" b9 "AAAAAAAAAAAAAAAAAAAAAA==" 0a
    """
)
CHUNK_24 = b"0123456789abcdef01234567"  # Fluent Bit's
ACK_24 = wire('81 a3 "ack" b8 "0123456789abcdef01234567"')


EVERY_KIND = """
    92 00
    # map16 of 16, its keys integers: nil, false, true, fixints
    de 00 10
    00 c0 01 c2 02 c3 03 7f 04 e0
    # uint 8 to 64
    05 cc 80 06 cd 01 00 07 cf 00 00 00 01 00 00 00 00
    # int 8 to 64
    08 d0 80 09 d1 80 00 0a d2 80 00 00 00 0b d3 80 00 00 00 00 00 00 00
    # float 32 and 64
    0c ca 3f c0 00 00 0d cb 3f f8 00 00 00 00 00 00
    # fixext1; ext8 of nothing
    0e d4 05 00 0f c7 00 05
    """


def delivered(payload: bytes = BOTH, events: int = 2, chunk_id: bytes | None = None) -> tuple[Stored, ...]:
    return (Stored("t", payload, events, chunk_id),)


FLUENTD = [
    Fixture(
        "fluentd: PackedForward typed str32, text",
        wire(
            f"""
            # array of 3: tag, payload, option; str "t"
            93 a1 "t"
            # str32 of 36, though it holds binary
            db 00 00 00 24
            {BOTH_HEX}
            # map of 3
            83
            # "size": 2
            a4 "size" 02
            # "compressed": "text"
            aa "compressed" a4 "text"
            # "chunk": str of 25, the last is a newline
            a5 "chunk" b9 "AAAAAAAAAAAAAAAAAAAAAA==" 0a
            """
        ),
        delivered(chunk_id=CHUNK),
        ACK,
    ),
    Fixture(
        "fluentd: PackedForward typed str32, a gzip member for each emit",
        wire(
            """
            93 a1 "t"
            # str32 of 76: two members of 38
            db 00 00 00 4c
            # gzip: magic, deflate, no flags, no time, system; deflated; CRC-32, size
            1f 8b 08 00 00 00 00 00 02 03
            9b 74 9d 21 6b a3 75 03 03 03 03 7b e3 c2 dc 23 4c 0c ff 01
            9e c1 0d 62 12 00 00 00
            # the second member
            1f 8b 08 00 00 00 00 00 02 03
            9b 74 9d 21 6b a3 75 03 03 03 03 7b e3 c2 dc 23 4c 8c ff 00
            49 c0 11 0c 12 00 00 00
            # {"size": 2, "compressed": "gzip", "chunk": ...}
            83 a4 "size" 02 aa "compressed" a4 "gzip"
            a5 "chunk" b9 "AAAAAAAAAAAAAAAAAAAAAA==" 0a
            """
        ),
        delivered(chunk_id=CHUNK),
        ACK,
    ),
    Fixture(
        "fluentd: PackedForward typed str32, a zstd frame for each emit",
        wire(
            """
            93 a1 "t"
            # str32 of 54: two frames of 27
            db 00 00 00 36
            # zstd: magic, single segment, size of content; one raw block of 18
            28 b5 2f fd 20 12 91 00 00
            92 d7 00 6a b1 3b 80 00 00 00 07 81 a1 6d c4 02 00 ff
            28 b5 2f fd 20 12 91 00 00
            92 d7 00 6a b1 3b 80 00 00 00 07 81 a1 6d c4 02 01 fe
            83 a4 "size" 02 aa "compressed" a4 "zstd"
            a5 "chunk" b9 "AAAAAAAAAAAAAAAAAAAAAA==" 0a
            """
        ),
        delivered(chunk_id=CHUNK),
        ACK,
    ),
    Fixture("fluentd: a connection without a word is its heartbeat", b""),
    Fixture("fluentd: a bare nil is a heartbeat too", wire("c0 c0 c0")),
]

FLUENT_BIT = [
    Fixture(
        "Fluent Bit: Forward mode, entries of protocol 1.5 in an array16, no option",
        wire(
            """
            # array of 2: tag, entries; str "t"
            92 a1 "t"
            # array16 of 1
            dc 00 01
            # entry: [[EventTime, metadata {}], record]
            92 92 d7 00 6a b1 3b 80 00 00 00 07 80
            81 a1 "m" c4 02 00 ff
            """
        ),
        delivered(wire('92 92 d7 00 6a b1 3b 80 00 00 00 07 80 81 a1 "m" c4 02 00 ff'), 1),
    ),
    Fixture(
        "Fluent Bit: entries whose metadata is not empty",
        wire(
            """
            92 a1 "t" dc 00 01
            # metadata: {"otlp": {"group": 1}}
            92 92 d7 00 6a b1 3b 80 00 00 00 07 81 a4 "otlp" 81 a5 "group" 01
            80
            """
        ),
        delivered(
            wire('92 92 d7 00 6a b1 3b 80 00 00 00 07 81 a4 "otlp" 81 a5 "group" 01 80'),
            1,
        ),
    ),
    Fixture(
        "Fluent Bit: options in a map32, entries without metadata in arrays of 32 bits",
        wire(
            """
            93 a1 "t"
            # array32 of 1; the entry: array32 of 2
            dd 00 00 00 01
            dd 00 00 00 02 d7 00 6a b1 3b 80 00 00 00 07 80
            # map32 of 2: "chunk" of 24 characters, "fluent_signal": 0
            df 00 00 00 02
            a5 "chunk" b8 "0123456789abcdef01234567"
            ad "fluent_signal" 00
            """
        ),
        delivered(wire("dd 00 00 00 02 d7 00 6a b1 3b 80 00 00 00 07 80"), 1, CHUNK_24),
        ACK_24,
    ),
    Fixture(
        "Fluent Bit: gzip, one member typed bin",
        wire(
            """
            93 a1 "t"
            # bin8 of 38
            c4 26
            1f 8b 08 00 00 00 00 00 02 03
            9b 74 9d 21 6b a3 75 03 03 03 03 7b e3 c2 dc 23 4c 0c ff 01
            9e c1 0d 62 12 00 00 00
            # map32 of 4
            df 00 00 00 04
            a4 "size" 01 a5 "chunk" b8 "0123456789abcdef01234567"
            aa "compressed" a4 "gzip" ad "fluent_signal" 00
            """
        ),
        delivered(FIRST, 1, CHUNK_24),
        ACK_24,
    ),
    Fixture(
        "Fluent Bit: metrics are PackedForward typed bin with fluent_signal 1",
        wire(
            """
            93 a1 "t"
            # bin8 of 7: a map of cmetrics, no event
            c4 07 81 a4 "meta" c0
            df 00 00 00 02
            a5 "chunk" b8 "0123456789abcdef01234567" ad "fluent_signal" 01
            """
        ),
        answered=ACK_24,
        rejected=("not-logs", wire('81 a4 "meta" c0')),
    ),
    Fixture(
        "Fluent Bit: traces have fluent_signal 2",
        wire('93 a1 "t" c4 01 80 df 00 00 00 01 ad "fluent_signal" 02'),
        rejected=("not-logs", b"\x80"),
    ),
    Fixture(
        "Fluent Bit: a tag of a record accessor gives 4-element Message mode",
        wire(
            """
            # array of 4: tag, time, record, option
            94 a1 "t" d7 00 6a b1 3b 80 00 00 00 07
            81 a1 "m" c4 02 00 ff
            df 00 00 00 02
            a5 "chunk" b8 "0123456789abcdef01234567" ad "fluent_signal" 00
            """
        ),
        delivered(FIRST, 1, CHUNK_24),
        ACK_24,
    ),
]

LOGGERS = [
    Fixture(
        "@fluent-org/logger: PackedForward typed bin8, integer seconds",
        wire(
            """
            93 a1 "t"
            # bin8 of 10: [uint32, {"a": 1}]
            c4 0a 92 ce 6a b1 3b 80 81 a1 "a" 01
            # map of 3: size, chunk, compressed
            83 a4 "size" 01 a5 "chunk" b8 "0123456789abcdef01234567" aa "compressed" a4 "text"
            """
        ),
        delivered(wire('92 ce 6a b1 3b 80 81 a1 "a" 01'), 1, CHUNK_24),
        ACK_24,
    ),
    Fixture(
        "@fluent-org/logger: the same typed bin16",
        wire('93 a1 "t" c5 00 0a 92 ce 6a b1 3b 80 81 a1 "a" 01 81 a4 "size" 01'),
        delivered(wire('92 ce 6a b1 3b 80 81 a1 "a" 01'), 1),
    ),
    Fixture(
        "@fluent-org/logger: the same typed bin32",
        wire('93 a1 "t" c6 00 00 00 0a 92 ce 6a b1 3b 80 81 a1 "a" 01 81 a4 "size" 01'),
        delivered(wire('92 ce 6a b1 3b 80 81 a1 "a" 01'), 1),
    ),
    Fixture(
        "@fluent-org/logger: several chunks before it reads an ack",
        wire('93 a1 "t" c4 03 92 01 80 81 a5 "chunk" a1 "1" 93 a1 "t" c4 03 92 02 80 81 a5 "chunk" a1 "2"'),
        delivered(b"\x92\x01\x80", 1, b"1") + delivered(b"\x92\x02\x80", 1, b"2"),
        wire('81 a3 "ack" a1 "1" 81 a3 "ack" a1 "2"'),
    ),
    Fixture(
        "fluent-logger: 3-element Message mode, integer seconds",
        wire('93 a1 "t" ce 6a b1 3b 80 81 a1 "a" 01'),
        delivered(wire('92 ce 6a b1 3b 80 81 a1 "a" 01'), 1),
    ),
]

PROTOCOL = [
    Fixture(
        "a run of events in Message mode is one chunk",
        wire('93 a1 "t" ce 00 00 00 01 80 93 a1 "t" ce 00 00 00 02 80 93 a1 "t" ce 00 00 00 03 80'),
        delivered(wire("92 ce 00 00 00 01 80 92 ce 00 00 00 02 80 92 ce 00 00 00 03 80"), 3),
    ),
    Fixture(
        "Message mode asks for an ack by an option, and the run before it ends there",
        wire('93 a1 "t" ce 00 00 00 01 80 94 a1 "t" ce 00 00 00 02 80 81 a5 "chunk" a1 "c"'),
        delivered(wire("92 ce 00 00 00 01 80"), 1) + delivered(wire("92 ce 00 00 00 02 80"), 1, b"c"),
        wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "a chunked zstd frame: two blocks, no size of content",
        wire(
            """
            93 a1 "t" c4 29
            # magic, no size of content, window
            28 b5 2f fd 00 58
            # a raw block of 18
            90 00 00 92 d7 00 6a b1 3b 80 00 00 00 07 81 a1 6d c4 02 00 ff
            # a compressed block of 8, that repeats it; an empty last block
            44 00 00 10 01 fe 01 00 85 4c 20
            01 00 00
            82 aa "compressed" a4 "zstd" a5 "chunk" a1 "c"
            """
        ),
        delivered(chunk_id=b"c"),
        wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "an empty gzip member between two full ones",
        wire(
            """
            93 a1 "t" c4 60
            1f 8b 08 00 00 00 00 00 02 03
            9b 74 9d 21 6b a3 75 03 03 03 03 7b e3 c2 dc 23 4c 0c ff 01
            9e c1 0d 62 12 00 00 00
            # empty
            1f 8b 08 00 00 00 00 00 02 03 03 00 00 00 00 00 00 00 00 00
            1f 8b 08 00 00 00 00 00 02 03
            9b 74 9d 21 6b a3 75 03 03 03 03 7b e3 c2 dc 23 4c 8c ff 00
            49 c0 11 0c 12 00 00 00
            82 aa "compressed" a4 "gzip" a5 "chunk" a1 "c"
            """
        ),
        delivered(chunk_id=b"c"),
        wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "an empty chunk is acked and stores nothing",
        wire('93 a1 "t" a0 82 a4 "size" 00 a5 "chunk" a1 "c"'),
        answered=wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "a chunk after an empty chunk with the same ID does not repeat it",
        wire('93 a1 "t" a0 81 a5 "chunk" a1 "c" 93 a1 "t" c4 03 92 01 80 81 a5 "chunk" a1 "c"'),
        delivered(b"\x92\x01\x80", 1, b"c"),
        wire('81 a3 "ack" a1 "c" 81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "an empty array of entries is acked and stores nothing",
        wire('93 a1 "t" 90 81 a5 "chunk" a1 "c"'),
        answered=wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "a chunk id typed bin is echoed typed str",
        wire('93 a1 "t" c4 03 92 01 80 81 a5 "chunk" c4 02 00 ff'),
        delivered(b"\x92\x01\x80", 1, b"\x00\xff"),
        wire('81 a3 "ack" a2 00 ff'),
    ),
    Fixture(
        "a chunk id that is empty is echoed",
        wire('93 a1 "t" c4 03 92 01 80 81 a5 "chunk" a0'),
        delivered(b"\x92\x01\x80", 1, b""),
        wire('81 a3 "ack" a0'),
    ),
    Fixture(
        "a chunk id that is a number asks for nothing",
        wire('93 a1 "t" c4 03 92 01 80 81 a5 "chunk" 07'),
        delivered(b"\x92\x01\x80", 1),
    ),
    Fixture(
        "unknown keys of the option, integers among them",
        wire('93 a1 "t" c4 03 92 01 80 84 05 06 ff c0 a1 "x" 92 01 02 a5 "chunk" a1 "c"'),
        delivered(b"\x92\x01\x80", 1, b"c"),
        wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "a chunk id that comes twice in one option: the later holds",
        wire('93 a1 "t" c4 03 92 01 80 82 a5 "chunk" a1 "a" a5 "chunk" a1 "b"'),
        delivered(b"\x92\x01\x80", 1, b"b"),
        wire('81 a3 "ack" a1 "b"'),
    ),
    Fixture(
        "`compressed` is ignored without a packed payload",
        wire('93 a1 "t" 91 92 01 80 82 aa "compressed" a4 "gzip" a5 "chunk" a1 "c"'),
        delivered(b"\x92\x01\x80", 1, b"c"),
        wire('81 a3 "ack" a1 "c"'),
    ),
    Fixture(
        "a retransmission is acked again and stored once",
        wire('93 a1 "t" c4 03 92 01 80 81 a5 "chunk" a1 "r"') * 3,
        delivered(b"\x92\x01\x80", 1, b"r"),
        wire('81 a3 "ack" a1 "r"') * 3,
    ),
    Fixture(
        "a tag that is not UTF-8 is spelt out",
        # PackedForward, tag of 2 bytes: "t", ff
        wire('92 a2 "t" ff c4 03 92 01 80'),
        (Stored("t\\xff", b"\x92\x01\x80", 1, None),),
    ),
    Fixture(
        "a tag that is the text of such a tag has another name",
        # PackedForward, tag of 5 bytes: "t", a backslash, "xff"
        wire('92 a5 "t" 5c "xff" c4 03 92 01 80'),
        (Stored("t\\x5cxff", b"\x92\x01\x80", 1, None),),
    ),
    Fixture(
        "a tag with other backslashes is its own name",
        # PackedForward, tag of 6 bytes: "t", a backslash, "temp"
        wire('92 a6 "t" 5c "temp" c4 03 92 01 80'),
        (Stored("t\\temp", b"\x92\x01\x80", 1, None),),
    ),
    Fixture(
        "records hold every kind of value, and are passed on unchanged",
        wire(f'92 a1 "t"\n# str16 of 79\nda 00 4f\n{EVERY_KIND}'),
        delivered(wire(EVERY_KIND), 1),
    ),
]

WELL_FORMED = [*FLUENTD, *FLUENT_BIT, *LOGGERS, *PROTOCOL]
