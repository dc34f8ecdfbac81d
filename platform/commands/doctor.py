"""`windvane doctor`: checks an installation and its machine, and says how to fix problems."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..config import Settings
from .common.options import tier_options

if TYPE_CHECKING:
    from .diagnosis.finding import Finding

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failure": ("✗", "red"), "skipped": ("–", None)}
_STATE_COLUMNS = max(map(len, _MARKS))


@click.command(short_help="Check an installation; say how to fix what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of {check, state, message, fix}.")
@tier_options("forward", "web", "bus", "store", "database", "catalog", if_missing="ignore")
@click.pass_context
def doctor(context: click.Context, settings: Settings, as_json: bool) -> None:
    """Check disk space, limits, clock, ports, certificates, Kafka, databases, file modes and
    installed packages.

    Each line is ok, warning, failure or skipped; a fix follows each problem. Exit code 1 if there is a
    failure. Nothing is changed, and no secret is shown; it can run while the tiers run.

    \b
    Examples:
      windvane doctor
      windvane doctor --home /srv/windvane --json
      windvane doctor --bus kafka://10.0.0.5:9092
    """
    findings = []
    for finding in _findings(settings):
        findings.append(finding)
        if not as_json:
            _print(finding)
    failures = sum(finding.state == "failure" for finding in findings)
    if as_json:
        click.echo(json.dumps([_as_json(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        warnings = sum(finding.state == "warning" for finding in findings)
        click.echo(f"{len(findings)} checks: {failures} failures, {warnings} warnings")
    context.exit(1 if failures else 0)


def _findings(settings: Settings) -> "Iterator[Finding]":
    from .diagnosis.finding import failure
    from .diagnosis.home import check_home
    from .diagnosis.kafka import check_kafka
    from .diagnosis.machine import check_machine
    from .diagnosis.network import check_network
    from .diagnosis.packages import check_packages

    for check in (check_machine, check_home, check_packages, check_network, check_kafka):
        try:
            yield from check(settings)
        except OSError as error:  # one part that cannot be looked at does not hide the others
            where = f"{error.filename}: " if error.filename else ""
            yield failure(
                check.__name__.removeprefix("check_"),
                f"{where}{error.strerror or error}",
                "run it as the user of the installation; if it is the disk, see the kernel's log (dmesg)",
            )


def _print(finding: "Finding") -> None:
    mark, color = _MARKS[finding.state]
    state = click.style(f"{mark} {finding.state:{_STATE_COLUMNS}}", fg=color)
    click.echo(f"{state}  {finding.check}: {finding.message}")
    if finding.fix:
        click.echo(f"{'':{_STATE_COLUMNS + 4}}fix: {finding.fix}")


def _as_json(finding: "Finding") -> dict[str, str]:
    return {
        "check": finding.check,
        "state": finding.state,
        "message": finding.message,
        "fix": finding.fix,
    }
