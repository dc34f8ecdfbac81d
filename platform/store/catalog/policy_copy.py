"""The last good copy of the policies, next to the catalog: a tier uses it if the catalog is damaged."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_VERSION = 1


def write_policy_copy(path: Path, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Replace the copy, atomically and durably; tiers of a home may do so concurrently. Raises OSError."""
    content = json.dumps({"version": _VERSION, "policies": list(bodies)}, sort_keys=True).encode()
    if path.exists() and path.read_bytes() == content:
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def read_policy_copy(path: Path) -> list[dict[str, Any]]:
    """The bodies of the policies of the last good catalog; empty if there is no readable copy."""
    try:
        copy = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    if not isinstance(copy, dict) or copy.get("version") != _VERSION:
        return []
    bodies = copy.get("policies")
    return [body for body in bodies if isinstance(body, dict)] if isinstance(bodies, list) else []
