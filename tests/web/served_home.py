"""The fixtures of the web tier's tests: a home with a store, a catalog and dead letters, and its client."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request
from numpy.typing import NDArray
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.interfaces import DeadLetters
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.store import Store
from yarl import URL

from tests.store.files.resumed import resumed

TOKEN = "correct-horse-battery-staple"
Client: TypeAlias = TestClient[Request, Application]
StartClient: TypeAlias = Callable[..., Awaitable[Client]]


@dataclass
class Home:
    """The data that the application serves."""

    path: Path
    store: Store
    catalog: Catalog
    dead_letters: DeadLetters
    opened: AsyncExitStack

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    @property
    def ui(self) -> Path:
        return self.path / "dist"

    def stream(
        self, reference: str, *chunks: bytes, attrs: Mapping[str, Any] | None = None
    ) -> DataStreamWriter:
        """A stream of these chunks, the first of which arrived at 1 s, the next at 2 s, and so on."""
        writer = resumed(
            self.store.stream_writer(reference, attrs=attrs or {"tag": reference, "policy": "any"})
        )
        self.opened.callback(writer.close)
        for number, chunk in enumerate(chunks, start=1):
            writer.append(chunk, arrived_ns=number * 1_000_000_000, chunk_id=None, events=2)
        return writer

    def array(
        self, reference: str, rows: NDArray[Any], *, attrs: Mapping[str, Any] | None = None
    ) -> DataArrayWriter:
        """An array of these rows; row i has the event time i * 1,000 ns."""
        writer = resumed(
            self.store.array_writer(reference, dtype=rows.dtype, row_shape=rows.shape[1:], attrs=attrs or {})
        )
        self.opened.callback(writer.close)
        append(writer, rows)
        return writer


def append(writer: DataArrayWriter, rows: NDArray[Any]) -> None:
    first = writer.length
    writer.append(rows, np.arange(first, first + len(rows), dtype=np.int64) * 1_000)


async def problem(answer: ClientResponse, status: int) -> dict[str, Any]:
    """The members of the problem that the response must contain."""
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"
    members: dict[str, Any] = await answer.json(content_type=None)
    assert members["status"] == status
    assert members["title"]
    assert members["detail"]
    assert members["type"]
    return members


def quoted(reference: str) -> str:
    """A reference, quoted for a URL."""
    return quote(reference, safe="")


def following(answer: ClientResponse) -> str:
    """The target of a page's Link header; "" on the last page."""
    link = answer.links.get("next")
    return str(URL(link["url"]).relative()) if link is not None else ""


def build_interface(home: Home) -> None:
    """A small example of the output of a build of the interface."""
    (home.ui / "assets").mkdir(parents=True)
    (home.ui / "index.html").write_text("<!doctype html><title>Windvane</title>")
    (home.ui / "assets" / "main-abc123.js").write_text("export {}")
