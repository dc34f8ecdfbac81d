"""The word table finds what it names, in prose and nowhere else; the list of pending folders shrinks."""

from pathlib import Path

import pytest

from lint import words
from lint.words import Allowed, Match, load_rules, matches_in

RULES = load_rules()


def found(source: str, name: str = "module.py") -> list[tuple[int, str]]:
    return [(match.line, match.text) for match in matches_in(Path(name), source, RULES)]


@pytest.mark.parametrize(
    ("prose", "text"),
    [
        ("What nobody reads", "nobody"),
        ("the chunk is refused", "refused"),
        ("15 is no number", "is no"),
        ("what lies behind comes again", "comes again"),
        ("it goes on with the next", "goes on"),
        ("The file stands beside it", "stands beside"),
        ("Raises StoreFailed where the disk is full", "Raises StoreFailed where"),
        ("None where there is none", "None where"),
        ("Let go of the file", "Let go of"),
        ("with twice the patience", "patience"),
        ("the state is put back", "put back"),
    ],
)
def test_a_paraphrase_is_found_and_the_field_s_word_is_named(prose: str, text: str) -> None:
    [match] = [
        match for match in matches_in(Path("page.md"), f"# Head\n\n{prose}.\n", RULES) if match.text == text
    ]
    assert str(match).startswith(f"page.md:3: {text!r} -> write ")
    assert len(str(match)) > len(f"page.md:3: {text!r} -> write ")


@pytest.mark.parametrize(
    "prose",
    [
        "connection refused",
        "there is no gateway",
        "it is no longer there",
        "goes on the topic",
        "takes up to 4 MiB",
        "shows where the file is",
        "the field `refused` of a status",
        "standing orders, outdoors, finished",
    ],
)
def test_plain_english_is_not_a_match(prose: str) -> None:
    assert found(prose, "page.md") == []


def test_comments_docstrings_messages_and_names_are_prose_and_code_is_not() -> None:
    source = '''"""What nobody reads."""

refused = status["refused"]  # whoever asks
# It goes
# on.


class HeldDoor:
    def put_back(self, anew: int) -> None:
        raise ValueError(f"{anew} is no "
                         "number")
'''
    assert found(source) == [
        (1, "nobody"),
        (3, "whoever"),
        (4, "goes on"),
        (8, "door"),
        (9, "put back"),
        (10, "is no"),
    ]


def test_typescript_is_read_by_its_comments_strings_and_names() -> None:
    source = '// Whoever\nfunction putBack(refused: number) { return "the worker is away" + "refused"; }\n'
    assert found(source, "file.ts") == [(1, "Whoever"), (2, "is away"), (2, "put back")]


def test_a_file_s_name_is_prose() -> None:
    assert found("", "refused-page.ts") == [(1, "refused")]


def test_an_entry_excuses_its_line_alone() -> None:
    entry = Allowed("docs/", "ECONNREFUSED", "a code of the kernel")
    match = Match(Path("docs/a.md"), 1, "refused", "refused: ECONNREFUSED", "rejected")
    assert entry.excuses(match)
    assert not entry.excuses(Match(Path("docs/a.md"), 1, "refused", "refused", "rejected"))
    assert not entry.excuses(Match(Path("README.md"), 1, "refused", "ECONNREFUSED", "rejected"))


def test_a_pending_count_may_fall_and_not_rise() -> None:
    matches = list(matches_in(Path("a/b.md"), "nobody\n\nwhoever\n", RULES))
    assert words.pending_counts(words.pending_text(matches, ())) == {"a": 2}
    assert words.beyond_pending(matches, {"a": 3}) == words.beyond_pending(matches, {"a": 2}) == []
    assert words.beyond_pending(matches, {"a": 1}) == words.beyond_pending(matches, {"b": 9}) == matches


def test_the_deepest_entry_above_a_file_counts_its_matches() -> None:
    paths = [Path("a/b/c.md"), Path("a/d/e.md"), Path("f.md")]
    matches = [Match(path, 1, "nobody", "nobody", "no client") for path in paths]
    grouped = words.by_entry(matches, {"a", "a/b", "."})
    assert {folder: [each.path for each in found] for folder, found in grouped.items()} == {
        "a/b": [paths[0]],
        "a": [paths[1]],
        ".": [paths[2]],
    }
    assert set(words.by_entry(matches, {"."})) == {"a/b", "a/d", "."}


def test_folders_that_are_clean_are_not_pending_and_entries_are_needed() -> None:
    pending = words.pending_counts(words.PENDING.read_text())
    unallowed = load_rules()._replace(allowed=())
    every = words.all_matches(unallowed)
    left = [match for match in every if not RULES.excuse(match)]
    assert set(pending) <= set(words.by_entry(left, pending)), (
        "remove these lines from lint/words-pending.txt"
    )
    for entry in RULES.allowed:
        assert any(entry.excuses(match) for match in every), f"nothing needs {entry}: remove it"
