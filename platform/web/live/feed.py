"""The live feed: rows of data arrays over a WebSocket as they are written (`frames.py` has the format).

One poller looks at the lengths of the arrays that clients watch (a read of mapped memory each) and wakes
the connections that have rows to get. Each connection takes the rows out of the store when its client can
take them: nothing is queued, a slow client costs one frame and the socket's buffer. `frames.Pace` says what
it gets. Arrays that do not exist cost the poller nothing: `ArrayFinder` finds them.
"""

import asyncio
import logging
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from ...errors import RangeGone
from ...store.interface import StoreEngine
from ..instrumentation import LivePollFailed, RowsSent
from ..json_input import NestedTooDeeply, decode_json
from ..pages import json_bytes
from ..route import API, Answer, Messages, route
from ..telemetry import WebTelemetry
from . import frames
from .array_lookup import ArrayFinder, WatchedArray
from .masked_websocket import MaskedWebSocket
from .subscriptions import LiveLimits, Subscription, Watched, read_frame, row_size_bytes

logger = logging.getLogger(__name__)

BUSIEST_SHARE = 0.2
"""The poller pauses so long that it takes at most this share of the event loop's time."""


_MESSAGES = Messages(
    from_client=(frames.Subscribe, frames.Unsubscribe),
    to_client=(frames.Subscribed, frames.Waiting, frames.Rejected),
    binary="Rows, little endian: u32 id, u32 count, u64 first_row, u32 step, u32 row_bytes, u64 length, then "
    "count int64 event times in ns since the epoch, then count rows.",
)


class LiveFeed:
    """All live connections of one web tier, and the one poller that wakes them."""

    def __init__(self, store: StoreEngine, telemetry: WebTelemetry, limits: LiveLimits) -> None:
        self.telemetry = telemetry
        self.limits = limits
        self._watched: dict[str, Watched] = {}
        self._present: set[Watched] = set()
        self._subscriptions = 0
        self._finder = ArrayFinder(
            store,
            telemetry,
            round_s=limits.look_again_s,
            watched=self._watched.values,
            found=self._found,
        )
        self._connections: weakref.WeakSet[LiveConnection] = weakref.WeakSet()
        self._anybody = asyncio.Event()

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application: the feed runs as long as the application does."""
        async with self._finder.running():
            poller = asyncio.create_task(self._poll())
            yield
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller

    async def close(self, _app: web.Application) -> None:
        """A shutdown signal of the application: tells clients to reconnect later."""
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))

    @route(
        "GET",
        f"{API}/live",
        tag="live",
        answers=[Answer(HTTPStatus.SWITCHING_PROTOCOLS, "The WebSocket.")],
        problems={HTTPStatus.BAD_REQUEST: "The request does not ask for a WebSocket."},
        messages=_MESSAGES,
    )
    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Get rows of data arrays as they are written, over a WebSocket."""
        websocket = MaskedWebSocket(
            heartbeat=self.limits.heartbeat_s,
            timeout=self.limits.goodbye_s,
            max_msg_size=self.limits.max_message_bytes,
            compress=False,
        )
        await websocket.prepare(request)
        _bound_send_buffer(request, self.limits.send_buffer_bytes)
        connection = LiveConnection(self, websocket)
        self._connections.add(connection)
        self.telemetry.connected(+1)
        try:
            await connection.run()
        finally:
            self.telemetry.connected(-1)
        return websocket

    def admits(self, *, held: int) -> bool:
        """Whether a connection that has `held` subscriptions may have another one."""
        limits = self.limits
        crowded = self._subscriptions >= limits.max_subscriptions_in_all
        return held < min(
            limits.max_subscriptions, limits.guaranteed_subscriptions if crowded else limits.max_subscriptions
        )

    async def watch(self, subscription: Subscription) -> Watched:
        """Adds a subscription; its array is looked up before this returns. Cancelled, it adds nothing."""
        reference = subscription.asked.array
        watched = self._watched.setdefault(reference, Watched(reference))
        watched.subscriptions.add(subscription)
        self._subscriptions += 1
        self.telemetry.subscribed(+1)
        try:
            if watched.array is None:
                await self._finder.look(watched)
        except BaseException:
            self.unwatch(watched, subscription)
            raise
        return watched

    def unwatch(self, watched: Watched, subscription: Subscription) -> None:
        """Removes a subscription; the array is let go with the last one."""
        watched.subscriptions.discard(subscription)
        self._subscriptions -= 1
        self.telemetry.subscribed(-1)
        if not watched.subscriptions:
            if self._watched.get(watched.reference) is watched:
                del self._watched[watched.reference]
            self._present.discard(watched)
        if not self._present:
            self._anybody.clear()

    def _found(self, watched: WatchedArray) -> None:
        assert isinstance(watched, Watched)
        if watched.subscriptions:
            self._present.add(watched)
            self._anybody.set()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self.limits.poll_interval_s
        while True:
            await self._anybody.wait()
            await asyncio.sleep(pause_s)
            began_s = loop.time()
            try:
                for watched in self._present:
                    self._wake(watched)
            except Exception as error:  # an error of one array must not end the whole feed
                self.telemetry.emit(LivePollFailed(repr(error)))
            pause_s = max(self.limits.poll_interval_s, (loop.time() - began_s) * (1 / BUSIEST_SHARE - 1))

    def _wake(self, watched: Watched) -> None:
        assert watched.array is not None
        length = len(watched.array)
        for subscription in watched.subscriptions:
            if subscription.announced is not watched.array or (subscription.next_row or 0) < length:
                subscription.wake(subscription.asked.id)


class LiveConnection:
    """One WebSocket."""

    def __init__(self, feed: LiveFeed, websocket: web.WebSocketResponse) -> None:
        self._due: dict[int, None] = {}
        self._any_due = asyncio.Event()
        self._feed = feed
        self._websocket = websocket
        self._subscriptions: dict[int, tuple[Subscription, Watched]] = {}

    def wake(self, subscription: int) -> None:
        """The subscription of this id may have something to send."""
        self._due[subscription] = None
        self._any_due.set()

    async def run(self) -> None:
        """Serves the connection until it ends."""
        sender = asyncio.create_task(self._send())
        try:
            async for message in self._websocket:
                if message.type is WSMsgType.TEXT:
                    await self._receive(message.data)
                elif message.type is WSMsgType.ERROR:  # it is closed, with the reason
                    break
                else:
                    await self._tell(frames.Rejected(None, "Not understood", "Send JSON text, not binary."))
        except ConnectionError:
            pass
        finally:
            # Nothing is awaited before the counts are right: this task may be cancelled a second time.
            sender.cancel()
            for subscription, watched in self._subscriptions.values():
                self._feed.unwatch(watched, subscription)
            self._subscriptions.clear()
            await asyncio.wait([sender])

    async def close(self) -> None:
        """Says goodbye; a client that does not take it in time is cut off by the server's shutdown."""
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(
                self._websocket.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends"),
                self._feed.limits.goodbye_s,
            )

    async def _receive(self, text: str) -> None:
        try:
            message = decode_json(text, frames.decode_message)
        except NestedTooDeeply as error:
            await self._websocket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode())
            return
        except msgspec.MsgspecError as error:
            try:
                number = _id_in(text)
            except NestedTooDeeply as deep:
                await self._websocket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(deep).encode())
                return
            await self._tell(frames.Rejected(number, "Not understood", str(error)))
            return
        if isinstance(message, frames.Unsubscribe):
            ended = self._subscriptions.pop(message.id, None)
            if ended is not None:
                self._feed.unwatch(ended[1], ended[0])
        elif message.id in self._subscriptions:
            detail = f"{message.id} is in use; unsubscribe it first or take another number."
            await self._tell(frames.Rejected(message.id, "Id in use", detail))
        elif not self._feed.admits(held=len(self._subscriptions)):
            limits = self._feed.limits
            detail = (
                f"A connection has at most {limits.max_subscriptions}, and {limits.guaranteed_subscriptions} "
                f"while all connections together have {limits.max_subscriptions_in_all}; unsubscribe some."
            )
            await self._tell(frames.Rejected(message.id, "Too many subscriptions", detail))
        else:
            subscription = Subscription(message, self.wake)
            watched = await self._feed.watch(subscription)
            if watched.array is not None:
                subscription.begin_in(watched.array)
            self._subscriptions[message.id] = subscription, watched
            self.wake(message.id)

    async def _send(self) -> None:
        try:
            while True:
                await self._any_due.wait()
                self._any_due.clear()
                due, self._due = self._due, {}
                for number in due:
                    entry = self._subscriptions.get(number)
                    if entry is not None and await self._serve(*entry):
                        self.wake(number)
                # Nothing above yields while the client takes everything; others want their turn.
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        except Exception:
            logger.exception("a live connection met an error and is closed")
            await self._websocket.close(code=WSCloseCode.INTERNAL_ERROR)

    async def _serve(self, subscription: Subscription, watched: Watched) -> bool:
        """Sends at most one frame; says whether there was one to send."""
        array = watched.array
        if array is None:
            if not subscription.told_waiting:
                subscription.told_waiting = True
                await self._tell(frames.Waiting(subscription.asked.id))
            return False
        if subscription.announced is not array:
            await self._tell(subscription.announce(array, self._feed.limits))
        assert subscription.pace is not None
        assert subscription.next_row is not None
        length = len(array)
        now_s = asyncio.get_running_loop().time()
        selected = subscription.pace.choose(next_row=subscription.next_row, length=length, now_s=now_s)
        if not selected:
            return False
        spanned_bytes = (selected[-1] + 1 - selected.start) * row_size_bytes(array)
        arguments = (subscription.asked.id, array, selected, length)
        try:
            if spanned_bytes > self._feed.limits.inline_bytes:
                frame, count = await asyncio.to_thread(read_frame, *arguments)
            else:
                frame, count = read_frame(*arguments)
        except RangeGone:  # dropped since it was chosen: the next frame's first_row shows the gap
            subscription.next_row = max(array.start, subscription.next_row + 1)
            return True
        if count == 0 or self._subscriptions.get(subscription.asked.id) != (subscription, watched):
            return False
        await self._websocket.send_bytes(frame)
        last = selected[count - 1]
        self._feed.telemetry.emit(RowsSent(count, skipped=last + 1 - subscription.next_row - count))
        subscription.next_row = last + 1
        return True

    async def _tell(self, message: msgspec.Struct) -> None:
        await self._websocket.send_str(json_bytes(message).decode())


def _id_in(text: str) -> int | None:
    """The id of a message that could not be understood, if it has one."""
    try:
        found = decode_json(text, msgspec.json.decode)
    except msgspec.DecodeError:
        return None
    number = found.get("id") if isinstance(found, dict) else None
    return number if isinstance(number, int) else None


def _bound_send_buffer(request: web.Request, size_bytes: int) -> None:
    """Bounds the kernel's buffer: rows in it are late on arrival, and can no longer be thinned out."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is not None:
        with suppress(OSError, AttributeError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)
