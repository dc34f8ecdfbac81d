"""The command `send`: a file through the forward port, acked, as a forwarder would send it."""

import asyncio
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from ..addresses import parse_address
from ..config import Settings
from ..errors import ConfigInvalid, InputInvalid
from ..ingest.forward.client import UNIX, local_address
from ..ingest.forward.handshake import ClientCredentials
from ..ingest.security.tls import make_client_context
from ..runtime.announcements import forward_address
from .common.homes import require_default_home
from .common.options import home_options_of
from .common.progress import byte_progress
from .common.receiver import Receiver
from .common.rejection_count import RejectionCount
from .sending import Sending
from .sources.chunks import Chunk
from .sources.dry_run import show_instead_of_sending
from .sources.options import RecordOptions, record_options
from .sources.reading import Source, named_in_errors, open_source, report, say_what_is_understood

MAX_TAG_BYTES = 200

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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
        sending = Sending(
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


def _send_all(sending: Sending, batches: Iterator[list[Chunk]], opened: Source, tag: str) -> None:
    try:
        with byte_progress(f"{opened.name} → {tag}", total_bytes=opened.size_bytes) as progress:
            asyncio.run(sending.run(batches, progress))
    except InputInvalid as error:
        raise InputInvalid(f"{error}; {sending.before_the_break()}") from error
    except BaseException:
        click.echo(sending.summary(), err=True)
        raise
    click.echo(sending.summary(), err=True)


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


def _create_line(tag: str, *, options: Sequence[str], home: Path | None) -> str:
    """The command that makes a policy which takes `tag`, fit to be pasted into a shell."""
    reference = re.sub(r"[^A-Za-z0-9._-]+", "-", tag).strip(".-") or "mine"
    pattern = re.sub(r"([*{}\\])", r"\\\1", tag)
    words = ["windvane", "policy", "create", reference, "--tag", pattern, *options]
    return shlex.join([*words, "--home", str(home)] if home is not None else words)


def _check_tag(tag: str) -> None:
    size = len(tag.encode("utf-8", "surrogateescape"))
    if not 1 <= size <= MAX_TAG_BYTES or ":" in tag or not tag.isprintable():
        raise click.BadParameter(
            f"{tag!r} is not a valid tag: 1 to {MAX_TAG_BYTES} bytes without colons and control characters, "
            "for example turbine.t01.gearbox",
            param_hint="TAG",
        )
