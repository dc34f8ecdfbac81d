"""What a worker reports about alarms: each event with its log line."""

import logging

from ...runtime.instrumentation import Event, LogLine


class AlarmsDelayed(Event, frozen=True):
    """Alarms wait in the outbox, since the catalog cannot be written now."""

    line = LogLine(logging.WARNING, "alarms wait to be recorded: {reason}", key=())

    reason: str


class AlarmNotRecorded(Event, frozen=True):
    """An alarm is not valid and is skipped."""

    line = LogLine(logging.WARNING, "an alarm cannot be recorded, and is left out: {reason}", key=())

    reason: str


class RuleNotApplicable(Event, frozen=True):
    """The output of a policy has no column that one of its alarm rules names."""

    line = LogLine(
        logging.WARNING,
        "policy {policy!r}: the rule {rule!r} judges column {column!r} of {output!r}, which has {columns}; "
        "it raises no alarms",
        key=("policy", "rule"),
    )

    policy: str
    rule: str
    column: str
    output: str
    columns: str


class EvidenceNotRead(Event, frozen=True):
    """The evidence of an alarm cannot be read; the alarm is raised without it."""

    line = LogLine(logging.WARNING, "{alarm}: no evidence: {reason}", key=("stream",))

    stream: str
    alarm: str
    reason: str


class WebhookDelayed(Event, frozen=True):
    """The deliveries of the alarm webhook cannot be read from the catalog or the queue now."""

    line = LogLine(logging.WARNING, "the webhook of alarms waits: {reason}", key=())

    reason: str


class DeliveryDelayed(Event, frozen=True):
    """A delivery failed and is retried after a pause."""

    line = LogLine(logging.WARNING, "the webhook of alarms is retried in {pause_s:.1f} s: {reason}", key=())

    pause_s: float
    reason: str


class DeliveryGivenUp(Event, frozen=True):
    """The receiver rejected a delivery too often; it is not retried."""

    line = LogLine(
        logging.ERROR,
        "delivery {delivery} of alarm {alarm!r} is given up: the webhook has rejected it {rejections} times, "
        "{reason}",
    )

    delivery: str
    alarm: str
    rejections: int
    reason: str


class DeliveriesGivenUp(Event, frozen=True):
    """Too many deliveries wait; the oldest are not delivered."""

    line = LogLine(
        logging.ERROR,
        "the webhook of alarms is {limit} deliveries behind: the oldest {number} are given up",
    )

    limit: int
    number: int


class AlarmDocumentInvalid(Event, frozen=True):
    """A document of the catalog is filed as an alarm and is not a valid one; it is skipped."""

    line = LogLine(logging.WARNING, "{document!r} is not a valid alarm: {reason}", key=("document",))

    document: str
    reason: str
