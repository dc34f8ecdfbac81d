"""The body of an inspection, and its states."""

import pytest
from windvane.documents import Content
from windvane.errors import DocumentInvalid, TransitionRejected
from windvane_inspection import INSPECTION

PLANNED = {"turbine": "T07", "planned_on": "2026-12-24"}


def test_a_body_is_stored_with_its_defaults() -> None:
    _, body = INSPECTION.checked("i1", "Gearbox", PLANNED)
    assert body == {**PLANNED, "inspector": "", "findings": []}


@pytest.mark.parametrize("wrong", [{"turbine": ""}, {"planned_on": "soon"}, {"colour": "red"}])
def test_a_wrong_body_is_rejected(wrong: dict[str, str]) -> None:
    with pytest.raises(DocumentInvalid):
        INSPECTION.checked("i1", "Gearbox", PLANNED | wrong)


def test_it_is_finished_before_it_is_closed() -> None:
    planned = Content("planned", "Gearbox", dict(PLANNED))
    with pytest.raises(TransitionRejected):
        INSPECTION.transition("close").result("i1", planned, None, 0)
    done = INSPECTION.transition("finish").result("i1", planned, None, 0)
    assert INSPECTION.transition("close").result("i1", done, None, 0).state == "closed"
