"""How a running process tells others that it is ready and where it listens: small JSON files, written whole.

Each tier writes HOME/run/<tier>.json, and the file named by --ready-file where there is one.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .config import Settings
from .errors import ConfigInvalid


def announce(path: Path, report: Mapping[str, str]) -> None:
    """Write `report` so that a reader sees all of it or nothing; only this user can read it.

    Raises `ConfigInvalid` where `path` cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise ConfigInvalid(
            f"{path} cannot be written: {error.strerror or error}; it must be a file in a folder that you "
            "may write, with room left"
        ) from error


def read_announcement(path: Path) -> dict[str, str] | None:
    """What was announced in `path`; None where nothing was, or nothing that can be read."""
    with suppress(OSError, ValueError):
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report, dict):
            return {str(name): str(value) for name, value in report.items()}
    return None


def tier_file(settings: Settings, tier: str) -> Path:
    """Where `tier` ("gateway", "worker", "web", …) of this home announces itself."""
    return settings.run_dir / f"{tier}.json"


def forward_address(settings: Settings) -> str:
    """HOST:PORT of this home's gateway: the announced one, else the one of the settings."""
    report = read_announcement(tier_file(settings, "gateway")) or {}
    return report.get("forward", settings.forward)
