"""Runs one tier in this process: lock, announcement, signals and exit code."""

import asyncio
import fcntl
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...config import Settings
from ...errors import ConfigInvalid, StoreLocked, WindvaneError
from ...home import make_run_dir
from ...runtime.announcements import announce, tier_file
from ...runtime.home_modes import secure_home
from ...runtime.installations import noted_as_running
from ...runtime.supervisor import Supervisor, stop_at_end_of_file
from .logs import configure_logging, say_lost_errors_in_words

log = logging.getLogger("windvane.commands.tiers")

EXIT_INTERRUPTED = 128 + signal.SIGINT

_CALLED = {"gateway": "a gateway", "worker": "a worker", "web": "a web tier", "simulation": "a simulation"}


def _serve_of(
    name: str, settings: Settings, *, shares_port: bool
) -> Callable[..., Coroutine[Any, Any, None]]:
    """The `serve` function of a tier, imported here: together the tiers are slow to import."""
    if name == "gateway":
        from ...ingest.tier import serve as serve_gateway

        return partial(serve_gateway, shares_port=shares_port)
    if name == "worker":
        from ...processors.worker.tier import serve as serve_worker

        return serve_worker
    if name == "web":
        from ...processors.operations.base.user_operations import UserOperations
        from ...web.tier import serve as serve_web

        # The web tier does not import operations: the check of a pipeline is passed in.
        return partial(serve_web, check_policy=UserOperations(settings.operations_dir).check_pipeline)
    from ...simulation.tier import serve as serve_simulation

    return serve_simulation


def run_tier(
    context: click.Context,
    name: str,
    settings: Settings,
    ready_file: Path | None,
    stop_fd: int | None,
    *,
    shares_port: bool = False,
) -> None:
    """Run the tier `name` in this process until SIGTERM (exit code 0), Ctrl-C (130) or the end of `stop_fd`.

    Raises:
        StoreLocked: a tier of this name and instance runs over the home. Its sockets and its announcement,
            which only the holder of the lock may remove, are not touched.
    """
    require_folder_of(ready_file)
    # With the instance: several instances may write to one log.
    log_name = settings.tier_name(name) if name in ("gateway", "worker") else name
    configure_logging(log_name, debug=debug(context), log_format=settings.log_format)
    secure_home(settings)
    make_run_dir(settings)
    with only_one_tier(settings, name), noted_as_running(settings.home, name):
        import uvloop

        serve = _serve_of(name, settings, shares_port=shares_port)
        context.exit(_serve_tier(name, settings, ready_file, stop_fd, serve, run=uvloop.run))


def run_gateways(
    context: click.Context, settings: Settings, count: int, ready_file: Path | None, stop_fd: int | None
) -> None:
    """Run `count` gateway processes behind one port until SIGTERM, Ctrl-C or the end of `stop_fd`.

    Raises:
        ConfigInvalid: the bus supports a single gateway process.
        StoreLocked: a gateway of this instance runs over the home.
    """
    from ..gateway_pool import serve_gateways

    require_bus_for(settings, gateway_processes=count)
    require_folder_of(ready_file)
    configure_logging("gateway", debug=debug(context), log_format=settings.log_format)
    secure_home(settings)
    make_run_dir(settings)
    serve = partial(serve_gateways, count=count, arguments=config_options(context))
    with only_one_tier(settings, "gateway"), noted_as_running(settings.home, "gateway"):
        # uvloop starts no process in a group of its own.
        context.exit(_serve_tier("gateway", settings, ready_file, stop_fd, serve, run=asyncio.run))


def require_bus_for(settings: Settings, *, gateway_processes: int) -> None:
    """Raise `ConfigInvalid` if the bus does not support that many gateway processes."""
    from ...bus import takes_many_gateways

    if gateway_processes > 1 and not takes_many_gateways(settings.bus):
        raise ConfigInvalid(
            f"{gateway_processes} gateway processes: the embedded bus supports one; leave the option out, or "
            "use a Kafka cluster (--bus kafka://HOST:PORT)"
        )


def _serve_tier(
    name: str,
    settings: Settings,
    ready_file: Path | None,
    stop_fd: int | None,
    serve: Callable[..., Coroutine[Any, Any, None]],
    *,
    run: Callable[[Coroutine[Any, Any, int]], int],
) -> int:
    raise_open_file_limit()
    announced = tier_file(settings, name)

    def ready(report: dict[str, str]) -> None:
        # Not announced: the announcement is written once, and the port opens later.
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
        from ...runtime.health_conditions import code_of

        if (code := code_of(error)) is None:
            log.critical("ended by an error", exc_info=True)
        else:
            log.critical("ended, %s: %s; %s", code, error, _WHAT_TO_DO[code])
        return 1
    finally:
        announced.unlink(missing_ok=True)


_WHAT_TO_DO = {
    "disk-full": "free space on that disk; nothing that was acked is lost",
    "io-error": "check the disk and the kernel's log (dmesg); then restart",
}


def raise_open_file_limit() -> None:
    """Raise the limit of open files of this process and its children to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run_until_signal(supervisor: Supervisor, ready: Callable[[Mapping[str, str]], None]) -> int:
    """Run the supervisor until a signal; return the exit code."""
    stop = asyncio.Event()
    received = _stop_at_signals(stop)
    await supervisor.run(stop, ready=ready)
    return EXIT_INTERRUPTED if signal.SIGINT in received else 0


def _stop_at_signals(stop: asyncio.Event) -> list[signal.Signals]:
    """Set `stop` on the first SIGINT, SIGTERM or SIGHUP; the second has its default effect."""
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


def config_options(context: click.Context) -> list[str]:
    """The `--config` and `--log-format` options of this process, for its children."""
    given = {"--config": context.params.get("config"), "--log-format": context.params.get("log_format")}
    return [part for name, value in given.items() if value is not None for part in (name, str(value))]


def require_folder_of(ready_file: Path | None) -> None:
    """Raise `ConfigInvalid` if the ready file could not be written."""
    if ready_file is None:
        return
    folder = ready_file.absolute().parent
    if not folder.is_dir():
        raise ConfigInvalid(f"--ready-file {ready_file}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigInvalid(f"--ready-file {ready_file}: no permission to write to {folder}; use another")


@contextmanager
def only_one_tier(settings: Settings, tier: str) -> Iterator[None]:
    """Hold the lock of this tier and instance, or of all gateways if the bus supports one."""
    from ...bus import takes_many_gateways

    called, hint = _CALLED[tier], ""
    name = tier
    if tier == "gateway" and not takes_many_gateways(settings.bus):
        if settings.instance:
            hint = "; the embedded bus supports one gateway, Kafka (--bus kafka://HOST:PORT) several"
    elif tier in ("gateway", "worker"):
        name = settings.tier_name(tier)
        if settings.instance:
            called += f" {settings.instance!r}"
        hint = "; --instance NAME runs another one"
    with only_one(settings, name, called=called, hint=hint):
        yield


@contextmanager
def only_one(settings: Settings, name: str, *, called: str, hint: str = "") -> Iterator[None]:
    """Hold HOME/run/NAME.lock. Raises `StoreLocked` if another process holds it.

    The kernel releases the lock when the process ends, however it ends.
    """
    with open(settings.run_dir / f"{name}.lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StoreLocked(
                f"{called} (process {file.read(32).strip()}) already runs over {settings.home}; stop it "
                f"first, or use another --home{hint}"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def debug(context: click.Context) -> bool:
    """Whether --debug was given."""
    return bool((context.find_root().obj or {}).get("debug"))
