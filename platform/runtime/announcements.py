"""How a process announces its addresses when it is ready: small JSON files, each replaced atomically.

Each tier writes HOME/run/<tier>.json, and the file named by --ready-file, if there is one. If several
gateways or workers run over one home, those with a name write HOME/run/<tier>-<name>.json.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..config import Settings
from ..errors import ConfigInvalid


def announce(path: Path, report: Mapping[str, str]) -> None:
    """Write `report` so that a reader sees all of it or nothing; only this user can read it.

    Raises `ConfigInvalid` if `path` cannot be written.
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
    """What was announced in `path`; None if nothing was, or nothing that can be read."""
    with suppress(OSError, ValueError):
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report, dict):
            return {str(name): str(value) for name, value in report.items()}
    return None


def tier_file(settings: Settings, tier: str) -> Path:
    """The announcement of `tier` ("gateway", "worker", "web", …) of this instance."""
    return settings.run_dir / f"{settings.tier_name(tier)}.json"


def tier_sockets(run_dir: Path, tier: str) -> dict[str, Path]:
    """The sockets of all instances of `tier`, by the instance's name; "" is the one without, and the first.

    The socket of a process that was killed is included: a client that connects to it gets an error.
    """
    found = {}
    for path in run_dir.glob(f"{tier}*.sock"):
        name = path.stem.removeprefix(tier)
        # A link stands for one that is listed by its own name.
        if (not name or name.startswith("-")) and not path.is_symlink():
            found[name.removeprefix("-")] = path
    return dict(sorted(found.items()))


def forward_addresses(run_dir: Path) -> list[str]:
    """HOST:PORT of each gateway that has announced itself; the one without a name is the first."""
    reports = map(read_announcement, [run_dir / "gateway.json", *sorted(run_dir.glob("gateway-*.json"))])
    return [report["forward"] for report in reports if report and "forward" in report]


def forward_address(settings: Settings) -> str:
    """HOST:PORT of a gateway of this home: the announced one, else the one of the settings."""
    own = read_announcement(tier_file(settings, "gateway")) or {}
    if "forward" in own:
        return own["forward"]
    return next(iter(forward_addresses(settings.run_dir)), settings.forward)
