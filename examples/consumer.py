"""Reads a topic of results that Windvane publishes to Kafka, and prints each row or record once.

    windvane topics schema park..rows.features > rows.avsc
    python consumer.py --servers 10.0.0.5:9092 --topic windvane.park..rows.features --schema rows.avsc --csv

Needs aiokafka and fastavro, nothing of Windvane. What to take from here for a consumer of your own:

- A message is in Avro single-object encoding: C3 01, the fingerprint of its schema, the body.
- Rows (`first_row`) and events (`first_event`) have numbers, counted from 0 in each data array or stream.
  After a crash of the worker they are published again, with the same numbers. A consumer that keeps the next
  number, in one transaction with its results, and drops lower ones, gets each row once.
- The numbers of one stream rise from message to message. A number above the next one is a gap: the topic's
  retention was quicker than the consumer, or publishing was off for a while. The rows are in the store then.
"""

import argparse
import asyncio
import csv
import io
import json
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import aiokafka
import fastavro
from aiokafka.errors import KafkaError
from fastavro.schema import fingerprint, to_parsing_canonical_form


class Item(NamedTuple):
    """A row or a record, with its number and its time in ns since 1970."""

    stream: str
    number: int
    time_ns: int
    content: Any
    columns: list[str]


class Seen:
    """Which number comes next, for each data array and data stream; in a file, if one is given."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next: dict[str, int] = json.loads(file.read_text()) if file and file.exists() else {}
        self.repeated = 0

    def first_new(self, name: str, first: int, count: int) -> int:
        """How many of the items from `first` were seen before; from now on all of them count as seen."""
        expected = self._next.get(name, first)
        if first > expected:
            print(f"{name}: {expected} to {first - 1} are missing on the topic", file=sys.stderr)
        known = min(max(expected - first, 0), count)
        self.repeated += known
        self._next[name] = max(expected, first + count)
        return known

    def save(self) -> None:
        """Keep it, whole or not at all."""
        if self._file is not None:
            draft = self._file.with_suffix(".new")
            draft.write_text(json.dumps(self._next))
            draft.replace(self._file)


class Decoder:
    """Messages of one schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        canonical = to_parsing_canonical_form(schema)
        self._prefix = b"\xc3\x01" + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
        # Times stay numbers: Python's datetime has no nanoseconds.
        self._schema = fastavro.parse_schema(json.loads(canonical))

    def decode(self, message: bytes) -> dict[str, Any]:
        """The record in a message. ValueError if it has another schema than the given one."""
        if not message.startswith(self._prefix):
            raise ValueError(
                f"a message begins with {message[:10].hex()}, the schema with {self._prefix.hex()}"
            )
        value: Any = fastavro.schemaless_reader(io.BytesIO(message[10:]), self._schema, None)
        return dict(value)


def new_items(message: dict[str, Any], seen: Seen) -> Iterator[Item]:
    """What of a message was not seen before."""
    if "first_event" in message:
        first, events = message["first_event"], message["events"]
        known = seen.first_new(f"{message['stream']} {message['archive'].hex()}", first, len(events))
        for i in range(known, len(events)):
            yield Item(message["stream"], first + i, events[i]["time"], events[i]["record"], [])
        return
    first, times = message["first_row"], message["times"]
    name = f"{message['stream']}:{message['output']} {message['array'].hex()}"
    width = len(message["values"]) // len(times)
    for i in range(seen.first_new(name, first, len(times)), len(times)):
        row = message["values"][i * width : (i + 1) * width]
        yield Item(f"{message['stream']}:{message['output']}", first + i, times[i], row, message["columns"])


class Printer:
    """One line an item, as text or as CSV with a heading."""

    def __init__(self, output: TextIO, *, as_csv: bool) -> None:
        self._output = output
        self._csv = csv.writer(output, lineterminator="\n") if as_csv else None
        self._has_heading = False

    def print(self, item: Item) -> None:
        """Records stand as JSON; bytes in them as Latin-1, one character a byte."""
        if isinstance(item.content, list):
            values = [repr(value) for value in item.content]
        else:
            values = [json.dumps(item.content, default=lambda value: value.decode("latin-1"))]
        seconds, ns = divmod(item.time_ns, 10**9)
        time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"
        line = [item.stream, str(item.number), time, *values]
        if self._csv is None:
            print(*line, file=self._output)
            return
        if not self._has_heading:
            names = item.columns or [f"value{i}" for i in range(len(values))]
            self._csv.writerow(["stream", "number", "time", *names])
            self._has_heading = True
        self._csv.writerow(line)


def security(arguments: argparse.Namespace) -> dict[str, Any]:
    """What aiokafka wants to know to get into the cluster."""
    options: dict[str, Any] = {}
    if arguments.tls:
        options["ssl_context"] = ssl.create_default_context(cafile=arguments.ca_file)
    if arguments.user:
        password = Path(arguments.password_file).read_text().strip()
        options.update(sasl_mechanism="SCRAM-SHA-512", sasl_plain_username=arguments.user)
        options.update(sasl_plain_password=password)
    protocol = ("SASL_" if arguments.user else "") + ("SSL" if arguments.tls else "PLAINTEXT")
    return {**options, "security_protocol": protocol}


async def consume(arguments: argparse.Namespace) -> None:
    """Reads until the requested number of items is printed, or forever."""
    decoder = Decoder(json.loads(arguments.schema.read_text()))
    seen = Seen(arguments.seen)
    printer = Printer(sys.stdout, as_csv=arguments.csv)
    consumer = aiokafka.AIOKafkaConsumer(
        arguments.topic,
        bootstrap_servers=arguments.servers,
        group_id=arguments.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **security(arguments),
    )
    printed = 0
    try:
        await consumer.start()
        while arguments.count is None or printed < arguments.count:
            for messages in (await consumer.getmany(timeout_ms=1000)).values():
                for message in messages:
                    for item in new_items(decoder.decode(message.value), seen):
                        printer.print(item)
                        printed += 1
            sys.stdout.flush()
            # First what was seen, then how far was read. What was printed before a crash and not saved yet is
            # printed again: a consumer that stores rows saves the numbers with them, in one transaction.
            seen.save()
            if arguments.group:
                await consumer.commit()
    finally:
        await consumer.stop()
        print(f"{printed} printed, {seen.repeated} repeated ones dropped", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", required=True, help="HOST:PORT,… of the cluster")
    parser.add_argument("--topic", required=True, help="as Kafka calls it: windvane.POLICY..rows.STEP")
    parser.add_argument("--schema", required=True, type=Path, help="what `windvane topics schema` prints")
    parser.add_argument("--csv", action="store_true", help="with a heading and commas")
    parser.add_argument("--count", type=int, help="stop after so many rows or records")
    parser.add_argument("--group", help="a consumer group, whose offsets are kept by Kafka; needs --seen")
    parser.add_argument("--seen", type=Path, help="a file that keeps the numbers seen")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--ca-file", help="of the cluster, where the system does not know it")
    parser.add_argument("--user", help="for SASL (SCRAM-SHA-512)")
    parser.add_argument("--password-file")
    arguments = parser.parse_args()
    if arguments.group and not arguments.seen:
        parser.error("--group needs --seen: without it a restart would forget which numbers were seen")
    return arguments


def main() -> None:
    """Ends with one line where a file or the cluster is not there, or the schema is another one."""
    try:
        asyncio.run(consume(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, KafkaError) as error:
        sys.exit(f"{error}; see --servers, --topic and --schema")


if __name__ == "__main__":
    main()
