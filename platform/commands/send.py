"""The command `send`: a file through the forward port, acked, as a forwarder would send it."""

import asyncio
import re
import shlex
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from ..addresses import parse_address
from ..config import Settings
from ..errors import ConfigInvalid, InputInvalid
from ..ingest.forward.client import UNIX, ClientStatistics, ForwardClient, local_address, new_chunk_id
from ..ingest.forward.handshake import ClientCredentials
from ..ingest.security.tls import make_client_context
from ..records.tag_names import stream_name
from ..runtime.announcements import forward_address
from .common.homes import require_default_home
from .common.options import home_options_of
from .common.progress import ByteProgress, amount, byte_progress, plural
from .common.receiver import Receiver
from .common.rejection_count import RejectionCount
from .sources.chunks import Chunk
from .sources.dry_run import show_instead_of_sending
from .sources.options import RecordOptions, record_options
from .sources.reading import Source, named_in_errors, open_source, report, say_what_is_understood

ACK_TIMEOUT_S = 3.0
MAX_ACK_TIMEOUT_S = 6.0
LOOK_S = 0.5
SAY_AGAIN_S = 30.0
MAX_TAG_BYTES = 200
BATCHES_AHEAD = 4

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# As msgpack, the first byte of "HTTP/1.1 400 Bad Request" is a small integer.
_ANSWER_OF_A_WEB_SERVER = f"the answer {ord('H')} is not an ack"


@click.command(short_help="Send a file through the forward port.")
@click.argument("tag", metavar="TAG")
@click.argument("source", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--to",
    metavar="HOST:PORT|unix:PATH",
    help="Forward port, or socket.  [default: that of the gateway of this home]",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "lines", "csv", "jsonl"]),
    default="raw",
    show_default=True,
    help="What the file holds.",
)
@click.option(
    "--chunk-bytes",
    type=click.IntRange(1, 16 * 1024 * 1024),
    default=65536,
    show_default=True,
    metavar="N",
    help="Size of a piece and of its chunk (raw); size at which a chunk is full (the others).",
)
@record_options
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--shared-key-file", type=_FILE, metavar="FILE", help="Holds the receiver's shared key.")
@click.option("--user", metavar="NAME", help="User name, if the receiver has users.")
@click.option("--password-file", type=_FILE, metavar="FILE", help="Holds the user's password.")
@click.option("--tls", is_flag=True, help="Use TLS; the receiver's certificate is verified.")
@click.option("--tls-ca", type=_FILE, metavar="FILE", help="CA certificates (PEM); implies --tls.")
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Client certificate (PEM); implies --tls.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key.  [default: in the same file]")
@home_options_of(if_missing="ignore")
@click.pass_context
def send(
    context: click.Context,
    settings: Settings,
    tag: str,
    source: str,
    to: str | None,
    format_: str,
    chunk_bytes: int,
    record_options: RecordOptions,
    dry_run: bool,
    shared_key_file: Path | None,
    user: str | None,
    password_file: Path | None,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Send FILE, or standard input, with the tag TAG; ends when everything is acked.

    Chunks that are not acked are resent, also after a restart of the gateway, and are stored once.

    \b
    raw    bytes, cut into records {"message": piece} of at most N bytes, each a chunk of its own
    lines  a record {"message": line} for each line
    csv    a record for each row, its names from the first line
    jsonl  a record for each line, which is a JSON object

    Cells may be separated by commas, semicolons, tabs or pipes. A column becomes numbers only if each of its
    cells is a number that can be given back: `00042`, `61e95` and numbers of too many digits stay text. An
    empty cell is null, or empty text in a column of text. What was understood is printed before anything is
    sent; --dry-run shows the first records. A file is read twice; of a pipe the first rows decide, and a
    later cell that does not fit its column is sent as text.

    A time in --time-field is RFC 3339, or seconds since 1970 (from 10^11 on milliseconds, and so on), or a
    date such as 20260101. Lines that are not what the format says are left out; then the exit code is 1, and
    the last message has their number and the first of them.

    The key and the password are read from files, since every user can see a command line. The gateway of this
    home needs neither: if its port requires them, its socket is used.

    \b
    Examples:
      windvane send voice recording.wav --format raw --chunk-bytes 2048
      windvane send turbine.t01.scada scada.csv --format csv --time-field time
      windvane send turbine.t01.scada scada.csv --format csv --time-field time --dry-run
      windvane send orders export.csv --format csv --type id=text --type paid=bool --encoding cp1252
      journalctl -f -o json | windvane send journal - --format jsonl
      windvane send voice a.wav --to park.example:24224 --tls-ca ca.pem --shared-key-file key
    """
    _check_tag(tag)
    if to is not None and not to.startswith(UNIX):
        parse_address(to)
    credentials = _credentials(shared_key_file, user, password_file)
    secure = None
    if tls or tls_ca or tls_cert:
        secure = make_client_context(ca=tls_ca, cert=tls_cert, key=tls_key)

    options = record_options.of(format_)
    opened = open_source(source)
    if dry_run:
        with opened.file, named_in_errors(source):
            reading = say_what_is_understood(opened, format_, chunk_bytes, options)
            show_instead_of_sending(reading)
            report(reading)
        return

    if to is None:
        require_default_home(settings)
    receiver = Receiver(settings, to)

    def address() -> str:
        port = receiver.address()
        return port if to or credentials or secure else local_address(settings, port)

    with opened.file, named_in_errors(source):
        audio = format_ == "raw" and Path(source).suffix.lower() in (".wav", ".wave")
        sending = _Sending(
            tag,
            address,
            receiver=receiver,
            rejected=RejectionCount(receiver.run_dir),
            forward_here=partial(forward_address, settings),
            create_line=_create_line(
                tag,
                options=["--preset", "audio"] if audio else ["--format", "raw"] if format_ == "raw" else [],
                home=receiver.other_home or context.params["home"],
            ),
            credentials=credentials,
            tls=secure,
        )
        reading = say_what_is_understood(opened, format_, chunk_bytes, options)
        _send_all(sending, reading.batches, opened, tag)
        report(reading)


def _send_all(sending: "_Sending", batches: Iterator[list[Chunk]], opened: Source, tag: str) -> None:
    try:
        with byte_progress(f"{opened.name} → {tag}", total_bytes=opened.size_bytes) as progress:
            asyncio.run(sending.run(batches, progress))
    except InputInvalid as error:
        raise InputInvalid(f"{error}; {sending.before_the_break()}") from error
    except BaseException:
        click.echo(sending.summary(), err=True)
        raise
    click.echo(sending.summary(), err=True)


class _Sending:
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
        async for batch in _in_a_thread(batches):
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


def _credentials(
    shared_key_file: Path | None, user: str | None, password_file: Path | None
) -> ClientCredentials | None:
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file go together")
    if shared_key_file is None and user is None:
        return None
    return ClientCredentials(
        shared_key=b"" if shared_key_file is None else _secret(shared_key_file),
        user=user or "",
        password=b"" if password_file is None else _secret(password_file),
        hostname=socket.gethostname(),
    )


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}") from None


async def _in_a_thread(batches: Iterator[list[Chunk]]) -> AsyncIterator[list[Chunk]]:
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


def _create_line(tag: str, *, options: Sequence[str], home: Path | None) -> str:
    """The command that makes a policy which takes `tag`, fit to be pasted into a shell."""
    reference = re.sub(r"[^A-Za-z0-9._-]+", "-", tag).strip(".-") or "mine"
    pattern = re.sub(r"([*{}\\])", r"\\\1", tag)
    words = ["windvane", "policy", "create", reference, "--tag", pattern, *options]
    return shlex.join([*words, "--home", str(home)] if home is not None else words)


def _named(tag: str) -> str:
    """The tag, and the reference of its data stream if that is another."""
    stream = stream_name(tag.encode())
    return tag if stream == tag else f"{tag} (the data stream has the reference '{stream}')"


def _check_tag(tag: str) -> None:
    size = len(tag.encode("utf-8", "surrogateescape"))
    if not 1 <= size <= MAX_TAG_BYTES or ":" in tag or not tag.isprintable():
        raise click.BadParameter(
            f"{tag!r} is not a valid tag: 1 to {MAX_TAG_BYTES} bytes without colons and control characters, "
            "for example turbine.t01.gearbox",
            param_hint="TAG",
        )
