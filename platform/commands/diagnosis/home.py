"""The home: who may read it, whose files lie in it, and whether its databases are whole."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...config import Settings
from ...errors import WindvaneError
from ...runtime.home_modes import DATABASE_SUFFIXES, home_mode
from ...runtime.supervision import running_supervisors
from ..common.progress import plural
from .finding import Finding, failure, ok, skipped, warning

MAX_WALKED = 20_000
"""Files whose owner is looked at."""

FULL_CHECK_BYTES = 256 * 1024 * 1024
"""A database up to this size is checked whole, a larger one by `quick_check`."""

_SECRETS = ("token", "forward-security.toml")
_CODE = ("operations", "models")
_OTHERS_WRITE = 0o022


def check_home(settings: Settings) -> Iterator[Finding]:
    """All checks of this module."""
    if not settings.home.is_dir():
        yield skipped("home", f"there is no home {settings.home} yet; `windvane up` makes it")
        return
    yield from check_modes(settings)
    yield check_owners(settings)
    yield from check_databases(settings)
    yield from check_tiers(settings)


def check_modes(settings: Settings) -> Iterator[Finding]:
    """What other users may do with what lies in the home."""
    allowed = home_mode(settings)
    home = settings.home
    loose = [(home, allowed)]
    if home.stat().st_mode & 0o077:  # otherwise other users cannot reach the files in it
        loose += [(path, allowed & 0o666) for path in home.iterdir() if path.name.endswith(DATABASE_SUFFIXES)]
        loose += [(home / name, 0o600) for name in _SECRETS]
        loose.append((settings.run_dir, 0o700))
    if settings.kafka.password_file is not None:
        loose.append((home / settings.kafka.password_file, 0o600))
    found = 0
    for path, most in loose:
        mode = _mode(path)
        if mode is not None and mode & 0o777 & ~most:
            found += 1
            yield failure(
                "file modes",
                f"{path} has mode {mode:04o}: other users may use what is in it",
                f"chmod {mode & most:04o} {path}; at its start a tier does so for the home and its databases",
            )
    for folder in (home / name for name in _CODE):
        for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
            mode = _mode(path)
            if mode is not None and mode & _OTHERS_WRITE:
                found += 1
                yield failure(
                    "file modes",
                    f"{path} has mode {mode:04o}: other users may change code that the worker runs",
                    f"chmod go-w {path}, if you trust what is in it",
                )
    if not found:
        yield ok("file modes", f"no other user may read {home} or change the code that is run")


def check_owners(settings: Settings) -> Finding:
    """Whether all that lies in the home belongs to the user that the home belongs to."""
    home = settings.home
    owner = home.stat().st_uid
    others, walked, example = 0, 0, home
    for folder, _, names in os.walk(home):
        for path in (Path(folder), *(Path(folder) / name for name in names)):
            walked += 1
            try:
                is_other = path.lstat().st_uid != owner
            except FileNotFoundError:
                continue
            if is_other:
                others, example = others + 1, path
        if walked > MAX_WALKED:
            break
    if settings.home_mode is not None:
        return ok("owners", f"{home} is shared (home_mode = {settings.home_mode})")
    if others:
        return failure(
            "owners",
            f"{others} of {walked} files do not belong to user {owner} as {home} does, such as {example}",
            f"end Windvane, then chown -R {owner} {home}",
        )
    if owner != os.geteuid():
        return warning(
            "owners",
            f"{home} belongs to user {owner}, and you are user {os.geteuid()}",
            f"run Windvane as user {owner}; a command that you run here may leave files that it cannot write",
        )
    return ok("owners", f"all of {walked:,} files belong to user {owner}")


def check_databases(settings: Settings) -> Iterator[Finding]:
    """Each database: it can be opened, its pages are whole, its version is known."""
    if settings.database is None:
        yield from check_checkpoints_exist(settings)
    else:
        yield check_server(settings.database)
    for path in sorted(settings.home.glob("*.sqlite")):
        yield check_database(path, known_version(path.name))
    if settings.has_catalog_elsewhere:
        yield check_catalog(settings)


def check_server(url: str) -> Finding:
    """The database server: it answers, and its tables have a known version."""
    import sqlalchemy as sa

    from ...store.databases import checkpoint_schema, dead_letter_schema
    from ...store.databases.database import open_reader

    streams = sa.select(sa.func.count()).select_from(checkpoint_schema.streams)
    kept = sa.select(dead_letter_schema.totals.c.letters)
    counts = []
    try:
        for schema, count in ((checkpoint_schema.SCHEMA, streams), (dead_letter_schema.SCHEMA, kept)):
            with closing(open_reader(url, schema)) as database, database.reading("count") as connection:
                counts.append(connection.execute(count).scalar_one())
    except WindvaneError as error:
        remedy = "check that it runs and that the URL of --database is right"
        return failure("database server", str(error), remedy)
    found = f"{plural(counts[0], 'checkpoint')}, {plural(counts[1], 'dead letter')}"
    return ok("database server", f"answers; {found}")


def check_checkpoints_exist(settings: Settings) -> Iterator[Finding]:
    """A store with streams needs its checkpoints: without them no stream resumes."""
    from ...store.interface import open_store

    path = settings.checkpoint_file
    if path.exists() or not settings.store_dir.is_dir():
        return
    if streams := len(open_store(settings.store, settings.home).streams()):
        yield failure(
            f"database {path.name}",
            f"{path} is missing, and the store has {plural(streams, 'stream')}: none resumes",
            "stop Windvane and restore the latest copy first; if there is none, `windvane verify --repair`, "
            "then `windvane recover list`",
        )


def known_version(name: str) -> int | None:
    """The `user_version` that this Windvane writes into the database of that name; None: it has none."""
    from ...store.databases import checkpoint_schema, dead_letter_schema

    versions = {
        "checkpoints.sqlite": checkpoint_schema.VERSION,
        "dead-letters.sqlite": dead_letter_schema.VERSION,
    }
    return versions.get(name)


def check_database(path: Path, version: int | None = None) -> Finding:
    """One SQLite file, read and never written; one without a write-ahead log is not in use and not locked."""
    check = f"database {path.name}"
    use = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    whole = path.stat().st_size <= FULL_CHECK_BYTES
    pragma = "integrity_check" if whole else "quick_check"
    damaged = (
        "stop Windvane, keep the file and its -wal, and restore it from a copy; `windvane verify` says what "
        "else is affected. Do not start without it: stored chunks could not be distinguished from resent ones"
    )
    began_s = time.monotonic()
    try:
        database = sqlite3.connect(f"{path.as_uri()}?{use}", uri=True, timeout=10.0)
        try:
            reports = [row[0] for row in database.execute(f"PRAGMA {pragma}(3)")]
            found = database.execute("PRAGMA user_version").fetchone()[0]
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        if "locked" in str(error):
            return skipped(check, f"{path} is being written; try again")
        return failure(check, f"{path} cannot be read: {error}", damaged)
    if reports != ["ok"]:
        return failure(check, f"{path} is damaged: {'; '.join(map(str, reports))}", damaged)
    if version is not None and found > version:
        return failure(
            check,
            f"{path} has format {found}, this Windvane knows {version}",
            "use the newer Windvane that wrote it",
        )
    upgrade = "" if version is None or found == version else f"; it becomes {version} when a tier starts"
    took_s = time.monotonic() - began_s
    return ok(check, f"whole ({pragma}, {took_s:.1f} s), format {found}{upgrade}")


def check_catalog(settings: Settings) -> Finding:
    """A catalog that lies elsewhere: whether it answers. Its password is not shown."""
    import sqlalchemy as sa

    from ...store.catalog.catalog import Catalog
    from ...store.databases.database import shown_url

    where = shown_url(sa.make_url(settings.catalog_url))

    async def ask() -> int:
        catalog = await Catalog.open(settings.catalog_url)
        try:
            return await catalog.revision()
        finally:
            await catalog.close()

    try:
        revision = asyncio.run(ask())
    except WindvaneError as error:
        return failure(
            "catalog", str(error), "check that the database runs and that the URL of --catalog is right"
        )
    return ok("catalog", f"{where} answers, at revision {revision}")


def check_tiers(settings: Settings) -> Iterator[Finding]:
    """What the supervisors that run over the home say."""
    for name, supervision in running_supervisors(settings.run_dir):
        for child, state in supervision.children.items():
            check = f"tier {child}"
            if state.in_crash_loop(time.monotonic()):
                yield failure(
                    check,
                    f"ends again and again ({state.restarts} restarts, last: {state.last_exit})",
                    f"see what it says last in the log of `windvane {name}`",
                )
            elif state.state == "running" and (problem := tier_problem(settings.run_dir, child)):
                yield failure(
                    check,
                    f"{problem}; its process has been there since {state.since}",
                    f"see the log of `windvane {name}`; if it stays so, restart it; acked data is kept",
                )
            elif state.state == "running":
                yield ok(check, f"running since {state.since}, {state.restarts} restarts")
            else:
                yield warning(check, f"{state.state} since {state.since}", "wait, or see its log")


def tier_problem(run_dir: Path, tier: str) -> str | None:
    """Why a tier whose process exists does not answer; None if it answers, or has no socket."""
    from aiohttp import web

    from ...web.api.health import STUCK_S
    from ...web.tier_client import TierClient

    if not tier.startswith(("gateway", "worker")):
        return None

    async def ask() -> object:
        tiers = TierClient(run_dir)
        async with contextlib.asynccontextmanager(tiers.closing)(web.Application()):
            return await tiers.ask_status(run_dir / f"{tier}.sock", timeout_s=STUCK_S)

    answer = asyncio.run(ask())
    if answer == "stuck":
        return f"has not answered for {STUCK_S:g} s: it is stopped or blocked, or the machine is overloaded"
    return "takes no connections" if answer == "away" else None


def _mode(path: Path) -> int | None:
    """The permissions of what `path` is or leads to; None: there is nothing."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
