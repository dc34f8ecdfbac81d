"""Extension points: what packages register, what is rejected, and that one package costs no other."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from windvane.bus import BusEngine, engine_of, open_bus
from windvane.errors import ConfigInvalid, ExtensionInvalid
from windvane.extensions import BUSES, EXTENSION_POINTS, OPERATIONS, STORES, ExtensionPoint

from tests.installed_packages import InstalledPackages, installed_packages

__all__ = ["installed_packages"]

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_this_installation_has_the_entry_points_of_pyproject() -> None:
    """If it fails: run `make install-test`; pip writes them when it installs."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    installed: dict[str, dict[str, str]] = {}
    for point in distribution("windvane").entry_points:
        if point.group != "console_scripts":
            installed.setdefault(point.group, {})[point.name] = point.value
    assert installed == declared


@pytest.mark.parametrize("point", EXTENSION_POINTS, ids=lambda point: point.group)
def test_everything_built_in_can_be_loaded(point: ExtensionPoint) -> None:
    for name in point.built_in:
        assert point.load(name) is not None


def test_a_package_adds_a_name_and_is_imported_on_first_use(
    installed_packages: InstalledPackages,
) -> None:
    installed_packages.install("windvane-x", {STORES.group: {"x": "wv_lazy:Store"}}, wv_lazy="Store = 7\n")
    extension = STORES.extensions["x"]
    assert (extension.package, extension.version, extension.is_built_in) == ("windvane-x", "1.0", False)
    assert "wv_lazy" not in sys.modules
    assert STORES.load("x") == 7
    assert "wv_lazy" in sys.modules


def test_a_built_in_name_stays_and_the_package_is_named(installed_packages: InstalledPackages) -> None:
    before = OPERATIONS.load("spectrum")
    installed_packages.install("thief", {OPERATIONS.group: {"spectrum": "wv_thief:op"}}, wv_thief="op = 1\n")
    assert OPERATIONS.load("spectrum") is before
    assert OPERATIONS.extensions["spectrum"].is_built_in
    (conflict,) = OPERATIONS.conflicts.items()
    assert conflict[0].package == "thief"
    assert "thief 1.0 cannot be used: 'spectrum' is a built-in operation" in conflict[1]


def test_a_name_of_two_packages_belongs_to_neither(installed_packages: InstalledPackages) -> None:
    installed_packages.install("one", {OPERATIONS.group: {"clash": "wv_one:op"}}, wv_one="op = 1\n")
    installed_packages.install("two", {OPERATIONS.group: {"clash": "wv_two:op"}}, wv_two="op = 2\n")
    assert "clash" not in OPERATIONS.extensions
    assert {extension.package for extension in OPERATIONS.conflicts} == {"one", "two"}
    with pytest.raises(ExtensionInvalid, match=r"several packages register that name \((one 1.0, two|two)"):
        OPERATIONS.load("clash")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("class Mute(BaseException):\n  def __str__(self): raise self\nraise Mute\n", "Mute"),
        ("", "AttributeError"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_with_the_cause_and_costs_no_other(
    installed_packages: InstalledPackages, text: str, cause: str
) -> None:
    installed_packages.install("broken", {STORES.group: {"bad": "wv_broken:Store"}}, wv_broken=text)
    installed_packages.install("sound", {STORES.group: {"good": "wv_sound:Store"}}, wv_sound="Store = 1\n")
    for _ in range(2):
        with pytest.raises(ExtensionInvalid, match="the store engine 'bad' of the package broken") as got:
            STORES.load("bad")
        assert cause in str(got.value)
    assert STORES.load("good") == 1
    assert STORES.load("local").__name__ == "Store"


def test_an_unknown_name_raises_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        BUSES.load("carrier-pigeon")


ENGINE = """
from windvane.bus import BusAddress, BusEngine
from windvane.bus.discard import DiscardBus

class Engine(BusEngine):
    takes_many_gateways = False

    def open_bus(self, address):
        address.options("speed")
        return DiscardBus()
"""


def test_a_package_s_engine_opens_the_buses_of_its_scheme(
    installed_packages: InstalledPackages, tmp_path: Path
) -> None:
    installed_packages.install("pigeon", {BUSES.group: {"pigeon": "wv_pigeon:Engine"}}, wv_pigeon=ENGINE)
    engine = engine_of("pigeon://loft?speed=3")
    assert isinstance(engine, BusEngine)
    assert not engine.takes_many_gateways
    assert open_bus("pigeon://loft?speed=3", tmp_path) is not None
    with pytest.raises(ConfigInvalid, match="has no option 'sped'; it takes speed"):
        open_bus("pigeon:?sped=3", tmp_path)


def test_a_target_of_another_type_is_reported_with_its_package(
    installed_packages: InstalledPackages, tmp_path: Path
) -> None:
    installed_packages.install("odd", {BUSES.group: {"odd": "wv_odd:Engine"}}, wv_odd="Engine = dict\n")
    with pytest.raises(ExtensionInvalid, match=r"package odd 1\.0 .* wv_odd:Engine is not a subclass"):
        open_bus("odd:", tmp_path)


def test_an_unknown_scheme_is_rejected_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"must begin with one of discard:, embedded:, kafka:"):
        open_bus("carrier://pigeon", tmp_path)


@pytest.mark.system
@pytest.mark.parametrize("module", ["windvane.cli", "windvane.extensions", "windvane.bus"])
def test_what_starts_fast_imports_neither_numpy_nor_test_libraries(module: str) -> None:
    code = f"import {module}, sys; print({{'numpy', 'hypothesis', 'pytest', 'aiokafka'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"set()\n"
