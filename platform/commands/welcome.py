"""What `windvane up` prints when all is ready."""

import socket
from collections.abc import Mapping

from ..addresses import format_address, is_loopback, parse_address
from ..config import Settings
from ..ingest.security.settings import why_forward_is_shut

_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of this machine, and what a browser on it can open in their place."""


def welcome(settings: Settings, report: Mapping[str, str], *, demo: bool) -> str:
    """Where to open it, what is where, and what to do next; `report` is what the tiers announced."""
    host, port = parse_address(report["web"].removeprefix("http://"))
    here = _ALL_ADDRESSES.get(host, host)
    lines = [f"Windvane is up. Open http://{format_address(here, port)}"]
    if here != host:
        lines.append(f"  elsewhere     http://{format_address(socket.gethostname(), port)}")
    if not is_loopback(host):
        lines.append(f"  token         in {settings.token_file}")
    shut = why_forward_is_shut(settings)
    lines += [
        f"  forward port  {report['forward']}" + ("" if shut is None else f", shut: {shut}"),
        f"  home          {settings.home}",
    ]
    if demo:
        lines.append("  demo          a simulated wind park is sending; see the streams turbine.*")
    else:
        lines.append("  next          windvane policy create --help")
    return "\n".join([*lines, "Ctrl-C ends it."])
