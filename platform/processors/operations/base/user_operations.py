"""Users' operations: Python files in HOME/operations/, loaded at the start and when they change.

A file runs as a separate module; classes and functions decorated with `@operation` become steps that policies
can name. See docs/own-operations.md for an example.
"""

from __future__ import annotations

import re
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, TypeAlias

from ....errors import FileUntrusted, OperationFileInvalid, PolicyInvalid
from ....extensions import OPERATIONS
from ....store.catalog.policy import Policy
from ....store.catalog.policy_wording import NAME
from ....store.file_owner import check_own
from .failures import error_text
from .operation import Operation, check_class, collected_operations
from .registry import is_built_in, set_user_operations
from .steps import check_pipeline

MAX_FILES = 1000
_MAX_FILE_BYTES = 1_000_000
_MODULES = "windvane_operation_"
"""Their modules are named `windvane_operation_NAME`: their pickles refer to classes by that name."""

_Seen: TypeAlias = tuple[int, int, int]


class _Loaded(NamedTuple):
    seen: _Seen
    operations: Mapping[str, type[Operation]]


class UserOperations:
    """The files of one folder, and the operations in them; one for each process.

    If an edit cannot be loaded, the previous operations remain in use; `broken` has the reason.
    Bound: MAX_FILES files of at most 1 MB.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refreshing = threading.Lock()
        self._loaded: dict[Path, _Loaded] = {}
        self._broken: dict[Path, tuple[_Seen, str]] = {}

    @property
    def broken(self) -> Mapping[Path, str]:
        """The files whose current content could not be loaded, and the reasons."""
        return MappingProxyType({path: reason for path, (_, reason) in self._broken.items()})

    @property
    def files(self) -> Mapping[str, Path]:
        """The file of each operation, by its name."""
        return {name: path for path, loaded in self._loaded.items() for name in loaded.operations}

    def is_stale(self) -> bool:
        """Whether a file was added, removed or changed since `refresh`; cheap enough to call often."""
        known = {path: loaded.seen for path, loaded in self._loaded.items()}
        return self._seen() != known | {path: seen for path, (seen, _) in self._broken.items()}

    def refresh(self) -> frozenset[str]:
        """Loads new and changed files, drops removed ones; returns the names of the affected operations.

        Policies then use the new operations. A running operation does not change: the worker takes its
        `state()` before this call, and restores it in a new one.
        """
        with self._refreshing:
            return self._refresh()

    def check_pipeline(self, policy: Policy) -> None:
        """Like `operation.check_pipeline`, with the current files."""
        if self.is_stale():
            self.refresh()
        try:
            check_pipeline(policy)
        except PolicyInvalid as error:
            broken = "".join(f"; not loaded: {reason}" for reason in self.broken.values())
            raise PolicyInvalid(f"{error}{broken}") from error

    def _refresh(self) -> frozenset[str]:
        there = self._seen()
        concerned: set[str] = set()
        for path in [path for path in self._loaded if path not in there]:
            concerned |= self._loaded.pop(path).operations.keys()
            sys.modules.pop(_module_name(path), None)
        self._broken = {path: known for path, known in self._broken.items() if path in there}
        for path, seen in there.items():
            before = self._loaded.get(path)
            known_broken = self._broken.get(path)
            if seen == (known_broken[0] if known_broken else before.seen if before else None):
                continue
            try:
                found = self._load(path)
            except OperationFileInvalid as error:
                self._broken[path] = (seen, str(error))
            else:
                self._broken.pop(path, None)
                concerned |= found.keys() | (before.operations.keys() if before else set())
                self._loaded[path] = _Loaded(seen, found)
        every = {name: cls for loaded in self._loaded.values() for name, cls in loaded.operations.items()}
        set_user_operations(every)
        return frozenset(concerned)

    def _seen(self) -> dict[Path, _Seen]:
        try:
            entries = sorted(self._folder.glob("[!_.]*.py"))[:MAX_FILES]
        except OSError:
            return {}
        seen: dict[Path, _Seen] = {}
        for path in entries:
            try:
                status = path.stat()
            except OSError:  # it was removed in between
                continue
            seen[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return seen

    def _load(self, path: Path) -> dict[str, type[Operation]]:
        _require_owned(path.parent)
        _require_owned(path)
        module, found = load_file(path)
        elsewhere = {name: other for name, other in self.files.items() if other != path}
        for name in found:
            if name in elsewhere:
                raise OperationFileInvalid(
                    f"{path}: the operation {name!r} is in {elsewhere[name].name} too; give one of them "
                    "another name"
                )
        sys.modules[module.__name__] = module
        return found


def load_file(path: Path) -> tuple[ModuleType, dict[str, type[Operation]]]:
    """Runs a file; returns its module and its operations by name, which are not registered yet.

    Raises OperationFileInvalid with the position of the mistake.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise OperationFileInvalid(f"{path} has over {_MAX_FILE_BYTES:,} bytes; keep data in other files")
        source = path.read_bytes()
    except OSError as error:
        raise OperationFileInvalid(f"{path} cannot be read: {error.strerror or error}") from None
    module = ModuleType(_module_name(path))
    module.__file__ = str(path)
    # Dataclasses and the like look their module up while it runs.
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        with collected_operations() as found:
            exec(compile(source, str(path), "exec"), module.__dict__)
        found = {name: cls for name, cls in found.items() if not _is_imported(name, cls)}
        for name, cls in found.items():
            _check(name, cls)
    except OperationFileInvalid as error:
        raise OperationFileInvalid(f"{path}: {error}") from None
    except BaseException as error:  # the user's own code: sys.exit, or a panic of an extension module
        raise OperationFileInvalid(
            f"{_place(error, path)}: {type(error).__name__}: {error_text(error)}"
        ) from error
    finally:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
    if not found:
        raise OperationFileInvalid(
            f'{path}: holds no operation; decorate a function or a class with @operation("NAME"), as '
            "`windvane operation new NAME` writes it"
        )
    return module, found


def _check(name: str, cls: type[Operation]) -> None:
    if not re.match(NAME, name):
        raise OperationFileInvalid(
            f"{name!r:.110} is not a valid name of an operation: use 1 to 100 letters, digits, underscores "
            "and dashes"
        )
    if is_built_in(name):
        raise OperationFileInvalid(f"{name!r} is a built-in operation; give yours another name")
    try:
        check_class(name, cls)
    except TypeError as error:
        raise OperationFileInvalid(str(error)) from None


def _is_imported(name: str, cls: type[Operation]) -> bool:
    """Whether the file has only imported the module of a package in which the operation is declared."""
    extension = OPERATIONS.extensions.get(name)
    return extension is not None and _package_of(extension.module) == _package_of(cls.__module__)


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def _require_owned(path: Path) -> None:
    """Rejects code that another user could have written."""
    try:
        check_own(path)
    except FileUntrusted as error:
        raise OperationFileInvalid(str(error)) from None
    except OSError as error:
        raise OperationFileInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def _place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{path}, line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _module_name(path: Path) -> str:
    return f"{_MODULES}{path.stem}"
