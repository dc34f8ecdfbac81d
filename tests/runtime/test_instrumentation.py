"""An event is one description of a fact: its log line, its counters and its fields."""

import logging

import pytest
from prometheus_client import generate_latest
from windvane.ingest.instrumentation import ChunkStored, HandshakeFailed
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.processors.worker.pipeline.instrumentation import ChunkProcessed
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.runtime.instrumentation import Event, EventLog, LogLine
from windvane.runtime.telemetry import Telemetry

FAILED = HandshakeFailed(sender="10.0.0.7", cause="wrong key", detail="it has another shared key")


def samples(telemetry: Telemetry) -> list[str]:
    page = generate_latest(telemetry.registry).decode()
    return [line for line in page.splitlines() if not line.startswith("#")]


def test_an_event_logs_its_line_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = GatewayTelemetry()
    for _ in range(3):
        telemetry.emit(FAILED)
    assert caplog.messages == ["rejected connection from 10.0.0.7: it has another shared key"]
    assert "windvane_gateway_handshakes_failed_total 3.0" in samples(telemetry)


def test_the_log_says_how_many_lines_were_suppressed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(logging.getLogger("windvane.test"))
    for _ in range(3):
        log.emit(FAILED)
    monkeypatch.setattr("windvane.runtime.rate_limited_log.REPEAT_S", 0.0)  # a minute later
    log.emit(FAILED)
    assert caplog.messages[-1].endswith("(2 more like it suppressed)")


def test_the_hot_path_of_the_gateway_counts_what_the_event_declares() -> None:
    by_event, by_hand = GatewayTelemetry(), GatewayTelemetry()
    by_event.emit(ChunkStored(events=3, payload_bytes=100))
    by_hand.chunk_stored(events=3, size=100)
    assert samples(by_event) == samples(by_hand)
    assert "windvane_gateway_bytes_total 100.0" in samples(by_hand)


def test_the_hot_path_of_the_worker_counts_what_the_event_declares() -> None:
    by_event, by_hand = WorkerTelemetry(), WorkerTelemetry()
    by_event.emit(ChunkProcessed(events=3, payload_bytes=100))
    by_hand.chunk_stored(events=3, size=100)
    assert samples(by_event) == samples(by_hand)
    assert "windvane_worker_bytes_total 100.0" in samples(by_hand)


class Odd(Event, frozen=True):
    """A line with a tag that looks like a template."""

    line = LogLine(logging.WARNING, "tag {tag!r:.9}", key=("tag",))

    tag: str


def test_a_value_is_never_a_template(caplog: pytest.LogCaptureFixture) -> None:
    EventLog(logging.getLogger("windvane.test")).emit(Odd("{0.x} %s"))
    assert caplog.messages == ["tag '{0.x} %s"]
