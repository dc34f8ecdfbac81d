"""The line of a value in a TOML file, whatever its form."""

import tomllib

import pytest
from windvane.toml_lines import explain_toml_error, line_of

TEXT = '''# comment
key = "a"
[table]
long = """
[not.a.table]
key = 1
"""
"quoted key" = 1
inner.key = [
  1,
  { a = 2 },
]
[[array]]
[[array]]
name = 'x'
[[array.part]]
[table.below]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("key",), 2),
        (("table",), 3),
        (("table", "long"), 4),
        (("table", "quoted key"), 8),
        (("table", "inner", "key", 1, "a"), 9),
        (("array", 0), 13),
        (("array", 1), 14),
        (("array", 1, "name"), 15),
        (("array", 1, "part", 0), 16),
        (("table", "below"), 17),
        (("nothing",), None),
        (("key", "below"), None),
        ((), None),
    ],
)
def test_each_value_has_its_line(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line
    assert line_of(f"{TEXT}[end]\n", path) == line


def test_the_line_is_found_after_values_of_many_lines() -> None:
    text = "a = [\n" + '"x",\n' * 500 + ']\nb = """\n' + "not = toml\n" * 40 + '"""\nc = 1\n'
    assert [line_of(text, (key,)) for key in "abc"] == [1, 503, 545]


def test_what_would_take_too_long_is_not_found() -> None:
    text = 'a = 1\nb = """\n' + "not = toml\n" * 1000 + '"""\nc = 1\n'
    assert line_of(text, ("c",)) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("a = 1\n[t", 2),
        ("a = 1\n[[t]", 2),
        ('a = 1\nb = """\nx\ny', 2),
        ('a = 1\nb = """\nx = 1\ny', 2),
        ("a = 1\nb = [\n1,\n", 2),
        ("a = 1\na = 2\n", 2),
        ("=", 1),
    ],
)
def test_invalid_toml_is_reported_with_its_line(text: str, line: int) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as broken:
        tomllib.loads(text)
    found, reason = explain_toml_error(text, broken.value)
    assert found == line
    assert "at line" not in reason
    assert "end of document" not in reason


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a = 1\n[gateway", 2, "`[gateway` is not closed"),
        ("a = 1\n[[policy]", 2, "Expected ']]'"),
        ("[gateway\nidle_timeout_s = 1\n", 1, "Expected ']'"),
        ('tags = ["a", "b"\nformat = "raw"\n', 1, "Unclosed array: `tags` is not closed"),
        (
            'a = 1\ntags = [\n"a",\n\n[[policy.pipeline]]\nb = 1\n',
            5,
            "is `tags` closed, which begins on line 2?",
        ),
        ("a = { b = 1\nc = 2\n", 1, "`a` is not closed"),
        ('[[user]]\npassword = "secret\n', 2, "Illegal character"),
        ('[[user]]\npassword = """secret = [\n', 2, "`password` is not closed"),
        ("[[user]]\nallow = [ # secret\n", 2, "`allow` is not closed"),
    ],
)
def test_what_is_open_is_named_without_its_value(text: str, line: int, says: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as broken:
        tomllib.loads(text)
    found, reason = explain_toml_error(text, broken.value)
    assert (found, "secret" in reason) == (line, False)
    assert says in reason
