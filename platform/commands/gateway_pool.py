"""Several gateways behind one forward port: the kernel gives each of them its connections (SO_REUSEPORT)."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from ..addresses import format_address, parse_address
from ..config import Settings, urls_in_environment
from ..errors import ConfigInvalid
from ..runtime.supervisor import ChildPlan, Supervisor


async def serve_gateways(
    settings: Settings,
    *,
    ready: Callable[[dict[str, str]], None],
    stop: asyncio.Event,
    count: int,
    arguments: Sequence[str],
) -> None:
    """Run `count` gateways as processes, instances 1, 2, …, until `stop` is set; then all of them drain.

    A process that dies is restarted; the others keep running. The sockets of this instance in HOME/run are
    links to those of the first. Raises `ConfigInvalid` if the address cannot be bound.
    """
    # Passed in the environment: these URLs can contain passwords, and every user can read the arguments.
    os.environ.update(urls_in_environment(settings))
    with _held_port(settings.forward) as forward:
        instances = [_instance(settings, number) for number in range(1, count + 1)]
        plans = [_plan(instance, forward, arguments) for instance in instances]
        supervisor = Supervisor(
            [plans],
            ready_dir=settings.run_dir,
            name=settings.tier_name("gateway"),
            stops_together=True,
        )
        with _links(settings, instances[0]):
            await supervisor.run(stop, ready=lambda _reports: ready({"forward": forward}))


def _instance(settings: Settings, number: int) -> Settings:
    name = f"{settings.instance}-{number}" if settings.instance else str(number)
    return msgspec.structs.replace(settings, instance=name)


def _plan(instance: Settings, forward: str, arguments: Sequence[str]) -> ChildPlan:
    command = ["-P", "-m", "windvane.cli", "gateway", "--home", str(instance.home), *arguments]
    command += ["--instance", instance.instance, "--forward", forward, "--shares-port"]
    return ChildPlan(instance.tier_name("gateway"), lambda _reports: command)


@contextmanager
def _held_port(address: str) -> Iterator[str]:
    """Bind the port without listening, so that it stays reserved while gateways restart; port 0 is selected
    once for all of them.
    """
    host, port = parse_address(address)
    with _bound(address, host, port) as held:
        yield format_address(host, held.getsockname()[1])


def _bound(address: str, host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            _require_free(family, found)
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(found)
        except OSError:
            held.close()
            raise
        return held
    except OSError as error:
        raise ConfigInvalid(
            f"forward: {address} cannot be bound: {error.strerror or error}; choose another address with "
            "--forward HOST:PORT, port 0 takes any free one"
        ) from error


def _require_free(family: int, address: tuple[Any, ...]) -> None:
    """Raise OSError if another gateway has the port: SO_REUSEPORT would share it silently."""
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)


@contextmanager
def _links(settings: Settings, first: Settings) -> Iterator[None]:
    """Link the gateway's usual socket names to the sockets of the first process."""
    links = {
        settings.run_dir / f"{settings.tier_name('gateway')}.sock": (
            settings.run_dir / f"{first.tier_name('gateway')}.sock"
        ),
        settings.forward_socket: first.forward_socket,
    }
    try:
        for link, target in links.items():
            _replace_with_link(link, target)
        yield
    finally:
        for link in links:
            with suppress(FileNotFoundError):
                link.unlink()


def _replace_with_link(link: Path, target: Path) -> None:
    try:
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
    except OSError as error:
        raise ConfigInvalid(f"{link} cannot be created: {error.strerror or error}; move it") from error
