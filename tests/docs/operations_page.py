"""docs/operations.md, from the docstrings, kinds and parameters of the built-in operations.

A section has the docstring of the class, and a table of what a policy may set: types and defaults as in the
signature, descriptions as in the `Args:` of the docstring.
"""

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from windvane.processors.operations.base.operation import Operation, parameters_of
from windvane.processors.operations.base.parameter_types import describe
from windvane.processors.operations.base.registry import built_in_operations

_INTRODUCTION = Path(__file__).with_name("operations_introduction.md")


def operations_page() -> str:
    """The text of the page."""
    operations = built_in_operations()
    rows = "\n".join(_overview_row(name, cls) for name, cls in operations.items())
    table = f"| operation | takes | gives | |\n| --- | --- | --- | --- |\n{rows}"
    sections = "\n".join(_section(name, cls) for name, cls in operations.items())
    return f"{_INTRODUCTION.read_text(encoding='utf-8').replace('{table}', table)}\n{sections}"


def description(cls: type[Operation]) -> str:
    """The docstring of an operation without its `Args:`, in Markdown."""
    return _split(inspect.cleandoc(cls.__doc__ or ""))[0]


def parameter_texts(cls: type[Operation]) -> dict[str, str]:
    """The descriptions of parameters in the `Args:` of the class or of its `__init__`, by name."""
    texts: dict[str, str] = {}
    for text in (cls.__doc__, cls.__init__.__doc__):
        _, arguments = _split(inspect.cleandoc(text or ""))
        for name, words in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", arguments, re.MULTILINE):
            texts[name] = " ".join(words.split())
    return texts


def examples(cls: type[Operation]) -> list[list[dict[str, Any]]]:
    """The pipelines in the TOML of an operation's docstring: their steps."""
    blocks = re.findall(r"^```toml\n(.*?)^```", description(cls), re.DOTALL | re.MULTILINE)
    return [tomllib.loads(f"[[policy]]\n{block}")["policy"][0]["pipeline"] for block in blocks]


def _split(docstring: str) -> tuple[str, str]:
    before, _, arguments = docstring.partition("\nArgs:\n")
    return before.strip(), arguments


def _overview_row(name: str, cls: type[Operation]) -> str:
    summary = " ".join(description(cls).partition("\n\n")[0].split())
    takes = ", ".join((cls.input, *cls.accepts))
    return f"| [`{name}`](#{name}) | {takes} | {cls.output} | {_cell(summary)} |"


def _section(name: str, cls: type[Operation]) -> str:
    takes = " or ".join((cls.input, *cls.accepts))
    return f"## {name}\n\nTakes {takes}; gives {cls.output}.\n\n{description(cls)}\n{_parameters(cls)}"


def _parameters(cls: type[Operation]) -> str:
    types, parameters = parameters_of(cls)
    texts = parameter_texts(cls)
    rows = [
        f"| `{name}` | {_cell(describe(types[name]))} | {_default(each)} | {_cell(texts.get(name, ''))} |\n"
        for name, each in parameters.items()
    ]
    head = "\n| parameter | values | default | |\n| --- | --- | --- | --- |\n"
    return head + "".join(rows) if rows else "\nIt has no parameters.\n"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "required"
    if parameter.default is None:
        return ""
    return f"`{json.dumps(parameter.default, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return re.sub(r"'([^' ]+)'", r'`"\1"`', text).replace("|", "\\|")
