"""Extension points: what installed packages add, such as bus engines, store engines and operations.

Any package can add one by an entry point, without a change here:

    [project.entry-points."windvane.operations"]
    difference = "windvane_difference:difference"

Windvane registers its own in the same way (pyproject.toml). Names come from the metadata of the packages; a
module is imported when something first asks for what it holds. A package that cannot be loaded, or whose name
is taken, costs what it registers and nothing else. Packages are looked up once in a process: restart it after
an installation.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from .errors import ExtensionInvalid

_OWN_PACKAGE = "windvane"


@dataclass(frozen=True)
class Extension:
    """One entry point: `name` for users, `target` as MODULE:ATTRIBUTE, and the package that registers it."""

    kind: str
    name: str
    target: str
    package: str
    version: str

    @property
    def is_built_in(self) -> bool:
        """Whether Windvane itself registers it."""
        return self.package == _OWN_PACKAGE

    @property
    def module(self) -> str:
        """The module that is imported to load it."""
        return self.target.partition(":")[0].strip()

    def __str__(self) -> str:
        return f"the {self.kind} {self.name!r} of the package {self.package} {self.version}".rstrip()

    def unusable(self, cause: str) -> str:
        """The message that says why it cannot be used, and what to do."""
        return f"{self} cannot be used: {cause}. Update or uninstall the package, then restart"


class ExtensionPoint:
    """All that installed packages register in one group of entry points, by name.

    A built-in name stays with Windvane. A name that two other packages register belongs to neither, so that
    the order of installation decides nothing. Safe for several threads.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._loaded: dict[str, Any] = {}
        self._failures: dict[str, str] = {}
        self._forgetting = threading.Lock()

    @property
    def extensions(self) -> Mapping[str, Extension]:
        """Those that `load` takes, by name: the built-in ones first. This loads none of them."""
        return self._found[0]

    @property
    def conflicts(self) -> Mapping[Extension, str]:
        """Those whose name is taken, and why they cannot be used."""
        return self._found[1]

    @cached_property
    def built_in(self) -> frozenset[str]:
        """The names that Windvane itself registers."""
        return frozenset(name for name, each in self.extensions.items() if each.is_built_in)

    def load(self, name: str) -> Any:
        """What the entry point of this name refers to; its module is imported the first time.

        Raises:
            ExtensionInvalid: it cannot be loaded, or several packages register the name. The same error is
                raised until the process is restarted.
            LookupError: no package registers the name.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name in self._failures:
            raise ExtensionInvalid(self._failures[name])
        if name not in self.extensions:
            for each, why in self.conflicts.items():
                if each.name == name:
                    raise ExtensionInvalid(why)
            raise LookupError(f"no package registers the {self.kind} {name!r}")
        extension = self.extensions[name]
        try:
            loaded = EntryPoint(name, extension.target, self.group).load()
        except BaseException as error:  # what a package raises when it is imported can be anything
            self._failures[name] = extension.unusable(_described(error))
            raise ExtensionInvalid(self._failures[name]) from error
        return self._loaded.setdefault(name, loaded)

    def load_class(self, name: str, base: type) -> type[Any]:
        """The class that the entry point of this name refers to, a subclass of `base`. Raises as `load`."""
        loaded = self.load(name)
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            extension = self.extensions[name]
            raise ExtensionInvalid(
                extension.unusable(f"{extension.target} is not a subclass of {base.__name__}")
            )
        return loaded

    def forget(self) -> None:
        """Look installed packages up again the next time; modules that were imported stay as they are."""
        with self._forgetting:
            for name in ("_found", "built_in"):
                self.__dict__.pop(name, None)
            self._loaded = {}
            self._failures = {}

    @cached_property
    def _found(self) -> tuple[Mapping[str, Extension], Mapping[Extension, str]]:
        packages: dict[int, tuple[str, str]] = {}
        by_name: dict[str, list[Extension]] = {}
        for point in entry_points(group=self.group):
            distribution = id(point.dist)
            if distribution not in packages:
                packages[distribution] = _package(point)
            extension = Extension(self.kind, point.name, point.value, *packages[distribution])
            by_name.setdefault(point.name, []).append(extension)
        usable: dict[str, Extension] = {}
        conflicts: dict[Extension, str] = {}
        for name, same_name in sorted(by_name.items()):
            own = [each for each in same_name if each.is_built_in]
            others = [each for each in same_name if not each.is_built_in]
            if own:
                usable[name] = own[0]
                for each in others:
                    conflicts[each] = each.unusable(f"{name!r} is a built-in {self.kind}, which stays")
            elif len(others) == 1:
                usable[name] = others[0]
            else:
                for each in others:
                    rivals = ", ".join(f"{other.package} {other.version}" for other in others)
                    conflicts[each] = each.unusable(f"several packages register that name ({rivals})")
        ordered = sorted(usable.items(), key=lambda item: (not item[1].is_built_in, item[0]))
        return MappingProxyType(dict(ordered)), MappingProxyType(conflicts)


def _package(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package of an entry point, as far as its metadata can be read."""
    try:
        assert point.dist is not None
        return point.dist.name, point.dist.version
    except Exception:
        return point.value.partition(":")[0].partition(".")[0], "of unknown version"


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except BaseException:  # an error's own __str__ is the package's code too
        return type(error).__name__


BUSES = ExtensionPoint("windvane.buses", "bus engine")
"""By the scheme of the bus's URL; each is a `windvane.bus.BusEngine`."""

OPERATIONS = ExtensionPoint("windvane.operations", "operation")
"""By the name in policies; each is a class or a function that `windvane.operations.operation` decorates."""

STORES = ExtensionPoint("windvane.stores", "store engine")
"""By the scheme of the store's URL; each is a `windvane.store.interface.StoreEngine`."""

DOCUMENT_TYPES = ExtensionPoint("windvane.document_types", "document type")
"""By the name in routes and commands; each is a document type of the catalog."""

EXTENSION_POINTS = (BUSES, OPERATIONS, STORES, DOCUMENT_TYPES)
