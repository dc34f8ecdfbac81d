"""The log says what happened, and nothing of what was sent."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web
from windvane.commands.logs import LineFormatter, configure_logging


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root, server = logging.getLogger(), logging.getLogger("aiohttp.server")
    handlers, level, filters = root.handlers[:], root.level, server.filters[:]
    configure_logging("test", debug=False)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter("test"))
    root.handlers[:] = [handler]
    yield written
    root.handlers[:], server.filters[:] = handlers, filters
    root.setLevel(level)


async def test_what_is_no_http_costs_one_line_without_its_bytes(log: io.StringIO) -> None:
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
