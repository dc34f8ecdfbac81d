"""The commands that run: `up`, which starts all tiers, and each tier by itself."""

import asyncio
import fcntl
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from ..config import Settings, ensure_token, make_home, make_run_dir
from ..errors import ConfigInvalid, StoreLocked, WindvaneError
from ..ingest.security.settings import require_guarded_port
from ..runtime.announcements import announce, tier_file
from ..runtime.home_modes import secure_home
from ..runtime.installations import noted_as_running
from ..runtime.supervisor import ChildPlan, Supervisor, stop_at_end_of_file
from .common.logs import configure_logging, say_lost_errors_in_words
from .common.options import tier_options
from .common.receiver import Receiver
from .welcome import welcome

log = logging.getLogger(__name__)

MAX_GATEWAYS = 64
EXIT_INTERRUPTED = 128 + signal.SIGINT

_ready_file = click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Written, as JSON, when all is ready.",
)
_gateways = click.option(
    "--workers",
    type=click.IntRange(1, MAX_GATEWAYS),
    default=1,
    metavar="N",
    help="Gateway processes behind the one forward port; more than one needs a Kafka bus.",
)
_stop_fd = click.option("--stop-fd", type=int, hidden=True)


@click.command()
@tier_options("forward", "web", "bus", "catalog", if_missing="make")
@_gateways
@_ready_file
@click.option(
    "--demo", is_flag=True, help="Add a small simulated wind park that sends through the forward port."
)
@click.pass_context
def up(context: click.Context, settings: Settings, workers: int, ready_file: Path | None, demo: bool) -> None:
    """Run everything: gateway, worker and web over one home directory.

    The ready file holds {"forward": "HOST:PORT", "web": "http://HOST:PORT", "token": "…"} and can be read by
    you alone. Port 0 picks a free port.

    \b
    Examples:
      windvane up --demo
      windvane up --home /srv/windvane --web 127.0.0.1:9000
      windvane up --bus kafka://10.0.0.5:9092 --workers 4
      windvane up --forward 127.0.0.1:0 --web 127.0.0.1:0 --ready-file ready.json
    """
    require_guarded_port(settings)
    _require_bus_for(settings, gateways=workers)
    _require_folder_of(ready_file)
    configure_logging("up", debug=_debug(context))
    raise_open_file_limit()
    secure_home(settings)
    make_run_dir(settings)
    token = ensure_token(settings)
    # To the children by their environment: these URLs can hold passwords, and anybody can see arguments.
    os.environ.update({"WINDVANE_BUS": settings.bus, "WINDVANE_CATALOG": settings.catalog or ""})
    stages = [[_tier_plan(name, settings, context) for name in ("gateway", "process", "web")]]
    if demo:
        stages.append([_tier_plan("simulate", settings, context)])

    def ready(report: Mapping[str, str]) -> None:
        if ready_file is not None:
            announce(ready_file, {"forward": report["forward"], "web": report["web"], "token": token})
        click.echo(welcome(settings, report, demo=demo))

    with _only_one(settings, "up", called="another `windvane up`"), noted_as_running(settings.home, "up"):
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)  # a reader must not take an earlier run's word
        click.echo("windvane: starting gateway, worker and web …", err=True)
        supervisor = Supervisor(stages, ready_dir=settings.run_dir)
        context.exit(asyncio.run(_until_signal(supervisor, ready)))


@click.command(short_help="Run the gateway alone.")
@tier_options("forward", "bus", "catalog", "instance", if_missing="make")
@_gateways
@click.option("--shares-port", is_flag=True, hidden=True)
@_ready_file
@_stop_fd
@click.pass_context
def gateway(
    context: click.Context,
    settings: Settings,
    workers: int,
    shares_port: bool,
    ready_file: Path | None,
    stop_fd: int | None,
) -> None:
    """Run the gateway: takes in what forwarders send, checks it, and acks what is durable.

    \b
    Examples:
      windvane gateway
      windvane gateway --home /srv/windvane --forward 127.0.0.1:24224
      windvane gateway --bus kafka://10.0.0.5:9092 --workers 4
      windvane gateway --bus kafka://10.0.0.5:9092 --instance b --forward 127.0.0.1:24225
    """
    require_guarded_port(settings)
    if workers > 1:
        run_gateways(context, settings, workers, ready_file, stop_fd)
    else:
        run_tier(context, "gateway", settings, ready_file, stop_fd, shares_port=shares_port)


@click.command(short_help="Run the worker alone.")
@tier_options("bus", "catalog", "instance", if_missing="make")
@_ready_file
@_stop_fd
@click.pass_context
def process(context: click.Context, settings: Settings, ready_file: Path | None, stop_fd: int | None) -> None:
    """Run the worker: archives what the gateway took in and runs the policies' pipelines on it.

    \b
    Examples:
      windvane process
      windvane process --home /srv/windvane
      windvane process --home /srv/windvane --instance b
    """
    run_tier(context, "process", settings, ready_file, stop_fd)


@click.command(short_help="Run the web tier alone.")
@tier_options("web", "catalog", if_missing="make")
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
    """Writes the recording and ends, before a home is looked for: it needs none."""
    if file is None or context.resilient_parsing:
        return
    from ..simulation.tone import DURATION_S, write_tone

    write_tone(file)
    click.echo(f"wrote {file}: {DURATION_S:.0f} s of sound; send it with `windvane send TAG {file}`")
    context.exit(0)


@click.command(short_help="Send what a small wind park would send; or write a recording.")
@tier_options("forward", "catalog", if_missing="go on")
@click.option(
    "--wav",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_write_wav,
    help="Only write a recording to FILE, to send and to look at; nothing is sent.",
)
@_ready_file
@_stop_fd
@click.pass_context
def simulate(
    context: click.Context, settings: Settings, ready_file: Path | None, stop_fd: int | None
) -> None:
    """Send what a small wind park would send, in real time, through the forward port.

    Three turbines with vibration sensors and operating data; on one of them a bearing fails again and again.
    Its policies are created where they do not exist.

    \b
    Examples:
      windvane simulate
      windvane simulate --forward 127.0.0.1:24224
      windvane simulate --wav tone.wav
    """
    import uvloop

    from .policy_files import create_demo_policies

    configure_logging("simulation", debug=_debug(context))
    make_home(settings)
    receiver = Receiver(settings, context.params["forward"])
    settings = msgspec.structs.replace(settings, forward=receiver.address())
    if created := uvloop.run(create_demo_policies(settings)):
        log.info("created the policies %s", ", ".join(created))
    run_tier(context, "simulate", settings, ready_file, stop_fd)


_NAMES = {"gateway": "gateway", "process": "worker", "web": "web", "simulate": "simulation"}
"""Of the commands' tiers, in the log and in HOME/run."""

_CALLED = {"gateway": "a gateway", "worker": "a worker", "web": "a web tier", "simulation": "a simulation"}


def _serve_of(
    command: str, settings: Settings, *, shares_port: bool
) -> Callable[..., Coroutine[Any, Any, None]]:
    """The tier's `serve`; each is imported where it runs alone, since together they are slow to import."""
    if command == "gateway":
        from ..ingest.tier import serve as serve_gateway

        return partial(serve_gateway, shares_port=shares_port)
    if command == "process":
        from ..processors.worker.tier import serve as serve_worker

        return serve_worker
    if command == "web":
        from ..processors.operations.base.user_operations import UserOperations
        from ..web.tier import serve as serve_web

        # The web knows no operations: whether a pipeline can run is handed in.
        return partial(serve_web, check_policy=UserOperations(settings.operations_dir).check_pipeline)
    from ..simulation.tier import serve as serve_simulation

    return serve_simulation


def run_tier(
    context: click.Context,
    command: str,
    settings: Settings,
    ready_file: Path | None,
    stop_fd: int | None,
    *,
    shares_port: bool = False,
) -> None:
    """Run one tier in this process until SIGTERM (exit code 0), Ctrl-C (130) or the end of `stop_fd`.

    Raises `StoreLocked` where one like it runs over the home: before its sockets and its announcement, which
    only the holder of the lock may take away, are touched.
    """
    name = _NAMES[command]
    _require_folder_of(ready_file)
    # The name of an instance tells the lines of several apart in one log.
    log_name = settings.tier_name(name) if name in ("gateway", "worker") else name
    configure_logging(log_name, debug=_debug(context))
    secure_home(settings)
    make_run_dir(settings)
    with only_one_tier(settings, name), noted_as_running(settings.home, name):
        import uvloop

        serve = _serve_of(command, settings, shares_port=shares_port)
        context.exit(_serve_tier(command, settings, ready_file, stop_fd, serve, run=uvloop.run))


def run_gateways(
    context: click.Context, settings: Settings, count: int, ready_file: Path | None, stop_fd: int | None
) -> None:
    """Run `count` gateways behind one port until told to end, as `run_tier` is. Raises `ConfigInvalid` where
    the bus takes one, `StoreLocked` where a gateway of this instance runs.
    """
    from .gateway_pool import serve_gateways

    _require_bus_for(settings, gateways=count)
    _require_folder_of(ready_file)
    configure_logging("gateway", debug=_debug(context))
    secure_home(settings)
    make_run_dir(settings)
    serve = partial(serve_gateways, count=count, arguments=_own_options(context))
    with only_one_tier(settings, "gateway"), noted_as_running(settings.home, "gateway"):
        # uvloop starts no process in a group of its own.
        context.exit(_serve_tier("gateway", settings, ready_file, stop_fd, serve, run=asyncio.run))


def _require_bus_for(settings: Settings, *, gateways: int) -> None:
    from ..bus import takes_many_gateways

    if gateways > 1 and not takes_many_gateways(settings.bus):
        raise ConfigInvalid(
            f"--workers {gateways}: the embedded bus takes one gateway; leave --workers out, or name a Kafka "
            "cluster with --bus kafka://HOST:PORT"
        )


def _serve_tier(
    command: str,
    settings: Settings,
    ready_file: Path | None,
    stop_fd: int | None,
    serve: Callable[..., Coroutine[Any, Any, None]],
    *,
    run: Callable[[Coroutine[Any, Any, int]], int],
) -> int:
    name = _NAMES[command]
    raise_open_file_limit()
    announced = tier_file(settings, name)

    def ready(report: dict[str, str]) -> None:
        # Not announced: the port opens by itself, and what is announced would stay.
        shut = report.pop("shut", None)
        announce(announced, report)
        if ready_file is not None:
            announce(ready_file, report)
        if shut:
            log.info("ready, forward port %s shut", report["forward"])
        else:
            log.info("ready%s", "".join(f", {what} {where}" for what, where in report.items()))

    async def serve_until_stopped() -> int:
        stop = asyncio.Event()
        say_lost_errors_in_words(asyncio.get_running_loop())
        received = _stop_at_signals(stop)
        if stop_fd is not None:
            loop = asyncio.get_running_loop()
            stop_at_end_of_file(stop_fd, lambda: loop.call_soon_threadsafe(stop.set))
        await serve(settings, ready=ready, stop=stop)
        log.info("ended")
        return EXIT_INTERRUPTED if signal.SIGINT in received else 0

    try:
        return run(serve_until_stopped())
    except WindvaneError:
        raise
    except Exception as error:
        from ..runtime.health_conditions import code_of

        if (code := code_of(error)) is None:
            log.critical("ended by an error", exc_info=True)
        else:
            log.critical("ended, %s: %s; %s", code, error, _WHAT_TO_DO[code])
        return 1
    finally:
        announced.unlink(missing_ok=True)


_WHAT_TO_DO = {
    "disk-full": "make room on that disk; nothing that was acked is lost",
    "io-error": "check the disk and the kernel's log (dmesg); then start again",
}


def raise_open_file_limit() -> None:
    """Allow this process and its children as many open files as the system lets them have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _until_signal(supervisor: Supervisor, ready: Callable[[Mapping[str, str]], None]) -> int:
    stop = asyncio.Event()
    received = _stop_at_signals(stop)
    await supervisor.run(stop, ready=ready)
    return EXIT_INTERRUPTED if signal.SIGINT in received else 0


def _stop_at_signals(stop: asyncio.Event) -> list[signal.Signals]:
    """Set `stop` at the first SIGINT, SIGTERM or SIGHUP; the next one ends the process as it would any."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    received: list[signal.Signals] = []

    def take(number: signal.Signals) -> None:
        received.append(number)
        stop.set()
        for each in numbers:
            loop.remove_signal_handler(each)

    for number in numbers:
        loop.add_signal_handler(number, take, number)
    return received


def _tier_plan(command: str, settings: Settings, context: click.Context) -> ChildPlan:
    """`windvane COMMAND` with the settings of `up`, and with the ports that were got from port 0."""

    def arguments(reports: Mapping[str, str]) -> Sequence[str]:
        web = reports.get("web", settings.web).removeprefix("http://")
        # -P: a file in the current directory must not stand in for a module of the same name.
        given = ["-P", "-m", "windvane.cli", *(["--debug"] if _debug(context) else []), command]
        given += ["--home", str(settings.home), *_own_options(context)]
        if command == "gateway" and (workers := context.params.get("workers", 1)) > 1:
            given += ["--workers", str(workers)]
        given += ["--forward", reports.get("forward", settings.forward), "--web", web]
        return given

    return ChildPlan(_NAMES[command], arguments)


def _own_options(context: click.Context) -> list[str]:
    """What a child of this process is to be given as this one was."""
    config = context.params.get("config")
    return [] if config is None else ["--config", str(config)]


def _require_folder_of(ready_file: Path | None) -> None:
    """Refuse at once what could not be written at the end. Raises `ConfigInvalid`."""
    if ready_file is None:
        return
    folder = ready_file.absolute().parent
    if not folder.is_dir():
        raise ConfigInvalid(f"--ready-file {ready_file}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigInvalid(f"--ready-file {ready_file}: you may not write in {folder}; name another folder")


@contextmanager
def only_one_tier(settings: Settings, tier: str) -> Iterator[None]:
    """Hold the lock of this instance of the tier; on a bus that takes one gateway, that of all gateways."""
    from ..bus import takes_many_gateways

    called, hint = _CALLED[tier], ""
    name = tier
    if tier == "gateway" and not takes_many_gateways(settings.bus):
        if settings.instance:
            hint = "; the embedded bus takes one gateway, a Kafka cluster (--bus kafka://HOST:PORT) many"
    elif tier in ("gateway", "worker"):
        name = settings.tier_name(tier)
        if settings.instance:
            called += f" {settings.instance!r}"
        hint = "; --instance NAME runs another beside it"
    with _only_one(settings, name, called=called, hint=hint):
        yield


@contextmanager
def _only_one(settings: Settings, name: str, *, called: str, hint: str = "") -> Iterator[None]:
    """Hold HOME/run/NAME.lock, so that a second one over the same home says so instead of fighting.

    The kernel lets go of it with the process, however that ends.
    """
    with open(settings.run_dir / f"{name}.lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StoreLocked(
                f"{called} (process {file.read(32).strip()}) runs over {settings.home} already; end it "
                f"first, or give this one another --home{hint}"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _debug(context: click.Context) -> bool:
    return bool((context.find_root().obj or {}).get("debug"))
