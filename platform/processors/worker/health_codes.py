"""The health code of what has stopped a stream."""

from ...errors import BusUnavailable, CheckpointMissing, ResultsNotPublished
from ...runtime.health_conditions import HealthCode, code_of


def health_code(error: BaseException) -> HealthCode:
    """One of the codes of `GET /api/v1/health`."""
    if isinstance(error, CheckpointMissing):
        return "no-checkpoint"
    if isinstance(error, (BusUnavailable, ResultsNotPublished)):
        return "bus-away"
    if (code := code_of(error)) is not None:
        return code
    return "io-error" if isinstance(error, OSError) else "stuck"
