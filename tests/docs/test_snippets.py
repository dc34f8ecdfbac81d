"""Every snippet of README.md and docs is valid: parsed, and measured by what will read it."""

import ipaddress
import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from windvane.cli import main
from windvane.config import load_settings
from windvane.ingest.security.settings import parse_security
from windvane.processors.operations.base.registry import set_user_operations
from windvane.processors.operations.base.steps import check_pipeline
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.records.times import parse_time
from windvane.store.catalog.policy import Policy, policy_from_mapping

from tests.docs import fluent_bit, fluentd
from tests.docs.snippets import PAGES, ROOT, SNIPPETS, Snippet, commands_of, in_language
from tests.docs.test_package_pages import PACKAGE_PAGES
from tests.processors.operations.test_user_operations import write

SECURITY_TABLES = {"shared_key", "user", "token", "client", "others", "hostname"}
SAMPLES = {"operation": "pcm", "name": "samples", "dtype": "int16", "rate_hz": 25600.0}
WELCH = {"operation": "welch", "input": "samples"}
OF_SAMPLES = ("filter", "resample", "order", "welch", "features", "bearing")
"""A snippet that begins with one of these shows a part of a pipeline, which follows SAMPLES."""
COMMANDS_OF_OTHERS = {"make", "curl", "python", "kcat", "tail", "source", "pip"}


def named(snippets: list[Snippet]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("snippet", snippets, ids=str)


def test_every_snippet_is_of_a_kind_that_is_checked() -> None:
    checked = {"toml", "json", "python", "sh", "console", "fluentd", "yaml"}
    assert {snippet.language for snippet in SNIPPETS} - checked <= {"text", "java"}
    # As many as there are: a new fence of a known kind is found by itself.
    assert len(SNIPPETS) > 50


# TOML


@named(in_language("toml"))
def test_toml_is_what_windvane_reads(snippet: Snippet, tmp_path: Path) -> None:
    content = tomllib.loads(snippet.text)
    if "policy" in content:
        written = content["policy"]
        for mapping in written if isinstance(written, list) else [written]:
            check_policy(mapping, snippet, tmp_path)
    elif "project" in content:
        assert snippet.page in PACKAGE_PAGES  # test_package_pages.py compares it with the example
    elif content.keys() <= SECURITY_TABLES:
        assert parse_security(re.sub(r'"…"', '"a-long-random-text"', snippet.text)) is not None
    else:
        write(tmp_path / "windvane.toml", snippet.text)
        load_settings(home=tmp_path, environment={})


def check_policy(mapping: dict[str, Any], snippet: Snippet, folder: Path) -> None:
    """A policy, or a part of one, that can run; with the schema and the operations that its page shows."""
    mapping = {"reference": "shown", **mapping}
    on_page = [other for other in SNIPPETS if other.page == snippet.page]
    if "schema" in mapping:
        [schema] = [json.loads(other.text) for other in on_page if other.language == "json"]
        mapping["schema"] = schema
    for other in on_page:
        if other.language == "python" and (name := re.search(r'@operation\("(\w+)", input', other.text)):
            write(folder / f"{name[1]}.py", other.text)
    UserOperations(folder).refresh()
    try:
        check_pipeline(in_context(mapping))
    finally:
        set_user_operations({})


def in_context(mapping: dict[str, Any]) -> Policy:
    """The policy; a snippet that shows a part of a pipeline follows samples, and the steps that it names."""
    steps = mapping.get("pipeline", [])
    for rule in mapping.get("alarm", []):
        if not any(rule["output"] in (step.get("name"), step["operation"]) for step in steps):
            steps = [{"operation": "features", "name": rule["output"]}]
    made = {step.get("name", step["operation"]) for step in steps}
    wanted = {step["input"] for step in steps if step.get("input")} - made
    if wanted & {"samples", "welch"} or (steps and steps[0]["operation"] in OF_SAMPLES):
        steps = [SAMPLES, *([WELCH] if "welch" in wanted else []), *steps]
        mapping = {"format": "raw", **mapping}
    steps = [
        two_channels(step) if needs_two(steps) and step["operation"] == "pcm" else step for step in steps
    ]
    return policy_from_mapping({**mapping, "pipeline": steps})


def needs_two(steps: list[dict[str, Any]]) -> bool:
    return any("tacho_channel" in step or "speed_channel" in step for step in steps)


def two_channels(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "channels": 2}


def test_the_security_file_is_valid() -> None:
    security = parse_security((ROOT / "docs" / "forward-security.toml").read_text())
    assert security.users


# JSON and Python


@named(in_language("json"))
def test_json_is_json(snippet: Snippet) -> None:
    json.loads(snippet.text)


@named(in_language("python"))
def test_python_compiles(snippet: Snippet) -> None:
    compile(snippet.text, str(snippet), "exec")


# Commands


@named(in_language("sh", "console"))
def test_commands_exist_and_take_these_options(snippet: Snippet) -> None:
    for words in commands_of(snippet):
        if words[0] == "windvane":
            check_command(words[1:])
            continue
        assert words[0] in COMMANDS_OF_OTHERS, f"{words[0]}: not a command; tag the fence with `text`"
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            for target in targets:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), words[1]
        elif words[0] == "curl":
            assert re.fullmatch(r"http://[\w.:]+/ingest/POLICY/TAG", words[-1]), words[-1]


def check_command(words: list[str], *, complete: bool = True) -> None:
    """Follows the groups, then has click parse the rest; nothing is run."""
    command: click.Command = main
    context = click.Context(main, info_name="windvane")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"windvane has no command {words[0]!r}"
        context = click.Context(found, info_name=words[0], parent=context)
        command, words = found, words[1:]
    if isinstance(command, click.Group) and not words:
        assert not complete or command.invoke_without_command, "names no command"
        return
    flags = {name for each in command.params if getattr(each, "is_flag", False) for name in each.opts}
    if not complete and words and words[-1].startswith("-") and words[-1] not in flags:
        words = [*words, "VALUE"]  # the text names an option without its value
    values, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if complete and parameter.required:
            assert value not in (None, ()), f"{command.name}: {parameter.name} is missing"
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


INLINE = sorted(
    {
        (page.name, code)
        for page in PAGES
        for code in re.findall(
            r"`(windvane [^`]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        )
    }
)


@pytest.mark.parametrize(("page", "code"), INLINE)
def test_commands_in_the_text_exist(page: str, code: str) -> None:
    for part in code.replace("\n", " ").split(" | "):
        words = [word for word in part.split() if "…" not in word]
        if words[1:] and words[1].isupper():  # `windvane COMMAND --help`
            continue
        check_command([word for word in words[1:] if word != "--help"], complete=False)


def every_command(group: click.Group, context: click.Context) -> list[click.Command]:
    found: list[click.Command] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(command)
        if isinstance(command, click.Group):
            found += every_command(command, context)
    return found


def test_the_examples_of_each_command_are_commands() -> None:
    commands = every_command(main, click.Context(main))
    assert len(commands) > 30
    for command in commands:
        for line in re.findall(r"^\s+(windvane .+)$", command.help or "", re.MULTILINE):
            for words in commands_of(Snippet("--help", 0, "sh", line)):
                if words[0] == "windvane":
                    check_command(words[1:])


# fluentd

FLUENTD = in_language("fluentd")


@named(FLUENTD)
def test_fluentd_knows_every_option(snippet: Snippet) -> None:
    root = fluentd.parse(snippet.text)
    assert root.sections
    assert fluentd.faults(root) == []


def matches(type: str) -> list[tuple[Snippet, fluentd.Section, fluentd.Section]]:
    roots = [(snippet, fluentd.parse(snippet.text)) for snippet in FLUENTD]
    return [
        (snippet, root, match) for snippet, root in roots for match in root.all("match") if match.type == type
    ]


def test_fluentd_waits_for_acks_and_knows_by_which_name_to_check_an_address() -> None:
    found = matches("forward")
    assert len(found) >= 3
    for snippet, _, match in found:
        assert match.parameters["require_ack_response"] == "true", str(snippet)
        for server in match.all("server"):
            if match.parameters.get("transport") == "tls" and is_address(server.parameters["host"]):
                assert "name" in server.parameters, str(snippet)
    buffers = [buffer.parameters for _, _, match in found for buffer in match.all("buffer")]
    assert all(parameters["@type"] == "file" for parameters in buffers)
    assert any(int(parameters.get("flush_thread_count", 1)) > 1 for parameters in buffers)


def test_fluentd_sends_the_field_that_raw_policies_store() -> None:
    roots = [fluentd.parse(snippet.text) for snippet in FLUENTD]
    sources = [source for root in roots for source in root.all("source")]
    assert sources
    for source in sources:
        [parse] = source.all("parse")
        assert (parse.type, parse.parameters["message_key"]) == ("none", "message")


def test_fluentds_http_output_sends_the_times_of_events() -> None:
    [(_, root, match)] = matches("http")
    endpoint = match.parameters["endpoint"]
    [buffer] = match.all("buffer")
    assert "${tag}" in endpoint
    assert buffer.argument == "tag", "placeholders need their chunk keys"
    assert json.loads(match.parameters["headers_from_placeholders"]) == {"Idempotency-Key": "${chunk_id}"}
    [time_key] = re.findall(r"\?time_key=(\w+)", endpoint)
    [transformer] = root.all("filter")
    assert transformer.argument == match.argument
    assert transformer.parameters["enable_ruby"] == "true"
    [record] = transformer.all("record")
    found = re.fullmatch(r"\$\{time\.utc\.strftime\('([^']+)'\)\}", record.parameters[time_key])
    assert found is not None
    # Ruby's %N is nine digits of nanoseconds.
    text = datetime(2026, 11, 27, 8, 15, tzinfo=UTC).strftime(found[1].replace("%N", "123456789"))
    assert parse_time(text) == 1_795_767_300_123_456_789


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "<match a>\n@type http\nendpoint x\n<inject>\ntime_key t\n</inject>\n</match>",
            "http has no <inject>",
        ),
        ("<match a>\n@type forward\nrequire_ack true\n</match>", "forward: require_ack"),
        (
            "<match a>\n@type forward\n<buffer>\nflush_treads 1\n</buffer>\n</match>",
            "forward <buffer>: flush_treads",
        ),
        ("<source a>\n@type tail\n</source>", "<source a>: its pattern"),
        ("<match a>\n@type kafka2\n</match>", "<match> of @type 'kafka2' is not in the table"),
    ],
)
def test_a_fault_of_a_fluentd_snippet_is_found(text: str, fault: str) -> None:
    assert fluentd.faults(fluentd.parse(text)) == [fault]


# Fluent Bit

FLUENT_BIT = in_language("yaml")


@named(FLUENT_BIT)
def test_fluent_bit_knows_every_option(snippet: Snippet) -> None:
    assert fluent_bit.faults(fluent_bit.parse(snippet.text)) == []


@named(FLUENT_BIT)
def test_fluent_bit_keeps_what_is_not_acked(snippet: Snippet) -> None:
    found = fluent_bit.parse(snippet.text)
    for output in found["pipeline"]["outputs"]:
        assert output["retry_limit"] == "no_limits"
        assert output["net.io_timeout"] == "20s"
        if output["name"] == "forward":
            assert output["require_ack_response"] is True
        if output.get("tls") and is_address(output["host"]):
            assert output["tls.vhost"]
            assert output["tls.verify_hostname"] is True
    for source in found["pipeline"].get("inputs", []):
        if source["name"] == "tail":
            assert source["key"] == "message", "its own name is log, which raw policies do not store"
        if source["storage.type"] == "filesystem":
            assert found["service"]["storage.path"]


def test_the_fluent_bit_snippets_show_tls_by_address() -> None:
    outputs = [
        output for snippet in FLUENT_BIT for output in fluent_bit.parse(snippet.text)["pipeline"]["outputs"]
    ]
    assert any(output.get("tls") and is_address(output["host"]) for output in outputs)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("pipeline: {outputs: [{name: forward, match: a, net.io_timout: 20s}]}", "forward: net.io_timout"),
        ("pipeline: {inputs: [{name: tail, keys: message}]}", "tail: keys"),
        ("pipeline: {outputs: [{name: http}]}", "http: takes nothing without match"),
        ("service: {storage_path: a}", "service: storage_path"),
    ],
)
def test_a_fault_of_a_fluent_bit_snippet_is_found(text: str, fault: str) -> None:
    assert fluent_bit.faults(fluent_bit.parse(text)) == [fault]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (fluent_bit.parse, "service:\n  flush: 1\n  flush: 2\n"),
        (fluentd.parse, "<match a>\n@type forward\n@type http\n</match>"),
        (fluentd.parse, "<match a>\n<server>\n</match>"),
        (fluentd.parse, "<match a>"),
    ],
)
def test_duplicate_or_unclosed_parts_are_rejected(parse: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|closes nothing|not closed"):
        parse(text)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
