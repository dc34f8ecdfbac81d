r"""From the bytes of a tag to the name of its stream: different tags have different names.

A tag is text in UTF-8 and names its stream as it is. A forwarder may send other bytes: a tag that is made of
a path has that path's encoding. Each byte that is not UTF-8 is escaped as `\xff`, with two hexadecimal
digits. So that a text that holds just that is another stream, its backslash is escaped as `\x5c`.
"""

import re
from functools import lru_cache

# The form of an escaped byte: those below 80 are valid UTF-8, and only the backslash is escaped.
_LOOKS_SPELT_OUT = re.compile(r"\\(?=x(?:[89a-f][0-9a-f]|5c))")


@lru_cache(maxsize=4096)
def stream_name(tag: bytes) -> str:
    r"""The name of the stream that a tag has, whatever its bytes.

    >>> print(stream_name("turbine.blåvand".encode()), stream_name(b"caf\xe9"), stream_name(rb"caf\xe9"))
    turbine.blåvand caf\xe9 caf\x5cxe9
    >>> print(stream_name(rb"C\temp\x41"), stream_name(rb"\x5c"))
    C\temp\x41 \x5cx5c
    """
    try:
        text = tag.decode()
    except UnicodeDecodeError:
        # Lone surrogates mark the bytes until the text around them is escaped.
        text = tag.decode(errors="surrogateescape")
        return _spelt(text).encode(errors="surrogateescape").decode(errors="backslashreplace")
    return text if "\\" not in text else _spelt(text)


def _spelt(text: str) -> str:
    return _LOOKS_SPELT_OUT.sub(r"\\x5c", text)
