"""`windvane alarm`: lists, details, and the actions of operators."""

import asyncio
import json
from pathlib import Path

import pytest
from windvane.bus.messages.alarms import ALARMS_SCHEMA
from windvane.config import Settings
from windvane.store.catalog.alarm_book import AlarmBook
from windvane.store.catalog.catalog import Catalog

from tests.cli.conftest import Run
from tests.store.catalog.test_alarms import REFERENCE, event


@pytest.fixture
def alarmed(home: Path) -> None:
    """A home with an alarm that is open, and another that is not."""

    async def record() -> None:
        catalog = await Catalog.open(Settings(home=home).catalog_url)
        book = AlarmBook(catalog)
        await book.record(
            event(
                0,
                "raised",
                1,
                warning=6.0,
                danger=10.0,
                leading="rms",
                rul_s=7200.0,
                contributions=[
                    {"column": "rms", "value": 3.0, "usual": 1.0, "spread": 0.1, "deviation": 20.0}
                ],
                evidence=[{"array": "turbine.1:spectrum", "first": 7, "count": 3}],
            )
        )
        other = "b:condition:01234567:1"
        await book.record(event(0, "raised", 2, alarm=other, stream="b", row=1))
        await book.record(event(1, "cleared", 0, alarm=other, stream="b", row=1))
        await catalog.close()

    asyncio.run(record())


@pytest.mark.usefixtures("alarmed")
def test_what_is_open_is_listed_and_all_of_it_shown(run: Run) -> None:
    [line] = run("alarm", "list").stdout.splitlines()
    assert line.split("\t")[:3] == [REFERENCE, "warning", "raised"]
    [line] = run("alarm", "list", "--state", "cleared").stdout.splitlines()
    assert line.split("\t")[:3] == ["b:condition:01234567:1", "danger", "cleared"]
    assert len(run("alarm", "list", "--state", "all").stdout.splitlines()) == 2
    assert run("alarm", "list", "--stream", "c").stdout == ""
    shown = run("alarm", "show", REFERENCE).stdout
    assert "row 41 of turbine.1:condition" in shown
    assert "7.5 (warning 6, danger 10)" in shown
    assert "2.0 h of running" in shown
    assert "+20.0 spreads" in shown
    assert "turbine.1:spectrum[7:10]" in shown


@pytest.mark.usefixtures("alarmed")
def test_operators_acknowledge_comment_shelve_and_clear(run: Run) -> None:
    assert run("alarm", "acknowledge", REFERENCE, "--by", "ada").stdout == f"{REFERENCE} is acknowledged\n"
    run("alarm", "comment", REFERENCE, "--by", "ada", "--text", "outer\x1brace")
    assert run("alarm", "shelve", REFERENCE, "--for", "8h").stdout.endswith("is shelved\n")
    assert "shelved until 2" in run("alarm", "show", REFERENCE).stdout
    assert run("alarm", "unshelve", REFERENCE).stdout.endswith("is acknowledged\n")
    assert run("alarm", "clear", REFERENCE, "--text", "done").stdout.endswith("is cleared\n")
    history = run("alarm", "show", REFERENCE).stdout.partition("history")[2]
    assert "commented by ada: outer\ufffdrace" in history
    assert "done" in history


@pytest.mark.usefixtures("alarmed")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["unshelve", REFERENCE], 1, "is raised, not shelved"),
        (["comment", REFERENCE], 1, "a comment without a text"),
        (["show", "t:x:1:2"], 1, "there is no alarm"),
        (["shelve", REFERENCE, "--for", "soon"], 2, "write it as 90s, 30m, 8h or 7d"),
        (["shelve", REFERENCE, "--for", "366d"], 1, "shelved for a year at most"),
        (["shelve", REFERENCE, "--for", "9" * 400 + "d"], 1, "shelved for a year at most"),
        (["shelve", REFERENCE], 2, "--for"),
    ],
)
def test_mistakes_are_said_in_a_line(run: Run, arguments: list[str], exit_code: int, says: str) -> None:
    output = run("alarm", *arguments, exit_code=exit_code).output
    assert says in output.replace('"', "").replace("'", "") or says in output
    assert "Traceback" not in output


def test_the_topic_of_alarms_is_listed_and_its_schema_printed(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text(
        '[[policy]]\nreference = "p"\n[[policy.pipeline]]\noperation = "fields"\n'
        '[[policy.alarm]]\noutput = "fields"\ncolumn = "kw"\ndanger = 1\n'
    )
    run("apply", str(policy))
    assert "p..alarms\talarms\tnot made yet" in run("topics", "list").stdout
    assert json.loads(run("topics", "schema", "p..alarms").stdout) == ALARMS_SCHEMA
    assert "p..alarms" in run("topics", "apply").stdout
