"""The health code of what has stopped a stream."""

import errno

from ..errors import BusUnavailable, CheckpointMissing, ResultsNotPublished


def trouble_code(error: BaseException) -> str:
    """One of the codes of `GET /api/v1/health`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk-full"
        cause = cause.__cause__
    if isinstance(error, CheckpointMissing):
        return "no-checkpoint"
    if isinstance(error, (BusUnavailable, ResultsNotPublished)):
        return "bus-away"
    if isinstance(error, OSError):
        return "io-error"
    return "stuck"
