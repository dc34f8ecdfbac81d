"""Alarms as documents: the worker raises them, users acknowledge, comment on, shelve and clear them."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from ....errors import DocumentInvalid
from .. import alarms
from ..document_type import Content, DocumentType, Transition

_NS_PER_S = 1_000_000_000


class AlarmAction(msgspec.Struct, forbid_unknown_fields=True):
    """What a user does to an alarm: who, and a text."""

    by: str
    text: str = ""


class AlarmShelving(AlarmAction, forbid_unknown_fields=True):
    """The same, and how long: `for_s` seconds from now, or `until` (RFC 3339)."""

    for_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def until_ns(self, now_ns: int) -> int:
        """When the shelving ends, in ns since the epoch. Raises DocumentInvalid, AlarmShelvedTooLong."""
        if (self.for_s is None) == (self.until is None):
            raise DocumentInvalid(
                "Say how long: either for_s, in seconds, or until, as 2030-01-01T08:00:00Z."
            )
        if self.until is not None:
            return int(self.until.timestamp()) * _NS_PER_S + self.until.microsecond * 1000
        assert self.for_s is not None
        return alarms.shelf_end_ns(self.for_s, now_ns=now_ns)


AlarmBody = msgspec.defstruct(
    "AlarmBody",
    [
        (field.name, field.type, msgspec.field(default=field.default))
        if field.default is not msgspec.NODEFAULT
        else (field.name, field.type)
        for field in msgspec.structs.fields(alarms.Alarm)
        if field.name not in ("reference", "state")
    ],
    namespace={"__doc__": "An alarm with its evidence and history; reference and state are its document's."},
    kw_only=True,
)


def _by_hand(
    action: Callable[..., alarms.Alarm],
) -> Callable[[str, Content, Any, int], Content]:
    def apply(reference: str, content: Content, asked: Any, now_ns: int) -> Content:
        alarm = alarms.from_body(reference, content.state, content.body)
        more = {"until_ns": asked.until_ns(now_ns)} if isinstance(asked, AlarmShelving) else {}
        return content_of(action(alarm, by=asked.by, text=asked.text, now_ns=now_ns, **more))

    return apply


def content_of(alarm: alarms.Alarm) -> Content:
    """The content of an alarm's document."""
    return Content(alarm.state, alarm.title, alarms.to_body(alarm))


def _transition(
    name: str, action: Callable[..., alarms.Alarm], summary: str, arguments: type[AlarmAction] = AlarmAction
) -> Transition:
    # Each action checks itself in which states it is allowed, and raises the errors of alarms.
    return Transition(
        name,
        sources=alarms.STATES,
        target=None,
        roles=("operator", "author", "admin"),
        arguments=arguments,
        apply=_by_hand(action),
        summary=summary,
    )


TYPE = DocumentType(
    name="alarm",
    body=AlarmBody,
    states=alarms.STATES,
    initial_state="raised",
    transitions=(
        _transition("acknowledge", alarms.acknowledge, "Acknowledge the alarm."),
        _transition("comment", alarms.comment, "Add a comment to the history."),
        _transition("shelve", alarms.shelve, "Shelve the alarm for a time.", AlarmShelving),
        _transition("unshelve", alarms.unshelve, "Return a shelved alarm before its time."),
        _transition("clear", alarms.clear, "Clear the alarm."),
    ),
    # An alarm has a history of its own.
    revisions_kept=0,
    edits=(),
    list_command="windvane alarm list",
)
