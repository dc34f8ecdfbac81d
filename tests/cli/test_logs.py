"""The log says what happened, and nothing of what was sent."""

import asyncio
import errno
import gc
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import get_args

import pytest
from aiohttp import web
from windvane.commands.common.logs import configure_logging, log_formatter, say_lost_errors_in_words
from windvane.config import LogFormat
from windvane.errors import StoreFailed
from windvane.ingest.instrumentation import HandshakeFailed
from windvane.runtime.instrumentation import EVENT_ATTRIBUTE, Event


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root, server = logging.getLogger(), logging.getLogger("aiohttp.server")
    handlers, filters = root.handlers[:], server.filters[:]
    levels = {logger: logger.level for logger in (root, logging.getLogger("windvane"))}
    configure_logging("test", debug=False)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(log_formatter("test"))
    root.handlers[:] = [handler]
    yield written
    root.handlers[:], server.filters[:] = handlers, filters
    for logger, level in levels.items():
        logger.setLevel(level)


async def test_what_is_not_http_costs_one_line_without_its_bytes(log: io.StringIO) -> None:
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    secret = b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SECRET\x01\r\n\r\n"
    for sent in [secret] * 5 + [b"\x93\xa5voice" + b"SECRET" * 1000 + b"\r\n\r\n"] * 5:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(sent)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    await runner.cleanup()
    assert "SECRET" not in log.getvalue()
    assert "Traceback" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= 2
    assert "is it a forwarder?" in lines[0]


async def lose(error: Exception) -> None:
    """A task fails, and its exception is never retrieved."""

    async def fail() -> None:
        raise error

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()


async def test_an_error_that_no_task_took_is_one_line_if_it_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say_lost_errors_in_words(asyncio.get_running_loop())
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/x")
    except OSError as error:
        await lose(error)
    await lose(StoreFailed("x.sqlite: cannot commit; make room"))
    await lose(StoreFailed("x.sqlite: cannot commit; make room"))
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)] * 2
    assert caplog.messages == [
        "given up: [Errno 28] No space left on device: '/srv/x'",
        "given up: x.sqlite: cannot commit; make room",
    ]


async def test_a_mistake_in_the_program_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    say_lost_errors_in_words(asyncio.get_running_loop())
    await lose(KeyError("a mistake"))
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.levelname == "ERROR"


FAILED = HandshakeFailed(sender="10.0.0.7", cause="wrong key", detail="a\x1bb\nc")


def formatted(event: Event, log_format: LogFormat, *, has_colours: bool = False) -> str:
    record = logging.makeLogRecord({"name": "windvane.gateway", "levelno": logging.WARNING, "created": 1.5})
    record.levelname, record.msg = "WARNING", event.message()
    setattr(record, EVENT_ATTRIBUTE, event)
    return log_formatter("gateway", log_format=log_format, has_colours=has_colours).format(record)


def test_a_console_line_is_one_line_with_time_level_and_process() -> None:
    line = "1970-01-01T00:00:01.500Z WARNING gateway: rejected connection from 10.0.0.7: a\\x1bb | c"
    assert formatted(FAILED, "console") == line


def test_colours_are_not_part_of_the_text() -> None:
    coloured = formatted(FAILED, "console", has_colours=True)
    assert "\x1b[33mWARNING\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == formatted(FAILED, "console")


def test_a_json_line_has_the_code_and_the_fields_of_the_event() -> None:
    line = formatted(FAILED, "json")
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "warning",
        "process": "gateway",
        "logger": "windvane.gateway",
        "message": FAILED.message(),
        "event": "handshake-failed",
        "sender": "10.0.0.7",
        "cause": "wrong key",
        "detail": "a\x1bb\nc",
        "name": "",
    }


@pytest.mark.parametrize("log_format", get_args(LogFormat))
@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql+psycopg://wind:s3cret@db/catalog",
        "GET http://127.0.0.1:8080/live?token=s3cret&x=1",
        "headers: {'Authorization': 'Bearer s3cret'}",
    ],
)
def test_credentials_in_the_errors_of_dependencies_are_hidden(text: str, log_format: LogFormat) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.makeLogRecord({"msg": text, "levelname": "ERROR", "exc_info": sys.exc_info()})
    line = log_formatter("web", log_format=log_format).format(record)
    assert "s3cret" not in line
    assert line.count("…") + line.count("\\u2026") >= 2
