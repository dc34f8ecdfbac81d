"""What the gateway remembers of chunks with rejected events, for their senders to ask."""

import pytest
from windvane.ingest import rejections
from windvane.ingest.chunk import IncomingChunk, RejectedEvents
from windvane.ingest.rejections import MAX_ID_BYTES, Rejection, Rejections


def chunk(chunk_id: bytes | None, *, is_replay: bool = False) -> IncomingChunk:
    return IncomingChunk(sender="10.0.0.7", tag="t", payload=b"", chunk_id=chunk_id, is_replay=is_replay)


def test_a_later_try_of_a_chunk_replaces_what_was_known_of_it() -> None:
    known = Rejections()
    known.note(chunk(b"a"), "malformed")
    known.note(chunk(b"b"), "schema", events=3)
    assert known.of(["a", "b", "c"]) == {"a": Rejection("malformed", None), "b": Rejection("schema", 3)}
    some = RejectedEvents("schema", "why", 2, b"")
    known.note_part(chunk(b"a"), [some, RejectedEvents("bad-time", "why", 1, b""), some])
    for chunk_id in (b"b", b"never", None):
        known.note_part(chunk(chunk_id), [])
    assert known.of(["a", "b"]) == {"a": Rejection("schema, bad-time", 5)}


def test_the_oldest_are_forgotten_and_long_ids_and_replays_are_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rejections, "REMEMBERED_REJECTIONS", 2)
    known = Rejections()
    for chunk_id in (b"a", b"b", b"a", b"c"):
        known.note(chunk(chunk_id), "schema", events=1)
    known.note(chunk(b"x" * (MAX_ID_BYTES + 1)), "schema")
    known.note(chunk(None), "schema")
    known.note(chunk(b"replayed", is_replay=True), "schema")
    assert sorted(known.of(["a", "b", "c", "x" * (MAX_ID_BYTES + 1), "replayed", "\ud800"])) == ["a", "c"]
