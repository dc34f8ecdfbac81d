"""The commands that run: `up`, which starts all tiers, and each tier by itself."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ..config import Settings, urls_in_environment
from ..home import ensure_token, make_home, make_run_dir
from ..ingest.security.settings import require_guarded_port
from ..runtime.announcements import announce
from ..runtime.home_modes import secure_home
from ..runtime.installations import noted_as_running
from ..runtime.supervisor import ChildPlan, Supervisor
from .common.logs import configure_logging, say, says_json
from .common.options import tier_options
from .common.receiver import Receiver
from .common.tier_process import (
    config_options,
    debug,
    only_one,
    raise_open_file_limit,
    require_bus_for,
    require_folder_of,
    run_gateways,
    run_tier,
    run_until_signal,
)
from .welcome import welcome

log = logging.getLogger(__name__)

MAX_GATEWAYS = 64

_ready_file = click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write this JSON file when all tiers are ready.",
)


def _processes(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{name}",
        "--workers",
        name.replace("-", "_"),
        type=click.IntRange(1, MAX_GATEWAYS),
        default=1,
        metavar="N",
        help="Gateway processes that share the forward port; more than one needs a Kafka bus.",
    )


_stop_fd = click.option("--stop-fd", type=int, hidden=True)


@click.command()
@tier_options("forward", "web", "bus", "store", "database", "catalog", if_missing="create")
@_processes("gateway-processes")
@_ready_file
@click.option(
    "--demo", is_flag=True, help="Also run a small simulated wind farm that sends through the forward port."
)
@click.pass_context
def up(
    context: click.Context, settings: Settings, gateway_processes: int, ready_file: Path | None, demo: bool
) -> None:
    """Run everything: gateway, worker and web over one home directory.

    The ready file holds {"forward": "HOST:PORT", "web": "http://HOST:PORT", "token": "…"}; only you can read
    it. Port 0 selects a free port.

    \b
    Examples:
      windvane up --demo
      windvane up --home /srv/windvane --web 127.0.0.1:9000
      windvane up --bus kafka://10.0.0.5:9092 --gateway-processes 4
      windvane up --forward 127.0.0.1:0 --web 127.0.0.1:0 --ready-file ready.json
    """
    require_guarded_port(settings)
    require_bus_for(settings, gateway_processes=gateway_processes)
    require_folder_of(ready_file)
    configure_logging("up", debug=debug(context), log_format=settings.log_format)
    raise_open_file_limit()
    secure_home(settings)
    make_run_dir(settings)
    token = ensure_token(settings)
    # Passed in the environment: these URLs can contain passwords, and every user can read the arguments.
    os.environ.update(urls_in_environment(settings))
    stages = [[_tier_plan(name, settings, context) for name in ("gateway", "worker", "web")]]
    if demo:
        stages.append([_tier_plan("simulate", settings, context)])

    def ready(report: Mapping[str, str]) -> None:
        if ready_file is not None:
            announce(ready_file, {"forward": report["forward"], "web": report["web"], "token": token})
        if says_json():
            say(f"ready, web {report['web']}, forward {report['forward']}")
        else:
            click.echo(welcome(settings, report, demo=demo))

    with only_one(settings, "up", called="another `windvane up`"), noted_as_running(settings.home, "up"):
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)  # a reader must not see the file of an earlier run
        say("starting gateway, worker and web …")
        supervisor = Supervisor(stages, ready_dir=settings.run_dir)
        context.exit(asyncio.run(run_until_signal(supervisor, ready)))


@click.command(short_help="Run the gateway alone.")
@tier_options("forward", "bus", "database", "catalog", "instance", if_missing="create")
@_processes("processes")
@click.option("--shares-port", is_flag=True, hidden=True)
@_ready_file
@_stop_fd
@click.pass_context
def gateway(
    context: click.Context,
    settings: Settings,
    processes: int,
    shares_port: bool,
    ready_file: Path | None,
    stop_fd: int | None,
) -> None:
    """Run the gateway: receives what forwarders send, checks it, and acks what is durable.

    \b
    Examples:
      windvane gateway
      windvane gateway --home /srv/windvane --forward 127.0.0.1:24224
      windvane gateway --bus kafka://10.0.0.5:9092 --processes 4
      windvane gateway --bus kafka://10.0.0.5:9092 --instance b --forward 127.0.0.1:24225
    """
    require_guarded_port(settings)
    if processes > 1:
        run_gateways(context, settings, processes, ready_file, stop_fd)
    else:
        run_tier(context, "gateway", settings, ready_file, stop_fd, shares_port=shares_port)


@click.command(short_help="Run the worker alone.")
@tier_options("bus", "store", "database", "catalog", "instance", if_missing="create")
@_ready_file
@_stop_fd
@click.pass_context
def worker(context: click.Context, settings: Settings, ready_file: Path | None, stop_fd: int | None) -> None:
    """Run the worker: archives what the gateway received and runs the policies' pipelines on it.

    \b
    Examples:
      windvane worker
      windvane worker --home /srv/windvane
      windvane worker --home /srv/windvane --instance b
    """
    run_tier(context, "worker", settings, ready_file, stop_fd)


process = click.Command(
    "process",
    hidden=True,
    callback=worker.callback,
    params=worker.params,
    help="""Former name of `windvane worker`.

    \b
    Examples:
      windvane process
    """,
)


@click.command(short_help="Run the web tier alone.")
@tier_options("web", "store", "database", "catalog", if_missing="create")
@_ready_file
@_stop_fd
@click.pass_context
def web(context: click.Context, settings: Settings, ready_file: Path | None, stop_fd: int | None) -> None:
    """Run the web tier: the dashboard, the HTTP API and the live feed.

    \b
    Examples:
      windvane web
      windvane web --home /srv/windvane --web 0.0.0.0:8080
    """
    run_tier(context, "web", settings, ready_file, stop_fd)


def _write_wav(context: click.Context, _option: click.Parameter, file: Path | None) -> None:
    """Write the recording and exit; this needs no home."""
    if file is None or context.resilient_parsing:
        return
    from ..simulation.tone import DURATION_S, write_tone

    write_tone(file)
    click.echo(f"wrote {file}: {DURATION_S:.0f} s of sound; send it with `windvane send TAG {file}`")
    context.exit(0)


@click.command(short_help="Send what a small wind farm would send; or write a recording.")
@tier_options("forward", "database", "catalog", if_missing="ignore")
@click.option(
    "--wav",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_write_wav,
    help="Only write a recording to FILE; send nothing.",
)
@_ready_file
@_stop_fd
@click.pass_context
def simulate(
    context: click.Context, settings: Settings, ready_file: Path | None, stop_fd: int | None
) -> None:
    """Send what a small wind farm would send, in real time, through the forward port.

    Three turbines with vibration sensors and operating data; a bearing of one of them fails repeatedly.
    Policies that do not exist are created.

    \b
    Examples:
      windvane simulate
      windvane simulate --forward 127.0.0.1:24224
      windvane simulate --wav tone.wav
    """
    import uvloop

    from .policy_files import create_demo_policies

    configure_logging("simulation", debug=debug(context), log_format=settings.log_format)
    make_home(settings)
    receiver = Receiver(settings, context.params["forward"])
    settings = msgspec.structs.replace(settings, forward=receiver.address())
    if created := uvloop.run(create_demo_policies(settings)):
        log.info("created the policies %s", ", ".join(created))
    run_tier(context, "simulation", settings, ready_file, stop_fd)


def _tier_plan(command: str, settings: Settings, context: click.Context) -> ChildPlan:
    """`windvane COMMAND` with the settings of `up`; ports that were 0 are replaced by the ones in use."""

    def arguments(reports: Mapping[str, str]) -> Sequence[str]:
        web = reports.get("web", settings.web).removeprefix("http://")
        # -P: a file in the current directory must not replace a module of the same name.
        given = ["-P", "-m", "windvane.cli", *(["--debug"] if debug(context) else []), command]
        given += ["--home", str(settings.home), *config_options(context)]
        if command == "gateway" and (processes := context.params["gateway_processes"]) > 1:
            given += ["--processes", str(processes)]
        given += ["--forward", reports.get("forward", settings.forward), "--web", web]
        return given

    return ChildPlan("simulation" if command == "simulate" else command, arguments)
