import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run


def show(run: Run, reference: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(run("policy", "show", reference).stdout)
    return body


def test_a_created_policy_is_shown_listed_and_deleted(run: Run) -> None:
    created = run(
        "policy", "create", "scada", "--tag", "turbine.*.scada", "--tag", "met.mast", "--title", "SCADA"
    )
    assert created.stdout.startswith(
        "created policy scada: tags turbine.*.scada, met.mast; format json; pipeline (none)"
    )
    body = show(run, "scada")
    assert (body["tags"], body["title"]) == (["turbine.*.scada", "met.mast"], "SCADA")
    assert run("policy", "list").stdout == "scada\tturbine.*.scada met.mast\tjson\t\tSCADA\n"
    assert run("ls", "policies").stdout == run("policy", "list").stdout
    assert "streams and arrays stay" in run("policy", "delete", "scada").stdout
    assert run("policy", "list").stdout == ""


def test_flags_win_over_the_file_and_the_file_over_the_preset(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        'title = "of the file"\ntags = ["of.the.file"]\n[[pipeline]]\noperation = "spectrum"\nlength = 512\n'
    )
    run("policy", "create", "mine", "--preset", "audio", "--file", str(file), "--title", "of the flag")
    body = show(run, "mine")
    assert (body["title"], body["tags"], body["format"]) == ("of the flag", ["of.the.file"], "raw")
    lengths = [step["length"] for step in body["pipeline"] if step["operation"] == "spectrum"]
    assert lengths == [512]
    assert body["pipeline"][0]["operation"] == "wav"


def test_what_is_created_says_how_to_send_to_it(run: Run, home: Path) -> None:
    voice = run("policy", "create", "voice", "--preset", "audio").stdout
    assert "try it: windvane send voice FILE --format raw\n" in voice
    logs = run("policy", "create", "app", "--tag", "app.**", "--preset", "logs", "--home", str(home)).stdout
    assert (
        f"try it: windvane send TAG FILE --format lines --home {home}   (TAG: one that app.** matches)"
        in logs
    )


def test_an_existing_policy_is_replaced_only_on_request(run: Run) -> None:
    run("policy", "create", "p", "--title", "first")
    assert "give --replace" in run("policy", "create", "p", "--title", "second", exit_code=1).stderr
    assert show(run, "p")["title"] == "first"
    assert run("policy", "create", "p", "--title", "second", "--replace").stdout.startswith(
        "changed policy p"
    )
    assert show(run, "p")["title"] == "second"


def test_what_show_prints_can_be_applied_again(run: Run, tmp_path: Path) -> None:
    run("policy", "create", "p", "--preset", "sensors", "--title", "grün")
    body = show(run, "p")
    file = tmp_path / "p.json"
    file.write_text(json.dumps(body))
    assert run("apply", str(file)).stdout.split()[:2] == ["unchanged", "p:"]
    run("policy", "delete", "p")
    assert run("apply", str(file)).stdout.split()[:2] == ["created", "p:"]
    assert show(run, "p") == body


def test_apply_says_what_was_created_changed_and_left_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    table = '[[policy]]\nreference = "{}"\ntitle = "{}"\npreset = "logs"\n'
    file.write_text(table.format("a", "1") + table.format("b", "1"))
    run("apply", str(file))
    file.write_text(table.format("a", "1") + table.format("b", "2") + table.format("c", "1"))
    lines = run("apply", str(file)).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["unchanged", "a:"], ["changed", "b:"], ["created", "c:"]]
    assert show(run, "b")["title"] == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[policy]]\nreference = "ok"\n[[policy]]\nreference = "bad"\ncolour = 1\n', "colour"),
        ('[[policy]]\nreference = "ok"\n[[policy]]\nreference = "ok"\n', "keep one"),
        ('[[policy]]\nreference = "ok"\npreset = "video"\n', "video"),
        ('[[policy]]\nreference = "ok"\n[[policy.pipeline]]\noperation = "spectrum"\n', "spectrum"),
        ('[[policy]]\nreference = "ok"\n[[policy.pipeline]]\noperation = "spectre"\n', "spectrum"),
        ('title = "x"\n[[policy]]\nreference = "ok"\n', "`title` is outside [[policy]]"),
        ("[[policy]\n", "is not valid TOML"),
        ("", "holds no policy"),
    ],
)
def test_where_one_policy_is_invalid_none_is_applied(
    run: Run, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(text)
    rejected = run("apply", str(file), exit_code=1).stderr
    assert rejected.startswith("windvane: ")
    assert str(file) in rejected
    assert message in rejected
    assert run("policy", "list").stdout == ""


def test_a_file_for_create_holds_one_policy_and_that_one(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('reference = "other"\n')
    assert (
        "holds the policy 'other', not 'p'"
        in run("policy", "create", "p", "--file", str(file), exit_code=1).stderr
    )
    file.write_text('[[policy]]\nreference = "p"\n[[policy]]\nreference = "q"\n')
    assert f"windvane apply {file}" in run("policy", "create", "p", "--file", str(file), exit_code=1).stderr


def test_a_schema_may_be_in_a_file_next_to_the_policy(run: Run, tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "kw", "type": "double"}]}
    (tmp_path / "power.avsc").write_text(json.dumps(schema))
    (tmp_path / "p.toml").write_text('[[policy]]\nreference = "power"\nschema = "power.avsc"\n')
    run("apply", str(tmp_path / "p.toml"))
    assert show(run, "power")["schema"] == schema
    (tmp_path / "p.toml").write_text('schema = "none.avsc"\n')
    rejected = run("policy", "create", "other", "--file", str(tmp_path / "p.toml"), exit_code=1)
    assert "none.avsc cannot be read: No such file or directory" in rejected.stderr


def test_a_pattern_that_another_policy_has_too_is_said_with_who_gets_its_tags(
    run: Run, tmp_path: Path
) -> None:
    assert run("policy", "create", "demo", "--tag", "turbine.*.gearbox", "--tag", "mast").stderr == ""
    mine = run("policy", "create", "mine", "--tag", "turbine.*.gearbox", "--tag", "turbine.t01.*")
    first = "note: turbine.*.gearbox goes to demo first, not to mine: same pattern, smaller name\n"
    assert mine.stderr == first
    alpha = run("policy", "create", "alpha", "--tag", "{mast,met}")
    assert alpha.stderr == "note: mast goes to demo first, not to alpha: its pattern is more specific\n"
    file = tmp_path / "p.json"
    file.write_text(run("policy", "show", "mine").stdout)
    assert run("apply", str(file)).stderr == first
