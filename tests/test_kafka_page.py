"""What docs/kafka.md tells users to write is valid, and what it names exists."""

import re
import shlex
from pathlib import Path

import click
import pytest
from windvane.bus.topic_names import is_chunk_topic, parse_result_topic
from windvane.cli import main
from windvane.config import load_settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "kafka.md").read_text()
COMMANDS = re.findall(r"^windvane (.*?)(?: > \S+)?$", PAGE, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_settings_are_settings(text: str, tmp_path: Path) -> None:
    (tmp_path / "windvane.toml").write_text(text)
    settings = load_settings(home=tmp_path, environment={})
    assert settings.bus.startswith("kafka://")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_commands(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.toml").touch()
    context, found, words = click.Context(main), click.Command(None), shlex.split(command)
    group: click.Command = main
    while isinstance(group, click.Group):
        _, found, words = group.resolve_command(context, words)  # type: ignore[assignment]
        group = found
    found.make_context(found.name, list(words), parent=context)


def test_the_python_compiles_and_the_variables_and_files_exist(tmp_path: Path) -> None:
    for text in blocks("python"):
        compile(text, "kafka.md", "exec")
    for variable in re.findall(r"`(WINDVANE_\w+)(?:=(\w+))?`", PAGE):
        some = "7" * 32 if variable[0].endswith("_INSTALLATION") else "7"
        settings = load_settings(home=tmp_path, environment={variable[0]: variable[1] or some})
        assert settings != load_settings(home=tmp_path, environment={})
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path


def test_the_topics_are_named_as_the_bus_names_them() -> None:
    named = set(re.findall(r"`?windvane\.([A-Za-z]+\.\.[a-z.]+)", PAGE))
    assert named
    for topic in named:
        assert not is_chunk_topic(topic)
        assert parse_result_topic(topic.rstrip(".")) is not None or topic.endswith("..rows.")
