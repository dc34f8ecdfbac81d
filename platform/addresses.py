"""Addresses of the form HOST:PORT, as settings, flags and messages have them."""

import ipaddress

from .errors import ConfigInvalid

DEFAULT_FORWARD = "127.0.0.1:24224"
DEFAULT_WEB = "127.0.0.1:8080"


def parse_address(text: str, *, example: str = DEFAULT_FORWARD) -> tuple[str, int]:
    """Split HOST:PORT or [IPv6]:PORT. Raises `ConfigInvalid`, whose message shows an address like `example`.

    >>> parse_address("[::1]:24224")
    ('::1', 24224)
    """
    example_host, _, example_port = example.rpartition(":")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        if _is_port(text):
            example_port = text
        raise ConfigInvalid(
            f"{text!r} is not an address; write HOST:PORT, for example {example_host}:{example_port} "
            f"or [::1]:{example_port}"
        )
    if not _is_port(port):
        raise ConfigInvalid(
            f"{text!r} has no port between 0 and 65535; write HOST:PORT, for example {host}:{example_port}"
        )
    return (host[1:-1] if bracketed else host), int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`.

    >>> format_address("::1", 24224)
    '[::1]:24224'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost counts as open to others."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 65535
