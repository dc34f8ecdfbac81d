"""`windvane seal`: shows all committed rows of an array to other programs."""

import click

from ..config import Settings
from .common.options import home_options
from .data import require_home


@click.command(short_help="Show all rows of an array to zarr, xarray and Dask.")
@click.argument("array", metavar="ARRAY")
@home_options
def seal(settings: Settings, array: str) -> None:
    """Seal the committed rows of ARRAY, also those of its last, incomplete segment.

    Other programs see rows of whole segments, about an hour's, by themselves. After this command they see all
    rows that the worker's last checkpoint covers. The worker may run; it continues after the sealed rows. The
    path of the Zarr array is printed.

    \b
    Examples:
      windvane seal turbine.t01.gearbox:features
      python -c "import zarr; print(zarr.open_array('$(windvane seal voice:spectrum)', mode='r'))"
    """
    from ..store.interface import open_store
    from .common.progress import plural

    require_home(settings)
    store = open_store(settings.store, settings.home)
    rows = store.seal(array)
    click.echo(f"sealed {plural(rows, 'row')} of {array}", err=True)
    with store.array(array) as sealed:
        click.echo(sealed.zarr_path)
