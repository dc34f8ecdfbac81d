"""The example packages, installed by pip next to Windvane: their own tests, the commands, a running site."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from windvane.store.files.store import Store

from tests.processes import Running, wait_until, windvane

EXAMPLES = Path(__file__).parents[2] / "examples" / "packages"
PACKAGES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
POLICY = """
reference = "t"
format = "raw"
[[pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 1000.0
[[pipeline]]
operation = "difference"
scale = 2.0
"""
BROKEN = "windvane-broken"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sources of the packages; the packages that pip installs from them are on PYTHONPATH, and a broken
    one.
    """
    folder = tmp_path_factory.mktemp("packages")
    sources = folder / "sources"
    shutil.copytree(EXAMPLES, sources)
    broken = shutil.copytree(sources / "windvane-difference", sources / BROKEN)
    (broken / "windvane_difference.py").rename(broken / "windvane_broken.py")
    (broken / "windvane_broken.py").write_text("import no_such_library\n")
    project = (broken / "pyproject.toml").read_text().replace('"windvane-difference"', f'"{BROKEN}"')
    project = project.replace("windvane_difference", "windvane_broken").replace("difference =", "broken =")
    (broken / "pyproject.toml").write_text(project)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run(
        [*pip, "--target", folder / "installed", *(sources / name for name in (*PACKAGES, BROKEN))],
        check=True,
        timeout=240,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "installed"))
        yield sources


def ok(home: Path, *arguments: str) -> str:
    done = windvane(home, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_passes_its_own_tests_with_the_shipped_suite(packages: Path, name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(packages / name), "-p", "no:xdist"]
    done = subprocess.run(
        command, cwd=packages / name, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.usefixtures("packages")
def test_an_installed_operation_is_listed_and_a_broken_package_is_reported(
    tmp_path: Path,
) -> None:
    listed = windvane(tmp_path / "home", "operation", "list")
    assert listed.returncode == 0
    assert b"difference\tsamples\tsamples\twindvane-difference 1.0\tEach sample minus" in listed.stdout
    assert b"spectrum\tsamples or values\tspectrum\tbuilt in" in listed.stdout
    assert b"the operation 'broken' of the package windvane-broken 1.0 cannot be used" in listed.stderr
    assert b"No module named 'no_such_library'" in listed.stderr
    findings = json.loads(windvane(tmp_path / "home", "doctor", "--json").stdout)
    states = {each["message"].partition(" cannot")[0]: each["state"] for each in findings}
    for kind, name, package, state in (
        ("operation", "difference", "windvane-difference", "ok"),
        ("bus engine", "memory", "windvane-memory-bus", "ok"),
        ("store engine", "memory", "windvane-memory-store", "ok"),
        ("document type", "inspection", "windvane-inspection", "ok"),
        ("operation", "broken", BROKEN, "failure"),
    ):
        assert states[f"the {kind} {name!r} of the package {package} 1.0"] == state


@pytest.mark.usefixtures("packages")
def test_a_policy_with_an_installed_operation_runs_and_a_broken_one_costs_its_own_step_alone(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    samples = (1000 * np.sin(np.arange(20_000) / 10)).astype("<i2")
    with Running("up", home) as site:
        (home / "t.toml").write_text(POLICY)
        ok(home, "apply", str(home / "t.toml"))
        (home / "samples.raw").write_bytes(samples.tobytes())
        ok(home, "send", "t", str(home / "samples.raw"), "--format", "raw")
        wait_until(lambda: "t:difference\t20000" in ok(home, "ls", "arrays"), "the differences")
        rows = Store(home / "store").array("t:difference")[:]
        np.testing.assert_array_equal(rows[1:, 0], 2.0 * np.diff(samples.astype(np.float64)))
        checked = ok(home, "operation", "check", "difference", "t")
        assert "the same rows however the data is cut" in checked

        (home / "b.toml").write_text(POLICY.replace('"difference"\nscale = 2.0', '"broken"'))
        rejected = windvane(home, "apply", str(home / "b.toml"))
        assert rejected.returncode == 1
        assert b"the package windvane-broken 1.0 cannot be used" in rejected.stderr
        assert site.stop() == 0


def test_the_steps_of_a_package_that_is_gone_fail_alone(packages: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    installed = Path(os.environ["PYTHONPATH"])
    with Running("up", home):
        (home / "t.toml").write_text(POLICY)
        ok(home, "apply", str(home / "t.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH")
        with Running("up", home):
            (home / "samples.raw").write_bytes(bytes(2000))
            ok(home, "send", "t", str(home / "samples.raw"), "--format", "raw")
            wait_until(lambda: "difference" in ok(home, "dead-letter", "list"), "the dead letter")
    assert installed.exists()
    with Running("up", home):
        ok(home, "send", "t", str(home / "samples.raw"), "--format", "raw")
        wait_until(lambda: "t:difference\t1000" in ok(home, "ls", "arrays"), "the differences")


@pytest.mark.usefixtures("packages")
def test_documents_of_an_installed_type_have_routes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Running("up", home) as site:
        url = f"{site.ready['web']}/api/v1/documents/inspection"
        token = (home / "token").read_text().strip()
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
            assert json.loads(answer.read()) == []
