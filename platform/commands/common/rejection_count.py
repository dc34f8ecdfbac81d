"""How many of the events that were acked were rejected, asked of the gateway that took them."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from .tier_answers import ask_tiers

ASK_CHUNKS = 1_000
"""Chunks per request to the gateway; it remembers the last 16,384 with rejected events."""
_ANSWER_TIMEOUT_S = 10.0


class RejectionCount:
    """Counts the rejected events of one sender; `run_dir` is that of the gateway's home, None if unknown.

    Memory: the IDs of at most `ASK_CHUNKS` chunks, and of those that are acked while it asks.

    Attributes:
        by_code: how many events were rejected so far, by the code of the reason.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self.by_code: Counter[str] = Counter()
        self._run_dir = run_dir
        self._acked: dict[str, int] = {}

    def acked(self, chunk_id: str, events: int) -> None:
        """A chunk of `events` events was acked."""
        if self._run_dir is not None:
            self._acked[chunk_id] = events

    async def ask_if_many(self) -> None:
        """Ask about what was acked since the last time, if it is much."""
        if len(self._acked) >= ASK_CHUNKS:
            await self.ask()

    async def ask(self) -> None:
        """Ask about what was acked since the last time; a gateway that does not answer is not asked again."""
        while self._acked and self._run_dir is not None:
            asked = dict(list(self._acked.items())[:ASK_CHUNKS])
            for chunk_id in asked:
                del self._acked[chunk_id]
            found = await asyncio.to_thread(_ask, self._run_dir, list(asked))
            if found is None:
                self._run_dir = None
                self._acked.clear()
                return
            for chunk_id, rejection in found.items():
                events = rejection["events"]
                self.by_code[rejection["code"]] += asked[chunk_id] if events is None else events


def _ask(run_dir: Path, chunk_ids: list[str]) -> dict[str, Any] | None:
    """The answers of all gateways of the home together; None if none of them has one."""
    answers = ask_tiers(
        run_dir, "gateway", "/rejections", timeout_s=_ANSWER_TIMEOUT_S, question={"chunks": chunk_ids}
    )
    return {name: each for answer in answers for name, each in answer.items()} if answers else None
