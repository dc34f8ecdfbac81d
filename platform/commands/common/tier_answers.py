"""What the tiers that run over a home answer on their sockets, to a command that has no event loop."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Literal

from ...runtime.announcements import tier_sockets

LOOK_TIMEOUT_S = 2.0
"""For a status that a command only mentions."""


def ask_tiers(
    run_dir: Path,
    tier: Literal["gateway", "worker", "web"],
    path: str,
    *,
    timeout_s: float,
    question: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The JSON objects that the instances of `tier` answer: to GET, or to POST if there is a `question`.

    One that was killed, is of an earlier version or does not answer within `timeout_s` is left out.
    """
    found = []
    for file in tier_sockets(run_dir, tier).values():
        connection = http.client.HTTPConnection(tier, timeout=timeout_s)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_s)
        try:
            connection.sock.connect(str(file))
            if question is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(question))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == http.client.OK:
                found.append(json.loads(body))
        except (OSError, http.client.HTTPException, ValueError):
            continue
        finally:
            connection.close()
    return found


def why_forward_port_is_shut(run_dir: Path) -> str | None:
    """What a gateway of the home says about that; None if its port is open, or no gateway answers."""
    statuses = ask_tiers(run_dir, "gateway", "/status", timeout_s=LOOK_TIMEOUT_S)
    return next((str(each["forward_shut"]) for each in statuses if each.get("forward_shut")), None)


def waiting_chunks(run_dir: Path) -> int:
    """How many chunks wait for the workers of the home, as these say; 0 if none of them answers."""
    statuses = ask_tiers(run_dir, "worker", "/status", timeout_s=LOOK_TIMEOUT_S)
    return sum(int(each.get("lag_messages", 0)) for each in statuses)
