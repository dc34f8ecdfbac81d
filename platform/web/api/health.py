"""Whether the installation is healthy: the status of the tiers and of their supervisors."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...runtime.health_conditions import HealthConditions
from ...runtime.supervision import CRASH_LOOP_WINDOW_S, ChildState, running_supervisors
from ..answers import Health, Reason, TierState
from ..tier_client import TIERS, TierClient

START_GRACE_S = 30.0
"""A tier that starts for the first time is not reported as missing for so long."""

STUCK_S = 5.0
"""A tier that takes connections but gives no status within this is stuck."""

_SOCKETLESS = "simulation"


class Expected(NamedTuple):
    """A tier that should run: its name in HOME/run, and what its supervisor says, if it has one."""

    name: str
    state: ChildState | None


class HealthCheck:
    """Collects the reasons why the installation over a home is not healthy.

    Expected are the tiers that a running supervisor has started, and those that have announced themselves in
    HOME/run: only an orderly shutdown removes an announcement. Concurrent requests share one
    collection.
    """

    def __init__(self, tiers: TierClient, own: HealthConditions, *, version: str) -> None:
        """`own` are the troubles of this web tier."""
        self._run_dir = tiers.run_dir
        self._tiers = tiers
        self._own = own
        self._version = version
        self._collecting: asyncio.Task[list[Reason]] | None = None

    async def health(self) -> Health:
        """`ok`, or `unhealthy` with the reasons; takes at most `STUCK_S` and a little."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.ensure_future(self._collect())
        reasons = await asyncio.shield(self._collecting)
        return Health(status="unhealthy" if reasons else "ok", version=self._version, reasons=reasons)

    def tier_states(self) -> dict[str, TierState]:
        """Of the supervised tiers, by name: since when they are in which state, restarts and last exit."""
        return {
            name: TierState(
                state=state.state,
                since=state.since,
                restarts=state.restarts,
                last_exit=state.last_exit,
            )
            for _, supervision in running_supervisors(self._run_dir)
            for name, state in supervision.children.items()
        }

    async def _collect(self) -> list[Reason]:
        expected = await asyncio.to_thread(self._expected)
        found = await asyncio.gather(*(self._reasons(each) for each in expected))
        own = [Reason("web", trouble.code, trouble.detail) for trouble in self._own.current()]
        return [*own, *(reason for reasons in found for reason in reasons)]

    def _expected(self) -> list[Expected]:
        expected = {
            name: Expected(name, state)
            for _, supervision in running_supervisors(self._run_dir)
            for name, state in supervision.children.items()
        }
        for tier in TIERS:
            for path in self._run_dir.glob(f"{tier}*.json"):
                rest = path.name.removesuffix(".json").removeprefix(tier)
                # gateway.exit.json and the like are not announcements.
                if "." not in rest and (not rest or rest.startswith("-")):
                    expected.setdefault(tier + rest, Expected(tier + rest, None))
        return [expected[name] for name in sorted(expected)]

    async def _reasons(self, tier: Expected) -> list[Reason]:
        reasons = []
        if (loop := _crash_loop(tier)) is not None:
            reasons.append(loop)
        if tier.name == "web":  # this process
            return reasons
        if tier.name == _SOCKETLESS:
            return reasons + ([] if loop is not None else _away(tier))
        socket = self._run_dir / f"{tier.name}.sock"
        answer = await self._tiers.ask_status(socket, timeout_s=STUCK_S)
        if answer == "away":
            return reasons + ([] if loop is not None else _away(tier))
        if answer == "stuck":
            detail = (
                f"{tier.name} takes connections but has not answered for {STUCK_S:g} s: its event loop is "
                "blocked, or the machine is overloaded. If it stays so, see its log and restart it"
            )
            return [*reasons, Reason(tier.name, "stuck", detail)]
        if not socket.is_symlink():  # else it belongs to another tier, which is queried by its own name
            reasons += _told(tier.name, answer)
        return reasons


def _told(name: str, status: Mapping[str, Any]) -> Iterable[Reason]:
    """The conditions in the status of a tier; entries of another form are skipped."""
    listed = status.get("troubles")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            yield Reason(name, str(each.get("code", "")), str(each.get("detail", "")))


def _crash_loop(tier: Expected) -> Reason | None:
    state = tier.state
    if state is None or not state.in_crash_loop(time.monotonic()):
        return None
    return Reason(
        tier.name,
        "crash-loop",
        f"{tier.name} ended {len(state.exits_s)} times within {CRASH_LOOP_WINDOW_S:g} s "
        f"(last: {state.last_exit}) and is restarted; {state.restarts} restarts in all. Its log says why",
    )


def _away(tier: Expected) -> list[Reason]:
    state = tier.state
    if state is None:
        detail = f"{tier.name} was started by itself and does not run; start it again, or see its log"
        return [Reason(tier.name, "tier-away", detail)]
    age_s = time.monotonic() - state.since_s
    if state.state == "running" and tier.name == _SOCKETLESS:  # has no socket for queries
        return []
    if state.state == "starting" and age_s < START_GRACE_S:
        return []
    what = {
        "starting": f"has been starting for {age_s:.0f} s",
        "running": "takes no connections; it ended just now, or its socket was removed",
        "restarting": f"ended ({state.last_exit}) {age_s:.0f} s ago and is being restarted",
        "stopped": "is being stopped",
    }[state.state]
    return [Reason(tier.name, "tier-away", f"{tier.name} {what}; its log says why")]
