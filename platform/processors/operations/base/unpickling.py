"""Reads pickles: estimators of River and scikit-learn, and states of users' operations.

A pickle can run any code when it is read. There are two protections. No other user can write to the files
that contain pickles (`store.file_owner`); for the database of checkpoints this is checked on each read of a
pickle. In addition, a pickle can name only objects that the libraries below and users' operations define. So
a damaged or unchecked file does not start a program. This is a second line of defense, not a sandbox, since
libraries are large.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from pathlib import Path
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ....errors import StateInvalid
from ....store.file_owner import check_own_database
from .former_modules import FORMER_MODULES
from .registry import loaded_foreign_operations

_LIBRARIES = frozenset({"river", "sklearn", "numpy", "scipy"})
_OWN = "windvane.processors"
_STANDARD = frozenset(
    {"collections", "datetime", "decimal", "enum", "fractions", "random", "statistics", "uuid"}
)
_BUILTINS = frozenset(
    {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object"),
        *("range", "set", "slice", "str", "tuple"),
    }
)
_NAMED = frozenset(
    {
        *(("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("_codecs", "encode")),
        ("functools", "partial"),  # the function that it calls must be allowed too
    }
)
# Functions that libraries call to rebuild an object: `_reconstruct`, `__pyx_unpickle_Tree`, `newObj`, …
_REBUILDS = re.compile(r"unpickle|reconstruct|rebuild|_ctor$|^newObj$|^scalar$|^_frombuffer$")
# Words of the names of functions that states do not refer to: files, tests, third-party code.
_OUTWARD = frozenset(
    {
        *(
            "conftest",
            "datasets",
            "distutils",
            "download",
            "dump",
            "dumps",
            "eval",
            "exec",
            "externals",
            "f2py",
        ),
        *("fetch", "fromfile", "genfromtxt", "import", "load", "loads", "loadtxt", "memmap", "open", "run"),
        *("runstring", "save", "savetxt", "savez", "stream", "test", "testing", "tests", "tofile"),
    }
)
_NEVER = frozenset(
    {
        *("builtins", "code", "ctypes", "importlib", "multiprocessing", "nt", "os", "pickle", "posix", "pty"),
        *("runpy", "shutil", "signal", "socket", "subprocess", "sys", "threading", "webbrowser"),
    }
)

_NONE = ModuleType("none")
_checkpoints: Path | None = None


def states_come_from(checkpoints: Path | str | None) -> None:
    """Sets the database of checkpoints that this process reads pickles from; None for the process itself.

    The owner of a file is checked. At a URL, the server decides who may write.
    """
    global _checkpoints
    _checkpoints = checkpoints if isinstance(checkpoints, Path) else None


def check_source() -> None:
    """Raise FileUntrusted if another user can write to the database that pickles come from."""
    if _checkpoints is not None:
        check_own_database(_checkpoints)


def unpickle(data: bytes | memoryview) -> Any:
    """The object that was pickled; `check_source` comes first, if it is from a file.

    Raises:
        StateInvalid: it names a class that no state may hold.
        Exception: any exception of its classes, if it is damaged or of another version of a library.
    """
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = FORMER_MODULES.get(module, module)
        if (module, name) == ("builtins", "getattr"):
            return _method
        # First the module: importing one that is not imported yet runs it.
        if _may_import(module) and _is_allowed(found := super().find_class(module, name), module, name):
            return found
        raise _rejected(f"{module}.{name}")


def _rejected(name: str) -> StateInvalid:
    return StateInvalid(
        "class-refused",
        f"a saved state names {name}, which states cannot hold; in an operation of your own, keep plain "
        "values and arrays in `state`, or import the library of the class in its file",
    )


def _method(owner: Any, name: str) -> Any:
    """Replaces `getattr`, by which pickles name bound methods: it returns bound methods only."""
    hidden = name.startswith("__") or isinstance(owner, ModuleType)
    found = None if hidden else getattr(owner, name)
    if isinstance(found, MethodType | BuiltinMethodType) and found.__self__ is owner:
        return found
    raise _rejected(f"the attribute {name!r} of {type(owner).__qualname__}")


def _may_import(module: str) -> bool:
    package = module.partition(".")[0]
    return (
        package in _LIBRARIES | _STANDARD | {"builtins", "copyreg", "functools", "_codecs"}
        or module.startswith(f"{_OWN}.")
        or package in _packages_of_users()
    )


def _is_allowed(found: Any, module: str, name: str) -> bool:
    if (module, name) in _NAMED:
        return True
    # The module that defines it: the module of the lookup also contains its imports, such as `os`.
    home = module if isinstance(found, np.ufunc) else getattr(found, "__module__", None)
    if home is None and callable(found) and "." not in name:  # of a compiled module, such as NumPy's `scalar`
        home = module
    if not isinstance(home, str):
        return False
    package = home.partition(".")[0]
    if home == "builtins":
        return name in _BUILTINS
    if home in _modules_of_users():
        return isinstance(found, type | FunctionType)
    if isinstance(found, type) and (package in _STANDARD or home.startswith(f"{_OWN}.")):
        return True
    if isinstance(found, type | np.ufunc) or _REBUILDS.search(name):
        return package in _LIBRARIES or package in _packages_of_users()
    return (
        package in _LIBRARIES and callable(found) and _OUTWARD.isdisjoint(re.split(r"[._]", f"{home}.{name}"))
    )


def _modules_of_users() -> frozenset[str]:
    """Of all operations that run here and that are not built in."""
    modules = {cls.__module__ for cls in loaded_foreign_operations()}
    return frozenset(module for module in modules if not module.startswith(f"{_OWN}."))


def _packages_of_users() -> frozenset[str]:
    """Their top-level packages, and those whose modules, classes or functions they refer to."""
    found: set[str] = set()
    for name in _modules_of_users():
        found.add(name.partition(".")[0])
        for value in list(vars(sys.modules.get(name, _NONE)).values()):
            home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(home, str):
                found.add(home.partition(".")[0])
    return frozenset(found - _NEVER)
