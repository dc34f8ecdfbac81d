"""The pages of docs that are generated from the code: `make docs` writes them.

`PAGES` has a function for each; test_generated_pages.py says when a page is not current.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.metrics_page import metrics_page
from tests.docs.operations_page import operations_page
from tests.docs.rejections_page import rejections_page

DOCS = Path(__file__).resolve().parents[2] / "docs"

PAGES: Mapping[str, Callable[[], str]] = {
    "metrics.md": metrics_page,
    "operations.md": operations_page,
    "rejections.md": rejections_page,
}
"""By file name in docs: a function that gives the text of the page."""


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
