"""Every relative link of a page leads to a file that exists, and to a heading in it."""

import re
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^()\s]+)\)", page.read_text())
    if not target.startswith(("http:", "https:"))
]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them; headings have plain text and inline code."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_to_a_file_and_a_heading(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    assert path.exists(), f"{page.name}: {target}"
    if anchor:
        assert anchor in anchors(path), f"{page.name}: {target}"
