"""The pages on packages show the example packages as they are."""

from __future__ import annotations

import pytest

from tests.docs.snippets import ROOT, SNIPPETS, Snippet

PACKAGE_PAGES = {
    "write-an-operation.md": "windvane-difference",
    "write-a-bus-engine.md": "windvane-memory-bus",
    "write-a-store-engine.md": "windvane-memory-store",
    "write-a-document-type.md": "windvane-inspection",
}
SHOWN = [each for each in SNIPPETS if each.page in PACKAGE_PAGES and each.language in ("python", "toml")]


@pytest.mark.parametrize("snippet", SHOWN, ids=str)
def test_code_on_a_page_is_that_of_the_package(snippet: Snippet) -> None:
    folder = ROOT / "examples" / "packages" / PACKAGE_PAGES[snippet.page]
    sources = [path.read_text() for path in folder.rglob("*") if path.suffix in (".py", ".toml")]
    # A page may leave paragraphs out.
    for paragraph in snippet.text.strip().split("\n\n"):
        assert any(paragraph in source for source in sources), paragraph


def test_every_page_shows_code() -> None:
    assert {snippet.page for snippet in SHOWN} == PACKAGE_PAGES.keys()
