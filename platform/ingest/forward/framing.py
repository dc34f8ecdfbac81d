"""From bytes to forward messages: an incremental parser that does no I/O.

The socket writes into `MessageReader.writable()` and passes the number of bytes to `received(n)`;
`messages()` then yields the complete messages. Payloads are slices of the receive buffer, never copied or
re-encoded. An incomplete message is the normal case; the parser resumes at the position where it stopped, and
the way in which the bytes were divided on the network makes no difference.

Messages (fluent/forward-protocol-v1, "Message Modes"; a string may be typed str or bin everywhere):

    [tag, payload str|bin, option?]          PackedForward, CompressedPackedForward
    [tag, [[time, record], …], option?]      Forward
    [tag, time, record, option?]             Message
    nil                                      heartbeat

After a FramingError the connection is of no use: nothing says where the next message would begin.
"""

import re
from collections.abc import Iterator
from typing import Unpack

import msgpack

from ...errors import FramingError
from ..checks.deep_values import DeepWalk
from ..checks.payload import begins_with_pair
from .heads import ARRAYS, NIL, PAIR, STRINGS, array_header, string_at
from .message import MAX_OPTION_BYTES, ForwardOptions, Message, parse_options

MAX_TAG_BYTES = 1024
FIRST_BUFFER_BYTES = 4096  # of a connection that has not shown yet how fast it sends
ROOMY_BUFFER_BYTES = 128 * 1024  # of one whose reads fill what they are given
FREE_BYTES = 32 * 1024  # of an incomplete message; no budget counts them
_SLACK_BYTES = 4096  # after a payload whose end is known: room for its option and the next message's head


class MessageReader:
    """The receive buffer of one connection and the parser over it.

    Memory: `max_message_bytes` of one incomplete PackedForward message and what one read adds; four times
    that where the end must be found by walking (the buffer grows by doubling, the walker keeps a copy).
    `settle` says how much of it there is, `compact` gives back what is not needed; at rest it is 4 KiB.
    Payloads that were yielded keep their buffer alive for as long as the caller keeps them.
    """

    def __init__(self, *, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray(FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._roomy = FIRST_BUFFER_BYTES  # the least that a new buffer has
        self._head = 0  # first byte of the message that is being parsed
        self._tail = 0  # behind the last received byte
        self._need = 0  # no use in parsing before this much has come; 0 where nothing is known
        self._lent = False  # slices of this buffer were yielded: its bytes must stay as they are
        self._last_message_bytes = 0
        # msgpack's C parser walks over the events; it can stop and resume at any byte. A message that arrives
        # byte by byte costs no more than one that arrives at once.
        self._walker: msgpack.Unpacker | None = None
        self._walker_base = 0  # buffer position of the walker's offset 0
        self._walker_fed = 0  # buffer position up to which the walker has the bytes
        self._walked_ends: list[int] | None = None  # ends of the elements walked so far behind the tag
        self._deep_walk: DeepWalk | None = None  # over what is too deep for the walker

    @property
    def pending(self) -> memoryview:
        """The bytes of the message that is not complete, or not well-formed."""
        return self._view[self._head : self._tail]

    @property
    def pending_bytes(self) -> int:
        """How many they are."""
        return self._tail - self._head

    def writable(self) -> memoryview:
        """Where the next bytes go; at least one byte long."""
        pending = self._tail - self._head
        expected = max(self._roomy, self._last_message_bytes + _SLACK_BYTES)
        if not pending and not self._lent:
            self._move(self._buffer if len(self._buffer) >= expected else bytearray(expected))
            return self._view
        room = len(self._buffer) - self._tail
        if self._need > len(self._buffer) and (self._lent or not room):
            # Not all that a header announces at once: memory follows what came, of this message or the last.
            self._move(bytearray(min(self._need - self._head, self._shown) + _SLACK_BYTES))
        elif room < _SLACK_BYTES and (self._lent or not room):
            fits = not self._lent and max(expected, 2 * pending) <= len(self._buffer)
            self._move(self._buffer if fits else bytearray(max(expected, 2 * pending)))
        return self._view[self._tail :]

    @property
    def _shown(self) -> int:
        """A size that a message may be trusted to have, by what came of it, and of the last."""
        return max(self._roomy, self._last_message_bytes + _SLACK_BYTES, 4 * self.pending_bytes)

    def _move(self, buffer: bytearray) -> None:
        """The pending bytes go to the front of `buffer`."""
        shift, pending = self._head, self._tail - self._head
        if pending:
            buffer[:pending] = self._view[self._head : self._tail]
            self._need = max(0, self._need - shift)
        if buffer is not self._buffer:
            self._buffer, self._view, self._lent = buffer, memoryview(buffer), False
        self._head, self._tail = 0, pending
        self._walker_base -= shift
        self._walker_fed -= shift
        if self._walked_ends:
            self._walked_ends = [end - shift for end in self._walked_ends]

    def received(self, size: int) -> None:
        """`size` bytes were written into what `writable` gave."""
        self._tail += size
        if self._tail == len(self._buffer) and self._roomy < ROOMY_BUFFER_BYTES:
            self._roomy = min(4 * self._roomy, ROOMY_BUFFER_BYTES)

    def settle(self) -> int:
        """To be called after `messages`: gives back a large buffer that holds nothing any more.

        Returns how many bytes of memory the incomplete message has, or gets with the next read; 0 where they
        are few.
        """
        pending = self._tail - self._head
        if not pending:
            if len(self._buffer) > ROOMY_BUFFER_BYTES:
                self._move(bytearray(FIRST_BUFFER_BYTES))
            return 0
        held = pending
        if len(self._buffer) > ROOMY_BUFFER_BYTES:
            held = len(self._buffer)
        if self._need > len(self._buffer) and (self._lent or self._tail == len(self._buffer)):
            # What it announced and has not begun to send takes no memory, so it must not take others' either.
            held = max(held, min(self._need - self._head, self._shown))
        if held <= FREE_BYTES:
            return 0
        return held if self._walker is None else held + pending

    def compact(self) -> None:
        """Gives back all memory that the pending bytes do not need, as for a connection that rests."""
        pending = self._tail - self._head
        self._roomy = FIRST_BUFFER_BYTES
        self._last_message_bytes = 0
        if not pending:
            self._walker = self._walked_ends = None
        if len(self._buffer) > 2 * pending + FIRST_BUFFER_BYTES:
            self._move(bytearray(pending + FIRST_BUFFER_BYTES))

    @property
    def has_more(self) -> bool:
        """`messages` stopped so that others get their turn: it is to be called again, though nothing came."""
        return self._deep_walk is not None and self._deep_walk.has_more

    @property
    def knows_the_end(self) -> bool:
        """The incomplete message has said how long it is."""
        return self._need > 0

    def consume(self, size: int) -> None:
        """Drops the first `size` pending bytes, which another parser has read."""
        self._head += size

    def messages(self) -> Iterator[Message]:
        """Yields complete messages in order. Raises FramingError if the bytes are not forward protocol."""
        while self._head < self._tail and self._need <= self._tail:
            if self._buffer[self._head] == NIL:
                heartbeats = _NILS.match(self._buffer, self._head, self._tail)
                assert heartbeats is not None
                self._head = heartbeats.end()
                continue
            message = self._next()
            if message is None:
                break
            yield message
        if self._tail - self._head > self._max_message_bytes and not self.has_more:
            raise self._too_large(self._tail - self._head)

    def _too_large(self, size: int) -> FramingError:
        return FramingError(
            f"a message of {size} bytes or more is over the limit of {self._max_message_bytes}; "
            "send smaller chunks, or raise gateway.max_message_bytes"
        )

    def _next(self) -> Message | None:
        """The message at the head; None if it is incomplete."""
        buffer, tail = self._buffer, self._tail
        array = array_header(buffer, self._head, tail)
        if array is None:
            return None
        arity, tag_at = array
        tag = string_at(buffer, tag_at, tail)
        if tag is None:
            return None
        tag_start, body = tag
        if body - tag_start > MAX_TAG_BYTES:
            raise FramingError(f"a tag of {body - tag_start} bytes is over the limit of {MAX_TAG_BYTES}")
        if body >= tail:
            return None
        kind = buffer[body]
        if kind in STRINGS:
            mode, least, most = "PackedForward", 2, 3
        elif kind in ARRAYS:
            mode, least, most = "Forward", 2, 3
        else:
            mode, least, most = "Message", 3, 4
        if not least <= arity <= most:
            raise FramingError(
                f"a message in {mode} mode has {least} or {most} elements, this one {arity}; check the sender"
            )
        if mode == "PackedForward":
            return self._packed(tag_start, body, has_option=arity == most)
        return self._walked(
            tag_start, body, kind, has_option=arity == most, in_message_mode=mode == "Message"
        )

    def _packed(self, tag_start: int, body: int, *, has_option: bool) -> Message | None:
        payload = string_at(self._buffer, body, self._tail)
        if payload is None:
            return None
        start, stop = payload
        if stop - self._head > self._max_message_bytes:
            raise self._too_large(stop - self._head)
        self._need = stop + has_option
        if self._tail < self._need:
            return None
        end = stop
        if has_option:
            walker = msgpack.Unpacker()
            walker.feed(self._view[stop : min(self._tail, stop + MAX_OPTION_BYTES)])
            try:
                is_whole = _skip(walker)
            except msgpack.StackError:
                raise _option_too_deep() from None
            if not is_whole:
                if self._tail - stop >= MAX_OPTION_BYTES:
                    raise FramingError(f"a message's option is over the limit of {MAX_OPTION_BYTES} bytes")
                return None
            end = stop + walker.tell()
        self._lent = True
        return self._finish(tag_start, body, self._view[start:stop], None, self._view[stop:end], end)

    def _walked(
        self, tag_start: int, body: int, kind: int, *, has_option: bool, in_message_mode: bool
    ) -> Message | None:
        if self._deep_walk is not None and not self._walk_deep():
            return None
        walker = self._walker_behind_tag()
        ends = self._walked_ends
        assert ends is not None
        parts = 2 if in_message_mode else 1
        while len(ends) < parts + has_option:
            try:
                if not _skip(walker):
                    return None
            except msgpack.StackError:
                if len(ends) == parts:
                    raise _option_too_deep() from None
                if not self._walk_around(ends[-1] if ends else body):
                    return None
                assert self._walker is not None
                walker = self._walker
                continue
            ends.append(self._walker_base + walker.tell())
        self._walked_ends = None
        option = self._view[ends[parts - 1] : ends[-1]]
        if not in_message_mode:
            header = array_header(self._buffer, body, self._tail)
            assert header is not None
            count, entries = header
            self._lent = True
            payload = self._view[entries : ends[0]]
            # The events were just walked over. If the first is not a pair, the check of the chunk reports it.
            events = count if not count or begins_with_pair(payload) else None
            return self._finish(
                tag_start, body, payload, events, option, ends[-1], size_hint=count, compression="text"
            )
        event = PAIR + self._buffer[body : ends[1]]
        head = self._head
        message = self._finish(tag_start, body, event, 1, option, ends[-1], compression="text")
        if "chunk_id" not in message.options:
            self._join_run(message, bytes(self._buffer[head : body + 1]), bytes(option), walker)
        return message

    def _walk_around(self, start: int) -> bool:
        """Whether the value at `start`, which is too deep for the walker, has come to its end.

        Of an array its elements are walked over one by one: one deep event is not to slow down the others.
        """
        header = array_header(self._buffer, start, self._tail) if self._buffer[start] in ARRAYS else None
        count, first = header or (1, start)
        self._deep_walk, self._walker = DeepWalk(first - self._head, count), None
        return self._walk_deep()

    def _walk_deep(self) -> bool:
        walk, ends = self._deep_walk, self._walked_ends
        assert walk is not None
        assert ends is not None
        if not walk.walk(self.pending):
            return False
        end = self._head + walk.position
        ends.append(end)
        self._deep_walk, self._walker = None, _new_walker()
        self._walker_base = self._walker_fed = end
        self._walker_behind_tag()
        return True

    def _walker_behind_tag(self) -> msgpack.Unpacker:
        walker = self._walker
        if walker is None or (self._walked_ends is None and self._walker_base + walker.tell() != self._head):
            self._walker = walker = _new_walker()
            self._walker_base = self._walker_fed = self._head
            self._walked_ends = None
        if self._walker_fed < self._tail:
            walker.feed(self._view[self._walker_fed : self._tail])
            self._walker_fed = self._tail
        if self._walked_ends is None:
            walker.read_array_header()
            walker.skip()
            self._walked_ends = []
        return walker

    def _join_run(self, message: Message, begin: bytes, option: bytes, walker: msgpack.Unpacker) -> None:
        """Message mode comes as long runs of small messages: those that ask for no ack become one chunk.

        `begin` is what the first has up to the first byte of its time, `option` what is behind its record.
        Whatever differs in one of them ends the run, as the end of what was received does.
        """
        buffer, view, tail, base = self._buffer, self._view, self._tail, self._walker_base
        skip, tell = walker.skip, walker.tell
        before_time = len(begin) - 1
        events: list[bytes | memoryview] = [message.payload]
        end = self._head
        try:
            while buffer.startswith(begin, end, tail):
                start = end + before_time
                if not option:
                    skip()
                    end = base + tell()
                    events.append(view[start:end])
                    continue
                walker.read_array_header()
                skip()
                skip()
                skip()
                stop = base + tell()
                if not buffer.startswith(option, stop, tail):
                    raise ValueError("another option")
                skip()
                end = stop + len(option)
                events.append(view[start:stop])
        except (msgpack.OutOfData, ValueError):
            # Incomplete, broken or different: a new walker, from this message's first byte on, tells which.
            self._walker = None
        self._head = end
        message.options.pop("size_hint", None)  # of each alone
        if len(events) > 1:
            message.payload, message.events = PAIR.join(events), len(events)
            message.is_run = True

    def _finish(
        self,
        tag_start: int,
        body: int,
        payload: bytes | memoryview,
        events: int | None,
        option: memoryview,
        end: int,
        **known: Unpack[ForwardOptions],
    ) -> Message:
        """The message that ends at `end`; what is `known` counts instead of the same options."""
        tag = bytes(self._view[tag_start:body])
        # If the option is broken the message stays pending: its bytes are kept as what broke.
        options = parse_options(option) if option else ForwardOptions()
        options.update(known)
        self._last_message_bytes = end - self._head
        self._head, self._need = end, 0
        return Message(tag, payload, events, options)


_NILS = re.compile(rb"\xc0+")
_UNBOUNDED_BY_MSGPACK = 0x7FFFFFFF  # the reader bounds what it feeds


def _new_walker() -> msgpack.Unpacker:
    return msgpack.Unpacker(read_size=ROOMY_BUFFER_BYTES, max_buffer_size=_UNBOUNDED_BY_MSGPACK)


def _skip(walker: msgpack.Unpacker) -> bool:
    """Walks over one value; False if it is incomplete. Raises StackError if it is nested too deeply."""
    try:
        walker.skip()
    except msgpack.OutOfData:
        return False
    except msgpack.StackError:
        raise
    except ValueError as error:
        reason = str(error) or type(error).__name__
        raise FramingError(f"the message is not well-formed msgpack ({reason}); check the sender") from error
    return True


def _option_too_deep() -> FramingError:
    return FramingError("a message's option is nested too deeply; check the sender")
