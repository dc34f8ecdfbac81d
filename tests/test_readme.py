"""What the README tells people to paste is valid."""

import re
from pathlib import Path

import pytest
from windvane.processors.operation import check_pipeline
from windvane.processors.presets import PRESETS
from windvane.store.policy import mapping_from_toml, policy_from_mapping

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_policy_can_run() -> None:
    [text] = blocks("toml")
    [mapping] = mapping_from_toml(text)["policy"]
    policy = policy_from_mapping(mapping)
    check_pipeline(policy)
    assert [step.name for step in policy.pipeline] == ["samples", "spectrum", "features", "model"]


def test_the_python_compiles() -> None:
    [text] = blocks("python")
    compile(text, "README.md", "exec")


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)$", README, re.MULTILINE))
def test_the_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_picture_is_there_and_the_presets_exist() -> None:
    for path in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    assert "audio" in PRESETS
