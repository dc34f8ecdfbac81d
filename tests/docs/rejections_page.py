"""docs/rejections.md, from the table `windvane.rejections.REJECTIONS`."""

from collections.abc import Iterable
from fractions import Fraction

from windvane.rejections import OTHER_VERSIONS, REJECTIONS, SHARES, RejectionKind, Share

_HEAD = """\
# Rejections

<!-- Generated from platform/rejections.py by `make docs`. -->

Windvane rejects what it cannot store, and keeps it as a dead letter: the bytes, the reason, and one of
the codes below. The same codes are in the logs, in the metrics `windvane_gateway_refused_total` and
`windvane_worker_dead_letters_total`, and in the problem details of HTTP answers. List the letters with
`windvane dead-letter list --code CODE`, replay them with `windvane dead-letter replay --code CODE`.

- **Ack** is what a forward sender gets that asks for acks. A chunk that is not acked stays with its
  sender, which retries. If too much of it comes at once, no letter is kept;
  `windvane_gateway_letters_left_out_total` counts these.
- **Replay**: a letter that is kept only in part can never be replayed.
- **Share** is explained under [Shares](#shares).
"""

_BY_GATEWAY = """
## By the gateway

The gateway rejects a chunk before it stores it, and acks it when the letter is durable.
"""

_BY_WORKER = """
## By the worker

The worker rejects chunks that the gateway has acked already. It reads on when the letter is durable.
"""

_SHARES = """
## Shares

The dead letters are bounded (`dead_letter_bytes`, 256 MiB by default). When they are full, the oldest
letters of the code that is furthest over its guarantee leave first. So a flood of one code never evicts
what other codes are guaranteed. A code takes free room up to its maximum. A payload without room in its
share is kept cut.

| share | of | guaranteed | at most |
| --- | --- | --- | --- |
"""

_TAIL = """
The fractions hold for each code of a share by itself. `windvane dead-letter list`, the dashboard,
`GET /api/v1/status` and the metric `windvane_dead_letters_evicted_total` say how many letters have left.
"""


def rejections_page() -> str:
    """The text of the page."""
    of_gateway = [kind for kind in REJECTIONS.values() if kind.tier == "gateway"]
    of_worker = [kind for kind in REJECTIONS.values() if kind.tier == "worker"]
    shares = "".join(_share_row(share) for share in SHARES)
    return (
        f"{_HEAD}{_BY_GATEWAY}\n{_gateway_table(of_gateway)}{_BY_WORKER}\n{_worker_table(of_worker)}"
        f"{_SHARES}{shares}{_TAIL}"
    )


def _gateway_table(kinds: Iterable[RejectionKind]) -> str:
    rows = "".join(
        f"| `{kind.code}` | {kind.cause} {kind.remedy} | {kind.ack} | {_status(kind)} | {_replay(kind)} "
        f"| {kind.share.name} |\n"
        for kind in kinds
    )
    return f"| code | what happened, what to do | ack | HTTP | replay | share |\n{'| --- ' * 6}|\n{rows}"


def _worker_table(kinds: Iterable[RejectionKind]) -> str:
    rows = "".join(
        f"| `{kind.code}` | {kind.cause} {kind.remedy} | {_replay(kind)} | {kind.share.name} |\n"
        for kind in kinds
    )
    return f"| code | what happened, what to do | replay | share |\n{'| --- ' * 4}|\n{rows}"


def _status(kind: RejectionKind) -> str:
    return "" if kind.http_status is None else str(int(kind.http_status))


def _replay(kind: RejectionKind) -> str:
    return "yes" if kind.is_replayable else "no"


def _share_row(share: Share) -> str:
    codes = ", ".join(f"`{kind.code}`" for kind in REJECTIONS.values() if kind.share is share)
    meaning = share.meaning if share is OTHER_VERSIONS else f"{share.meaning}: {codes}"
    return f"| {share.name} | {meaning} | {_fraction(share.guaranteed)} | {_fraction(share.at_most)} |\n"


def _fraction(fraction: Fraction) -> str:
    return "all" if fraction == 1 else f"1/{1 / fraction}"
