"""`windvane model`: models that are trained apart from the stream."""

import click

from ..config import Settings
from .common.options import home_options
from .data import require_home


@click.group(short_help="Train a model now.")
def model() -> None:
    """Models: the steps `trained_model`, which a schedule trains.

    \b
    Examples:
      windvane model train turbine.t01.scada:strange
    """


@model.command("train")
@click.argument("reference", metavar="STREAM:STEP")
@home_options
def train(settings: Settings, reference: str) -> None:
    """Train the model of STREAM:STEP now, on the rows up to the last checkpoint.

    The worker uses it from the next chunk of the stream on. The schedule of the policy is not affected.

    \b
    Examples:
      windvane model train turbine.t01.scada:strange
    """
    from ..errors import OperationFailed
    from ..processors.learning.training import try_to_train
    from ..processors.operations.base.user_operations import UserOperations
    from ..processors.worker.reprocessing.training_now import request_now
    from ..store.interface import StoreAddress

    require_home(settings)
    UserOperations(settings.operations_dir).refresh()
    models = settings.home / "models"
    request = request_now(
        settings.checkpoint_place, StoreAddress(settings.store, settings.home), models, reference
    )
    report = try_to_train(request)
    if report.error:
        raise OperationFailed(f"{reference} was not trained: {report.error}")
    click.echo(
        f"trained on {report.rows:,} of the first {request.stop:,} rows of {request.source}; the worker "
        "uses it from the next chunk on"
    )
