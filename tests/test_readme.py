"""What README.md and the pages that it links tell users to paste is valid."""

import re
from pathlib import Path

import pytest
from windvane.config import Settings, load_settings
from windvane.ingest.security.settings import parse_security
from windvane.processors.operations.base.presets import PRESETS
from windvane.processors.operations.base.steps import check_pipeline
from windvane.store.catalog.policy import mapping_from_toml, policy_from_mapping
from windvane.store.catalog.policy_rules import Admission

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
GUIDES = "".join(PAGES[name] for name in ("first-stream.md", "forwarders.md", "security.md"))


def blocks(language: str, text: str = GUIDES) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 110


def test_the_index_links_every_page_and_the_readme_the_index() -> None:
    assert "(docs/README.md)" in README
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES["README.md"]))
    assert set(PAGES) - linked == {"README.md"}


def test_the_policies_can_run() -> None:
    policies = [policy for text in blocks("toml") for policy in mapping_from_toml(text).get("policy", [])]
    gearboxes, north = (policy_from_mapping(mapping) for mapping in policies)
    check_pipeline(gearboxes)
    assert [step.name for step in gearboxes.pipeline] == ["samples", "spectrum", "features", "model"]
    assert Admission(north.allow).allows("10.0.0.1", "park-north")
    assert not Admission(north.allow).allows("10.0.0.1", "park-south")


def test_the_configurations_of_senders_fit_the_secrets() -> None:
    [text] = [block for block in blocks("toml") if "shared_key" in block]
    security = parse_security(text)
    assert security.shared_key is not None
    [(user, password)] = security.users.items()
    for place in ("shared_key ", "shared_key: "):
        assert f"{place}{security.shared_key.decode()}\n" in GUIDES
    for place in ("username {}\n    password {}\n", "username: {}\n      password: {}\n", "curl -u {}:{} "):
        assert place.format(user, password.decode()) in GUIDES


def test_fluent_bit_does_not_wait_forever_for_an_ack() -> None:
    outputs = [text.partition("  outputs:\n")[2] for text in blocks("yaml") if "name: forward" in text]
    assert len(outputs) >= 2
    for text in outputs:
        # An option of the output: elsewhere Fluent Bit ignores it.
        assert re.search(r"^      net\.io_timeout: 20s\b", text, re.MULTILINE)
        assert "      retry_limit: no_limits\n" in text


def test_the_settings_are_settings(tmp_path: Path) -> None:
    texts = [block for block in blocks("toml") if "[gateway]" in block]
    assert len(texts) == 2
    for text in texts:
        (tmp_path / "windvane.toml").write_text(text)
        settings = load_settings(home=tmp_path, environment={})
        assert settings.gateway.tls_cert_file == Path("gateway.pem")
    assert settings.gateway.tls_client_ca_file == Path("park-ca.pem")
    (tmp_path / "windvane.toml").write_text('[gateway]\nforward_socket = "s"\nforward_socket_mode = "660"\n')
    assert load_settings(home=tmp_path, environment={}).forward_socket == tmp_path / "s"
    assert Settings(home=tmp_path).forward_socket == tmp_path / "run" / "forward.sock"


def test_the_python_compiles() -> None:
    [in_readme] = blocks("python", README)
    pages = [text for name in ("notebooks.md", "zarr.md") for text in blocks("python", PAGES[name])]
    assert len(pages) >= 4
    for text in (in_readme, *pages):
        compile(text, "page", "exec")


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)$", README, re.MULTILINE))
def test_the_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_picture_is_there_and_the_presets_exist() -> None:
    for path in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", README):
        assert (ROOT / path).is_file(), path
    assert "audio" in PRESETS
