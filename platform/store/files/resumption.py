"""The errors of a writer whose bytes no checkpoint, or only an older one, covers."""

from ...errors import CheckpointMissing


def no_checkpoint(reference: str, held: str, *, other: bool) -> CheckpointMissing:
    """The output holds bytes that no checkpoint covers, or only one of another output (`other`)."""
    stream = reference.partition(":")[0]
    cause = "the checkpoint is of another output of this name" if other else "no checkpoint covers them"
    return CheckpointMissing(
        f"{reference} holds {held}, and {cause}. Cutting them off could lose data, so the stream stops and "
        f"its files stay as they are. Bring back the checkpoint database if you have it; else "
        f"`windvane recover adopt {stream}` continues after what is there, and "
        f"`windvane recover rebuild {stream}` sets it aside and rebuilds it from the bus"
    )


def older_checkpoint(reference: str, lengths: str) -> CheckpointMissing:
    """The output was committed further than the checkpoint says: the database is an old copy."""
    stream = reference.partition(":")[0]
    return CheckpointMissing(
        f"{reference}: the checkpoint is older than the stream ({lengths}). Cutting back could lose data, so "
        "the stream stops and its files stay as they are. Bring back the latest checkpoint database if you "
        f"have it; else `windvane recover adopt {stream}` continues after what is there"
    )
