"""What installed packages add to Windvane, and why what they add cannot be used."""

from collections.abc import Iterator
from typing import Any

from ...bus import engine_of
from ...config import Settings
from ...errors import ExtensionInvalid
from ...extensions import (
    BUSES,
    DOCUMENT_TYPES,
    EXTENSION_POINTS,
    OPERATIONS,
    STORES,
    ExtensionPoint,
)
from .finding import Finding, failure, ok, skipped

_CHECK = "packages"
_FIX = "update or uninstall the package, or rename what it registers; then restart"


def check_packages(settings: Settings) -> Iterator[Finding]:
    """Load all that packages other than Windvane register. Their code runs here, as in every tier."""
    found_any = False
    for point in EXTENSION_POINTS:
        for problem in point.conflicts.values():
            found_any = True
            yield failure(_CHECK, problem, _FIX)
        for name, extension in point.extensions.items():
            if extension.is_built_in:
                continue
            found_any = True
            try:
                _load(point, name)
            except ExtensionInvalid as error:
                yield failure(_CHECK, str(error), _FIX)
            else:
                yield ok(_CHECK, str(extension))
    if not found_any:
        yield skipped(_CHECK, "no other package registers anything")


def _load(point: ExtensionPoint, name: str) -> Any:
    if point is OPERATIONS:
        from ...processors.operations.base.registry import operation_class

        return operation_class(name)
    if point is BUSES:
        return engine_of(f"{name}:")
    if point is DOCUMENT_TYPES:
        from ...store.catalog.document_type import load_document_type

        return load_document_type(name)
    if point is STORES:
        from ...store.interface import StoreEngine

        return STORES.load_class(name, StoreEngine)
    return point.load(name)
