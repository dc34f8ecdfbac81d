"""Different tags are different streams, whatever their bytes and on every input."""

import re
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from windvane.records.tag_names import stream_name

from tests.ingest.http.test_http import post, site
from tests.ingest.test_gateway import EVENT, Site

__all__ = ["site"]

PIECES = [
    b"\\",
    b"x",
    b"f",
    b"5",
    b"c",
    b"8",
    b"\\xff",
    b"\\x5c",
    b"\xff",
    b"\xc3",
    b"\xa9",
    "é\ufffd".encode(),
]


def tag_of(name: str) -> bytes:
    """The inverse of `stream_name`, naively: each two digits that are spelt out are a byte."""
    spelt = re.sub(
        r"\\x([89a-f][0-9a-f]|5c)",
        lambda match: "\\" if match[1] == "5c" else chr(0xDC00 + int(match[1], 16)),
        name,
    )
    return spelt.encode(errors="surrogateescape")


@given(st.one_of(st.binary(max_size=30), st.lists(st.sampled_from(PIECES)).map(b"".join)))
@example(b"\\\\xff")
@example(b"\\x\xff")
@example(b"\\x5\xffc")
def test_a_name_says_which_tag_it_was(tag: bytes) -> None:
    assert tag_of(stream_name(tag)) == tag


@given(st.text(max_size=30))
@example("C\\temp\\x41\\x7f\\xFF\\xg")
def test_text_is_its_own_name_unless_it_looks_spelt_out(text: str) -> None:
    if not re.search(r"\\x([89a-f][0-9a-f]|5c)", text):
        assert stream_name(text.encode(errors="replace")) == text.encode(errors="replace").decode()


BAD_TAGS = [b"t\xff", b"t\xfe", b"t\xc3\xa9\xe9", b"\xff" * 20, b"t\xff\xef\xbf\xbd"]


@pytest.mark.parametrize("tag", BAD_TAGS)
@pytest.mark.parametrize("where", ["query", "path"])
async def test_over_http_a_tag_that_is_not_utf8_is_rejected_and_kept(
    site: Site, tag: bytes, where: str
) -> None:
    await site.policy("any", tags=["**"])
    encoded = quote_from_bytes(tag)
    path = f"/ingest/any?reference={encoded}" if where == "query" else f"/ingest/any/{encoded}"
    status, problem = await post(site, path, EVENT)
    assert (status, problem["code"]) == (400, "bad-tag")
    assert "is not UTF-8; over HTTP tags are UTF-8 text" in problem["detail"]
    assert (await site.kept_letter()).obstacle is not None
    assert await site.chunks("any") == []


@pytest.mark.parametrize("tag", ["t%FF", "t%25FF", "t\ufffd", "t\\xff", "t\\udcff", "tag é+&=%41", "a\\temp"])
@pytest.mark.parametrize("where", ["query", "path", "header"])
async def test_text_that_looks_like_a_byte_spelt_out_has_a_name_of_its_own(
    site: Site, tag: str, where: str
) -> None:
    await site.policy("any", tags=["**"])
    encoded, headers = quote_from_bytes(tag.encode()), {}
    path = "/ingest/any"
    if where == "query":
        path += f"?other=1&reference={encoded}"
    elif where == "path":
        path += f"/{encoded}"
    else:
        headers["Fluent_Tag"] = tag
    status, problem = await post(site, path, EVENT, **headers)
    assert status == 204, problem
    expected = "t\\x5cxff" if tag == "t\\xff" else tag
    assert [chunk.tag for chunk in await site.chunks("any")] == [expected]
