"""`windvane document`: documents of any type by the same commands."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from windvane.store.catalog.document_type import DocumentType, register, unregister
from windvane.web.answers import DocumentInfo

from tests.cli.conftest import Run


class Machine(msgspec.Struct):
    maker: str


@pytest.fixture
def machine() -> Iterator[DocumentType]:
    yield register(DocumentType(name="machine", body=Machine, states=("draft",)))
    unregister("machine")


def test_a_document_is_put_listed_shown_changed_and_deleted(run: Run, tmp_path: Path) -> None:
    body = tmp_path / "voice.json"
    body.write_text(json.dumps({"format": "raw"}))
    assert "ID 1, published" in run("document", "put", "policy", "voice", "--file", str(body)).stdout
    run("document", "put", "policy", "1", "--title", "Voices")
    shown = json.loads(run("document", "show", "policy", "1").stdout)
    assert (shown["reference"], shown["title"], shown["body"]["format"]) == ("voice", "Voices", "raw")
    run("document", "clone", "policy", "voice", "voice2")
    assert "voice is draft" in run("document", "transition", "policy", "voice", "withdraw").stdout
    lines = run("document", "list", "policy", "-q", "voi%", "--state", "draft").stdout.splitlines()
    assert [line.split("\t")[:3] for line in lines] == [["1", "voice", "draft"], ["2", "voice2", "draft"]]
    run("document", "delete", "policy", "voice")
    assert "there is no policy" in run("document", "show", "policy", "voice", exit_code=1).output


def test_mistakes_are_named(run: Run, tmp_path: Path) -> None:
    body = tmp_path / "voice.toml"
    body.write_text('pipeline = [{ operation = "nonsense" }]')
    wrong = run("document", "put", "policy", "voice", "--file", str(body), exit_code=1)
    assert "nonsense" in wrong.output
    body.write_text("format = raw")
    assert "line 1" in run("document", "put", "policy", "voice", "--file", str(body), exit_code=1).output
    assert "there are alarm" in run("document", "list", "polcy", exit_code=1).output
    body.write_text("")
    run("document", "put", "policy", "voice", "--file", str(body))
    assert "publish, withdraw" in run("document", "transition", "policy", "voice", "x", exit_code=1).output
    wrong = run("document", "transition", "policy", "voice", "withdraw", "-a", "by=ada", exit_code=1)
    assert "its arguments are: none" in wrong.output


def test_a_document_is_shown_as_the_api_gives_it(run: Run, tmp_path: Path) -> None:
    body = tmp_path / "voice.json"
    body.write_text("{}")
    run("document", "put", "policy", "voice", "--file", str(body))
    shown = json.loads(run("document", "show", "policy", "voice").stdout)
    assert shown.keys() == {field.name for field in msgspec.structs.fields(DocumentInfo)}
    assert shown["created"].endswith("Z")


def test_a_reference_that_is_not_allowed_is_a_mistake_in_the_command(
    run: Run, tmp_path: Path, machine: DocumentType
) -> None:
    body = tmp_path / "machine.json"
    body.write_text('{"maker": "Vent"}')
    for reference in ("", "..", "123", "a\nb", "x" * 501):
        wrong = run("document", "put", "machine", reference, "--file", str(body), exit_code=2)
        assert "reference" in wrong.output
    run("document", "put", "machine", "m", "--file", str(body))
    assert "numeric ID" in run("document", "clone", "machine", "m", "123", exit_code=2).output


def test_a_state_that_does_not_exist_names_those_that_do(run: Run) -> None:
    wrong = run("document", "list", "policy", "--state", "alive", exit_code=1)
    assert "there are: draft, published" in wrong.output


def test_the_types_are_listed(run: Run) -> None:
    assert "policy\tdraft published\tpublish withdraw" in run("document", "types").stdout
