"""The operations that policies can name: built-in ones, those of other packages, and those of users' files.

Packages register operations as entry points (`windvane.operations`), the built-in ones among them; a module
is imported when a policy first names its operation. Users' files are loaded by `user_operations.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ....errors import ExtensionInvalid
from ....extensions import OPERATIONS
from .operation import Operation, check_class, declared_operations

_users: Mapping[str, type[Operation]] = {}
_checked: dict[str, type[Operation]] = {}


def is_built_in(name: str) -> bool:
    """Whether Windvane itself has an operation of this name."""
    return name in OPERATIONS.built_in


def operation_class(name: str) -> type[Operation]:
    """The operation of this name; its module is imported if necessary.

    A user's file takes precedence over a package's operation of that name, and a built-in one over both.

    Raises:
        ExtensionInvalid: its package cannot be used.
        LookupError: no operation has this name.
    """
    if name in _users and not is_built_in(name):
        return _users[name]
    return _registered(name)


def operation_names() -> tuple[str, ...]:
    """All names that policies can use: of built-in operations, of packages, then of users' files."""
    return tuple(dict.fromkeys([*OPERATIONS.extensions, *_users]))


def operations() -> Mapping[str, type[Operation]]:
    """All operations that can be used, by name. Imports their modules; those that fail are left out."""
    found: dict[str, type[Operation]] = {}
    for name in operation_names():
        try:
            found[name] = operation_class(name)
        except ExtensionInvalid:
            continue  # `windvane doctor` and `windvane operation list` say why
    return MappingProxyType(found)


def built_in_operations() -> Mapping[str, type[Operation]]:
    """The operations of Windvane itself, by name. Imports their modules."""
    return MappingProxyType({name: _registered(name) for name in sorted(OPERATIONS.built_in)})


def set_user_operations(found: Mapping[str, type[Operation]]) -> None:
    """Replaces the operations of users' files."""
    global _users
    _users = MappingProxyType(dict(found))


def loaded_foreign_operations() -> tuple[type[Operation], ...]:
    """The operations of users' files, and those of other packages that have been loaded."""
    of_packages = [cls for name, cls in _checked.items() if not is_built_in(name)]
    return (*_users.values(), *of_packages)


def _registered(name: str) -> type[Operation]:
    if name in _checked:
        return _checked[name]
    loaded = OPERATIONS.load(name)
    extension = OPERATIONS.extensions[name]
    declared = declared_operations(loaded)
    if name not in declared:
        raise ExtensionInvalid(
            extension.unusable(f'{extension.target} is not decorated with @operation("{name}")')
        )
    try:
        check_class(name, declared[name])
    except Exception as error:
        raise ExtensionInvalid(extension.unusable(f"{type(error).__name__}: {error}")) from error
    return _checked.setdefault(name, declared[name])
