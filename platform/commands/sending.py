"""One run of `windvane send`: sends the chunks of a file, and reports why nothing is acked."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

from ..errors import InputInvalid
from ..ingest.forward.client import UNIX, ClientStatistics, ForwardClient
from ..ingest.forward.client_messages import new_chunk_id
from ..ingest.forward.handshake import ClientCredentials
from ..records.tag_names import stream_name
from .common.progress import ByteProgress, amount, plural
from .common.receiver import Receiver
from .common.rejection_count import RejectionCount
from .sources.chunks import Chunk

ACK_TIMEOUT_S = 3.0
MAX_ACK_TIMEOUT_S = 6.0
LOOK_S = 0.5
SAY_AGAIN_S = 30.0
BATCHES_AHEAD = 4

# As msgpack, the first byte of "HTTP/1.1 400 Bad Request" is a small integer.
_ANSWER_OF_A_WEB_SERVER = f"the answer {ord('H')} is not an ack"


class Sending:
    """One run of `send`: feeds the client, and says what is wrong while nothing is acked."""

    def __init__(
        self,
        tag: str,
        address: Callable[[], str],
        *,
        receiver: Receiver,
        rejected: RejectionCount,
        forward_here: Callable[[], str],
        create_line: str,
        credentials: ClientCredentials | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tag = tag
        self._address = address
        self._receiver = receiver
        self._rejected = rejected
        self._forward_here = forward_here
        self._create_line = create_line
        self._credentials = credentials
        self._tls = tls
        self._whole = False
        self._began_s = time.monotonic()
        self._sent_chunks = 0
        self._acked_bytes = 0
        self._statistics: ClientStatistics | None = None

    async def run(self, batches: Iterator[list[Chunk]], progress: ByteProgress) -> None:
        """Send all batches and wait for the acks; `InputInvalid` is raised when what came before is acked."""
        client = ForwardClient(
            self._address,
            credentials=self._credentials,
            tls=self._tls,
            ack_timeout_s=ACK_TIMEOUT_S,
            max_ack_timeout_s=MAX_ACK_TIMEOUT_S,
        )
        invalid: InputInvalid | None = None
        async with client:
            explaining = asyncio.create_task(self._explain(client, progress))
            try:
                try:
                    await self._feed(client, batches, progress)
                except InputInvalid as error:
                    invalid = error
                await client.drain()
                await self._rejected.ask()
            finally:
                self._statistics = client.statistics()
                explaining.cancel()
        if invalid is not None:
            raise invalid
        self._whole = True

    async def _feed(
        self, client: ForwardClient, batches: Iterator[list[Chunk]], progress: ByteProgress
    ) -> None:
        async for batch in _in_thread(batches):
            for chunk in batch:
                name = new_chunk_id()
                acked = await client.send(self._tag, chunk.payload, events=chunk.events, chunk_id=name)
                self._sent_chunks += 1
                acked.add_done_callback(partial(self._count, chunk, name, progress))
            await self._rejected.ask_if_many()

    def _count(
        self, chunk: Chunk, chunk_id: str, progress: ByteProgress, acked: asyncio.Future[None]
    ) -> None:
        if not acked.cancelled():
            self._rejected.acked(chunk_id, chunk.events)
            self._acked_bytes += chunk.source_bytes
            progress.update(self._acked_bytes)

    async def _explain(self, client: ForwardClient, progress: ByteProgress) -> None:
        said: str | None = None
        said_at_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            statistics = client.statistics()
            trouble = None
            if statistics.not_let_in:
                trouble = f"{statistics.problem}; see --shared-key-file, --user and --tls-ca"
            elif statistics.problem is not None and _ANSWER_OF_A_WEB_SERVER in statistics.problem:
                trouble = (
                    f"{self._address()} answers like a web server; the forward port is {self._forward_here()}"
                )
            elif statistics.problem is not None and (
                shut := await asyncio.to_thread(self._receiver.why_shut)
            ):
                trouble = f"{statistics.problem}; {shut}"
            elif statistics.problem is not None and " lost: " in statistics.problem and self._perhaps_tls():
                trouble = f"{statistics.problem}{self._perhaps_tls()}; the log of the gateway says more"
            elif statistics.problem is not None:
                trouble = (
                    f"{statistics.problem}; does the gateway run? `windvane up` starts it. "
                    "If it uses TLS, give --tls-ca"
                )
            elif statistics.silent_s > ACK_TIMEOUT_S:
                trouble = (
                    f"connected, but no ack for {statistics.silent_s:.0f} s; perhaps no policy matches "
                    f"{self._tag}: see `windvane policy list`, or create one with `{self._create_line}`; "
                    f"the log of the gateway says more{self._perhaps_tls()}"
                )
            kind = trouble and trouble[:20]
            if trouble is not None and (kind != said or time.monotonic() - said_at_s > SAY_AGAIN_S):
                progress.say(f"windvane: {trouble}. Retrying; Ctrl-C stops it.")
                said_at_s = time.monotonic()
            said = kind

    def _perhaps_tls(self) -> str:
        plain = self._tls is None and not self._address().startswith(UNIX)
        return ". Perhaps the port accepts TLS only: then give --tls, or --tls-ca with its CA" * plain

    def before_the_break(self) -> str:
        """What was sent of a file that is invalid from some line on."""
        stored = self._statistics.acked_events if self._statistics is not None else 0
        if stored == 0:
            return "nothing was sent"
        return (
            f"{plural(stored, 'event')} before it {'is' if stored == 1 else 'are'} stored, "
            "the rest was not sent"
        )

    def summary(self) -> str:
        """One line about what was sent and acked."""
        seconds = time.monotonic() - self._began_s
        done = self._statistics
        if done is None:
            return "nothing was sent"
        acked = f"{plural(done.acked_events, 'event')}, {amount(self._acked_bytes)}"
        rate = f"{seconds:.1f} s, {amount(self._acked_bytes / seconds)}/s"
        if done.acked_chunks == self._sent_chunks and not self._whole:
            what = f"acked {acked} in {plural(done.acked_chunks, 'chunk')}; the rest was not sent"
        elif done.acked_chunks == self._sent_chunks:
            what = f"sent {acked} in {plural(done.acked_chunks, 'chunk')}, all acked"
        else:
            missing = plural(self._sent_chunks - done.acked_chunks, "chunk")
            what = f"acked {acked}; {missing} not acked, so perhaps not stored"
        if rejected := sum(self._rejected.by_code.values()):
            codes = ", ".join(self._rejected.by_code)
            home = self._receiver.other_home
            see = "windvane dead-letter list" + (f" --home {home}" if home is not None else "")
            what += f", of which {plural(rejected, 'event')} rejected ({codes}; see `{see}`)"
        again = f"; {plural(done.resent_chunks, 'chunk')} resent" if done.resent_chunks else ""
        return f"{what}{again}; {_named(self._tag)} at {self._address()}{self._receiver.named()}, {rate}"


async def _in_thread(batches: Iterator[list[Chunk]]) -> AsyncIterator[list[Chunk]]:
    """Iterate in a thread, so that blocking reads do not block the event loop.

    A daemon thread, not one of a pool: a read of a terminal or pipe cannot be interrupted, and the process
    must not wait for it at the end.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[Chunk] | BaseException | None] = asyncio.Queue(BATCHES_AHEAD)

    def put(item: list[Chunk] | BaseException | None) -> None:
        if not loop.is_closed():
            asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=work, name="send-reader", daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _named(tag: str) -> str:
    """The tag, and the reference of its data stream if that is another."""
    stream = stream_name(tag.encode())
    return tag if stream == tag else f"{tag} (the data stream has the reference '{stream}')"
