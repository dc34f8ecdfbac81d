"""Tag patterns: they match like fluentd's `<match …>`, in bounded time for any tag."""

import itertools
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from windvane.errors import PolicyInvalid
from windvane.store.catalog.tag_pattern import MAX_ALTERNATIVES, MAX_TAG_BYTES, TagPattern


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        # The examples of fluentd's documentation.
        ("a.*", ["a.b"], ["a", "a.b.c", "b.a", "ab"]),
        ("a.**", ["a", "a.b", "a.b.c"], ["ab", "b.a", ""]),
        ("{a,b}", ["a", "b"], ["c", "ab", "a,b", "{a,b}"]),
        ("a.{b,c}.*", ["a.b.x", "a.c.x"], ["a.d.x", "a.b", "a.b.x.y"]),
        ("**", ["a", "a.b", ".", ""], []),
        # `**` elsewhere.
        ("**.a", ["a", "b.a", "c.b.a"], ["ba", "a.b", "b.aa"]),
        ("a.**.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z", "az", "a.bz", "a.b.zz", "aa.z"]),
        ("a.**.**.z", ["a.z", "a.b.z", "a.b.c.z"], ["az"]),
        ("a.**.*", ["a.b", "a.b.c"], ["a", "ab"]),
        ("k.**kube**.log", ["k.kube.log", "k.x.ykubez.w.log"], ["k.log", "kube.log", "k.kubelog"]),
        ("a**", ["a", "ab", "a.b", "ab.c"], ["b.a"]),
        ("a.**b", ["a.b", "a.xb", "a.x.b"], ["ab", "a", "a.bx"]),
        ("a**.b", ["a.b", "ax.b", "a.x.b"], ["ab", "a.xb"]),
        ("x**.**y", ["x.y", "xa.by", "x.a.b.y"], ["xy", "xay"]),
        # `*` within a part.
        ("turbine.t*.blade?", ["turbine.t07.blade?"], ["turbine.t07.blade1", "turbine.t0.7.blade?"]),
        ("*", ["a", ""], ["a.b"]),
        ("*.*.c", ["a.b.c"], ["b.c", "a.b.c.c", "a.a.b.c"]),
        ("a*b*c", ["abc", "axbxbxc"], ["ab.c", "acb"]),
        # Braces contain anything, also braces, or nothing.
        ("a{,.b}", ["a", "a.b"], ["a.", "b"]),
        ("{a.**,b.{c,d*}}.e", ["a.e", "a.x.y.e", "b.c.e", "b.dd.e"], ["b.e", "b.c.d.e"]),
        ("{a,**}*", ["a", "b.c"], []),
        # Without braces a comma is a comma, and metacharacters of regular expressions are literal.
        ("a,b", ["a,b"], ["a", "b"]),
        ("a+(b|c)[d]$^", ["a+(b|c)[d]$^"], ["a", "aab"]),
        (r"a\*b\{\\", ["a*b{\\"], ["axb{\\"]),
        ("größe.東京.*", ["größe.東京.1"], ["große.東京.1"]),
        ("/var/log", ["/var/log"], ["var/log"]),
    ],
)
def test_a_pattern_takes_and_leaves(pattern: str, takes: list[str], leaves: list[str]) -> None:
    compiled = TagPattern(pattern)
    assert [tag for tag in takes if not compiled.matches(tag)] == []
    assert [tag for tag in leaves if compiled.matches(tag)] == []


def naive_match(pattern: str, tag: str) -> bool:
    """Matches by trying every expansion of a wildcard; without braces and escapes."""

    @cache
    def fits(at: int, here: int) -> bool:
        if at == len(pattern):
            return here == len(tag)
        part_begins = at == 0 or pattern[at - 1] == "."
        if pattern.startswith("**", at):
            after = at + 2
            if part_begins and pattern[after : after + 1] == "." and fits(after + 1, here):
                return True
            return any(fits(after, there) for there in range(here, len(tag) + 1))
        if pattern[at] == "*":
            ends = (there for there in range(here, len(tag) + 1) if "." not in tag[here:there])
            return any(fits(at + 1, there) for there in ends)
        if pattern[at:] == ".**" and here == len(tag):
            return True
        return tag[here : here + 1] == pattern[at] and fits(at + 1, here + 1)

    return fits(0, 0)


@st.composite
def patterns_and_tags(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern and a tag that it matches, or such a tag with a small change."""
    tokens = draw(
        st.lists(st.sampled_from(["a", "b", ".", ".", "*", "*", "**", ".**."]), min_size=1, max_size=9)
    )
    filling = {"*": st.text("ab", max_size=3), "**": st.text("ab.", max_size=4), ".**.": st.just(".")}
    tag = "".join(draw(filling[token]) if token in filling else token for token in tokens)
    if draw(st.booleans()):
        cut = draw(st.integers(min_value=0, max_value=len(tag)))
        tag = tag[:cut] + draw(st.sampled_from(["", "a", "b", "."])) + tag[cut + draw(st.integers(0, 1)) :]
    return "".join(tokens), tag


@settings(max_examples=1500, deadline=None)
@given(patterns_and_tags())
@example(("**a*b.**", "xa.ab.b"))
@example(("**b*a.b**a", "b.bba.bxa"))
@example(("*a*a", "aa"))
def test_a_pattern_without_braces_agrees_with_trying_everything(pattern_and_tag: tuple[str, str]) -> None:
    pattern, tag = pattern_and_tag
    # `**.**` is special: the two wildcards are merged.
    while "**.**" in pattern or "***" in pattern:
        pattern = pattern.replace("***", "**").replace("**.**", "**")
    assert TagPattern(pattern).matches(tag) == naive_match(pattern, tag)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.lists(st.text("ab.*", max_size=3), min_size=1, max_size=3), min_size=1, max_size=3
    ).filter(lambda pieces: any("".join(options) for options in pieces)),
    tag=st.text("ab.", max_size=8),
)
def test_braces_are_all_their_alternatives(pieces: list[list[str]], tag: str) -> None:
    written_out = ["a".join(choice) for choice in itertools.product(*pieces)]
    braced = TagPattern("a".join("{" + ",".join(options) + "}" for options in pieces))
    assert braced.matches(tag) == any(
        TagPattern(one).matches(tag) if one else tag == "" for one in written_out
    )


@pytest.mark.parametrize("pattern", ["**a**a**a**a**a**a**b", "*a*a*a*a*a*a*b", "**.*a*a*.**.*a*a*.**.b"])
def test_no_tag_makes_matching_take_long(pattern: str) -> None:
    # Exhaustive backtracking would take about 10^13 steps.
    for tag in ("a" * MAX_TAG_BYTES, "aa." * (MAX_TAG_BYTES // 3)):
        assert not TagPattern(pattern).matches(tag)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "is empty"),
        ("a{b", "does not close"),
        ("a}b", "did not open"),
        ("a\\", "backslash"),
        ("a:b", "colon"),
        ("a\nb", "control character"),
        ("/a.*/", "regular expression"),
        ("{a,b}" * 7, f"over {MAX_ALTERNATIVES} alternatives"),
        ("a" * 501, "too long"),
    ],
)
def test_an_invalid_pattern_is_rejected_with_the_cause(pattern: str, message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        TagPattern(pattern)


def test_patterns_sort_the_most_specific_first() -> None:
    ordered = ["turbine.t07", "t{1,2}", "turbine.*", "t.*", "*", "turbine.**", "t.**", "**"]
    assert sorted(reversed(ordered), key=lambda text: TagPattern(text).specificity) == ordered


def test_a_pattern_without_wildcards_knows_its_tags() -> None:
    assert TagPattern("a.{b,c}").literals == ("a.b", "a.c")
    assert TagPattern("a.{b,*}").literals is None
