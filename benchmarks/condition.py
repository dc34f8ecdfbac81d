"""What `condition` reports about bearings that ran to failure, and when.

Every file of a folder goes the real way, all with one set of default parameters and nothing known of the
file: through the forward port of a gateway into the log, and from there through a worker's `pcm`, `features`
and `condition`. What comes out in the data arrays is held against when the experiment ended:

- first warning and first danger, as share of the life, and the lead before the end;
- warnings that began in the first half of the life, all of them, and those of them that cleared again;
- how late or early the remaining life was estimated, by the scoring function of the IEEE PHM 2012 challenge:
  with Er = 100 (actual - estimated) / actual, the score is exp(-ln 0.5 Er / 5) where Er <= 0 (late), and
  exp(ln 0.5 Er / 20) where Er > 0 (early); 1 is best. The mean is over all rows with an estimate, from the
  first warning on;
- in how many of them the end was within the interval, which should hold 80 %.

Nothing is fitted to files. Still, the prior of the remaining life has numbers that were chosen by hand:
"leave one out" is the mean score of a bearing with those that were best, of a grid, for all the others.

A file is named BearingX_Y.npz and holds `acc_mg`, thousandths of g of shape (records, samples, channels) at
25.6 kHz, and `seconds` of shape (records,), the time of day of each record. Records with NaN or infinity are
left out. The default folder has the learning set of P. Nectoux et al., "PRONOSTIA: An experimental platform
for bearings accelerated degradation tests", IEEE PHM 2012.

    python benchmarks/condition.py [--data DIR] [--json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import argparse
import asyncio
import itertools
import json
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from windvane.ingest.forward.client import ForwardClient
from windvane.lab import connect
from windvane.processors.learning.remaining_life import DegradationHistory, LifePrior

from tests.processes import Running, wait_until, windvane

DEFAULT_DATA = ROOT.parent / "shared" / "data" / "pronostia"
RATE_HZ = 25_600.0
EPOCH_S = 1_338_768_000
"""The day that times of day are put on: 4 June 2012."""
LIFE_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
PROCESSED_S = 600.0
EVENTS_IN_CHUNK = 16
DANGER = 10.0
LEAVE_ONE_OUT_ROWS = 60
"""Rows of each bearing that are estimated with each prior of the grid, evenly over its degradation."""

Vector = NDArray[np.float64]


def main() -> None:
    """Runs all files and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of BearingX_Y.npz"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    console = Console(width=max(Console().width, 140), soft_wrap=False)
    recordings, rejected = find_recordings(options.data)
    for name, why in rejected.items():
        console.print(f"{name} is left out: {why}", style="yellow")
    if not recordings:
        sys.exit(
            f"{options.data}: there is no file to run; name a folder with BearingX_Y.npz files that hold "
            "acc_mg (records, samples, channels) and seconds (records,)"
        )
    with tempfile.TemporaryDirectory(prefix="windvane-condition-") as folder:
        run = through_windvane(Path(folder) / "home", recordings)
    fates = {name: fate_of(recording, run.courses[name]) for name, recording in recordings.items()}
    left_out = leave_one_out(run.courses, fates)
    for table in tables(fates, run, left_out):
        console.print(table)
    console.print(
        f"{run.machine_s:,.0f} s of machine time in {run.wall_s:.1f} s: {run.machine_s / run.wall_s:,.0f} "
        f"times real time; {run.cpu_s:.1f} CPU seconds of gateway and worker ({os.cpu_count()} cores)"
    )
    if options.json is not None:
        figures = {
            "bearings": {name: asdict(fate) for name, fate in fates.items()},
            "leave_one_out": left_out,
            "left_out_files": rejected,
            "machine_s": run.machine_s,
            "wall_s": run.wall_s,
            "times_real_time": run.machine_s / run.wall_s,
            "cpu_s": run.cpu_s,
        }
        options.json.write_text(json.dumps(_without_nan(figures), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Recording:
    """One experiment: which records of a file are whole, and the time of each of them in ns."""

    path: Path
    whole: NDArray[np.bool_]
    times_ns: NDArray[np.int64]
    samples: int
    channels: int
    interval_s: float

    @property
    def tag(self) -> str:
        """Of its events."""
        return f"bearing.{self.path.stem.lower()}"

    @property
    def left_out(self) -> int:
        """Records with NaN or infinity."""
        return int(np.count_nonzero(~self.whole))

    @property
    def life_s(self) -> float:
        """From the first record to the last."""
        return (len(self.times_ns) - 1) * self.interval_s

    def records(self) -> NDArray[np.int32]:
        """The whole records, read from the file: shape (records, samples, channels)."""
        with np.load(self.path) as arrays:
            samples = arrays["acc_mg"][self.whole]
        if samples.dtype.kind == "f":
            samples = np.clip(np.rint(samples), -(2**31), 2**31 - 1)
        records: NDArray[np.int32] = samples.astype("<i4", copy=False)
        return records


def find_recordings(folder: Path) -> tuple[dict[str, Recording], dict[str, str]]:
    """The files that can be run, by name; and why the others cannot."""
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder; name one with BearingX_Y.npz files: --data DIR")
    recordings: dict[str, Recording] = {}
    rejected: dict[str, str] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            recordings[path.stem] = read_recording(path)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            rejected[path.name] = str(error) or repr(error)
    return recordings, rejected


def read_recording(path: Path) -> Recording:
    """ValueError, KeyError or what NumPy raises, where the file is of another form."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an NPZ file")
    with np.load(path) as arrays:
        missing = {"acc_mg", "seconds"} - set(arrays.files)
        if missing:
            raise ValueError(f"it has no array named {' and '.join(sorted(missing))}")
        samples, seconds = arrays["acc_mg"], np.asarray(arrays["seconds"], dtype=np.float64)
    if samples.ndim != 3 or seconds.shape != samples.shape[:1]:
        raise ValueError(f"acc_mg of shape {samples.shape} and seconds of shape {seconds.shape} do not fit")
    if samples.dtype.kind not in "iuf" or samples.shape[1] < 2 or samples.shape[2] < 1:
        raise ValueError(f"acc_mg holds {samples.dtype} of shape {samples.shape}, and no windows of samples")
    whole = np.isfinite(seconds) & np.isfinite(samples).all(axis=(1, 2))
    if not whole.any():
        raise ValueError("there is no record without NaN")
    steps = np.diff(seconds[whole])
    usual = steps[(steps > 0) & (steps < 3600)]
    return Recording(
        path=path,
        whole=whole,
        times_ns=EPOCH_S * 1_000_000_000 + np.rint(seconds[whole] * 1e9).astype(np.int64),
        samples=samples.shape[1],
        channels=samples.shape[2],
        interval_s=float(np.median(usual)) if len(usual) else 10.0,
    )


def policy(name: str, recording: Recording) -> dict[str, Any]:
    """The same for all; of the file it takes nothing but how many channels and samples a record has."""
    return {
        "reference": name.lower(),
        "tags": [recording.tag],
        "format": "raw",
        "pipeline": [
            {
                "operation": "pcm",
                "keep": False,
                "rate_hz": RATE_HZ,
                "dtype": "int32",
                "channels": recording.channels,
                "scale": 0.001,
                "unit": "g",
            },
            {"operation": "features", "window_s": recording.samples / RATE_HZ},
            {"operation": "condition"},
        ],
    }


@dataclass(frozen=True, slots=True)
class Course:
    """What `condition` said: `records` (numbers) and `columns` (values by name), one for each of its rows."""

    records: NDArray[np.int64]
    columns: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Run:
    """All files sent and processed: their courses, and what that took."""

    courses: dict[str, Course]
    machine_s: float
    wall_s: float
    cpu_s: float


def through_windvane(home: Path, recordings: Mapping[str, Recording]) -> Run:
    """Sends all recordings through a gateway and a worker of their own."""
    policies = [policy(name, recording) for name, recording in recordings.items()]
    given = home.parent / "policies.json"
    given.write_text(json.dumps({"policy": policies}))
    applied = windvane(home, "apply", str(given))
    if applied.returncode:
        raise RuntimeError(applied.stderr.decode())
    with Running("gateway", home) as gateway, Running("worker", home) as worker:
        cpu_before = gateway.cpu_s() + worker.cpu_s()
        started = time.perf_counter()
        chunks = asyncio.run(send(gateway.ready["forward"], recordings))
        wait_until(
            lambda: worker.status()["chunks_total"] >= chunks and worker.status()["lag_messages"] == 0,
            "the worker has processed all records",
            timeout_s=PROCESSED_S,
        )
        wall_s = time.perf_counter() - started
        cpu_s = gateway.cpu_s() + worker.cpu_s() - cpu_before
    arrays = connect(home).arrays
    courses = {name: read_course(arrays, recording) for name, recording in recordings.items()}
    return Run(courses, sum(recording.life_s for recording in recordings.values()), wall_s, cpu_s)


async def send(address: str, recordings: Mapping[str, Recording]) -> int:
    """Sends every record as an event of its own time, file after file; gives the number of chunks."""
    chunks = 0
    async with ForwardClient(address, max_unacked_chunks=8) as client:
        for recording in recordings.values():
            records, times_ns = recording.records(), recording.times_ns.tolist()
            for first in range(0, len(records), EVENTS_IN_CHUNK):
                part = slice(first, first + EVENTS_IN_CHUNK)
                events = zip(times_ns[part], records[part], strict=True)
                await client.send_events(
                    recording.tag, [(time_ns, {"message": record.tobytes()}) for time_ns, record in events]
                )
                chunks += 1
        await client.drain()
    return chunks


def read_course(arrays: Any, recording: Recording) -> Course:
    """The condition array of a recording; without rows if there were too few records."""
    found = arrays.get(f"{recording.tag}:condition")
    if found is None:
        return Course(np.empty(0, np.int64), {})
    rows, times_ns = np.asarray(found), found.times.astype(np.int64)
    # A row has the time of its record; where clocks ran back: of the first such record behind the last.
    numbers: list[int] = []
    for time_ns in times_ns.tolist():
        begin = numbers[-1] + 1 if numbers else 0
        numbers.append(begin + int(np.argmax(recording.times_ns[begin:] == time_ns)))
    return Course(np.array(numbers), dict(zip(found.columns, rows.T, strict=True)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Remaining life at a share of the life, in seconds; None if there was no warning at that time."""

    life_share: float
    actual_s: float
    estimated_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    error_percent: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What came of one bearing. Shares are of its life; None is never."""

    records: int
    records_left_out: int
    life_s: float
    first_warning_share: float | None = None
    first_warning_lead_s: float | None = None
    lasting_warning_share: float | None = None
    lasting_warning_lead_s: float | None = None
    first_danger_share: float | None = None
    first_danger_lead_s: float | None = None
    warnings_in_first_half: int = 0
    of_them_cleared: int = 0
    dangers_in_first_half: int = 0
    rul_rows: int = 0
    rul_mean_score: float | None = None
    rul_interval_coverage: float | None = None
    rul_at_shares: list[Estimate] = field(default_factory=list)


def phm_2012_score(actual_s: Vector, estimated_s: Vector) -> tuple[Vector, Vector]:
    """Er in percent, and the score, of the IEEE PHM 2012 challenge."""
    error = 100.0 * (actual_s - estimated_s) / actual_s
    late = np.exp(-math.log(0.5) * np.minimum(error, 0.0) / 5.0)
    early = np.exp(math.log(0.5) * np.maximum(error, 0.0) / 20.0)
    return error, np.where(error <= 0, late, early)


def fate_of(recording: Recording, course: Course) -> Fate:
    """Holds what was said against what came."""
    records, life_s = len(recording.times_ns), recording.life_s
    fate: dict[str, Any] = {
        "records": records,
        "records_left_out": recording.left_out,
        "life_s": life_s,
    }
    if len(course.records) == 0:
        return Fate(**fate)
    lived_s: Vector = course.records * np.float64(recording.interval_s)
    grade = course.columns["grade"]
    raised = {
        level: np.flatnonzero(np.diff((grade >= level).astype(int), prepend=0) == 1) for level in (1, 2)
    }
    cleared = np.flatnonzero(np.diff((grade >= 1).astype(int), prepend=0) == -1)
    lasting = raised[1][-1:] if grade[-1] >= 1 else raised[1][:0]
    for name, onsets in (
        ("first_warning", raised[1]),
        ("lasting_warning", lasting),
        ("first_danger", raised[2]),
    ):
        if len(onsets) and life_s:
            fate[f"{name}_share"] = float(lived_s[onsets[0]] / life_s)
            fate[f"{name}_lead_s"] = float(life_s - lived_s[onsets[0]])
    early = [onset for onset in raised[1] if lived_s[onset] < life_s / 2]
    fate["warnings_in_first_half"] = len(early)
    fate["of_them_cleared"] = sum(bool(np.any(cleared > onset)) for onset in early)
    fate["dangers_in_first_half"] = int(np.count_nonzero(lived_s[raised[2]] < life_s / 2))
    return Fate(**fate, **_life_estimates(course, lived_s, life_s))


def _life_estimates(course: Course, lived_s: Vector, life_s: float) -> dict[str, Any]:
    actual_s = life_s - lived_s
    estimated_s, low_s, high_s = (course.columns[name] for name in ("rul_s", "rul_low_s", "rul_high_s"))
    # At the very end nothing remains, of which no percentage can be taken.
    there = np.isfinite(estimated_s) & (actual_s > 0)
    estimates = []
    for share in LIFE_SHARES:
        at = int(np.searchsorted(lived_s, share * life_s))
        if at == len(lived_s) or not there[at]:
            estimates.append(Estimate(share, (1 - share) * life_s))
            continue
        error, score = phm_2012_score(actual_s[at : at + 1], estimated_s[at : at + 1])
        figures = (actual_s[at], estimated_s[at], low_s[at], high_s[at], error[0], score[0])
        estimates.append(Estimate(share, *map(float, figures)))
    if not there.any():
        return {"rul_at_shares": estimates}
    within = (low_s[there] <= actual_s[there]) & (actual_s[there] <= high_s[there])
    return {
        "rul_rows": int(np.count_nonzero(there)),
        "rul_mean_score": float(phm_2012_score(actual_s[there], estimated_s[there])[1].mean()),
        "rul_interval_coverage": float(within.mean()),
        "rul_at_shares": estimates,
    }


def leave_one_out(courses: Mapping[str, Course], fates: Mapping[str, Fate]) -> dict[str, Any]:
    """Mean score of each bearing with the prior that is best for the others; {} if there are none."""
    names = [name for name, fate in fates.items() if fate.rul_rows]
    if len(names) < 2:
        return {}
    grid = list(_priors())
    scores = np.array([[_mean_score(courses[name], fates[name], prior) for name in names] for prior in grid])
    default = [_mean_score(courses[name], fates[name], LifePrior()) for name in names]
    result: dict[str, Any] = {}
    for column, name in enumerate(names):
        best = int(np.argmax(np.delete(scores, column, axis=1).mean(axis=1)))
        result[name] = {
            "score_with_default_prior": default[column],
            "score_with_prior_of_the_others": float(scores[best, column]),
            "prior_of_the_others": asdict(grid[best]),
        }
    return result


def _priors() -> Iterator[LifePrior]:
    """What might be believed of lives. The quantile is not among them: it follows from the cost of errors."""
    for share, spread, noise in itertools.product((0.1, 0.3, 1.0), (1.0, 1.5, 2.0), (1.0, 1.5, 2.5)):
        yield LifePrior(typical_share=share, log_spread=spread, noise=noise)


def _mean_score(course: Course, fate: Fate, prior: LifePrior) -> float:
    """The mean score over some rows, with the scores and grades as they were, and another prior."""
    interval_s = fate.life_s / (fate.records - 1)
    times_s = course.records * interval_s
    score, grade = course.columns["score"], course.columns["grade"]
    asked = np.flatnonzero((grade > 0) & np.isfinite(score) & (times_s < fate.life_s))
    wanted = set(
        asked[np.linspace(0, len(asked) - 1, min(len(asked), LEAVE_ONE_OUT_ROWS)).astype(int)].tolist()
    )
    history, before, estimated = DegradationHistory(), 0.0, []
    for row in np.flatnonzero(np.isfinite(score)).tolist():
        if grade[row] and not before:
            history.begin(3.0)
        elif before and not grade[row]:
            history.end()
        before = grade[row]
        if row in wanted:
            life = history.remaining(float(times_s[row]), float(score[row]), danger=DANGER, prior=prior)
            assert life is not None
            estimated.append((fate.life_s - times_s[row], life.estimate_s))
        history.add(float(times_s[row]), float(score[row]))
    actual_s, estimated_s = np.array(estimated).T
    return float(phm_2012_score(actual_s, estimated_s)[1].mean())


def tables(fates: Mapping[str, Fate], run: Run, left_out: Mapping[str, Any]) -> list[Table]:
    """What is printed."""
    alarms = Table(title="Alarms (share of life, lead before the end)", title_justify="left")
    for name in ("bearing", "records", "life", "first warning", "lasting warning", "first danger"):
        alarms.add_column(name, justify="left" if name == "bearing" else "right")
    alarms.add_column("warnings in\nfirst half", justify="right")
    alarms.add_column("of them\ncleared", justify="right")
    lives = Table(
        title="Remaining life, by the score of IEEE PHM 2012; at shares of the life with Er",
        title_justify="left",
    )
    for name in ("bearing", "rows", "mean\nscore", "leave\none out", "within\ninterval"):
        lives.add_column(name, justify="left" if name == "bearing" else "right", no_wrap=True)
    for share in LIFE_SHARES:
        lives.add_column(f"at {share:.0%}", justify="right", no_wrap=True)
    for name, fate in fates.items():
        alarms.add_row(
            name,
            f"{fate.records:,}",
            f"{fate.life_s / 60:,.0f} min",
            _moment(fate.first_warning_share, fate.first_warning_lead_s),
            _moment(fate.lasting_warning_share, fate.lasting_warning_lead_s),
            _moment(fate.first_danger_share, fate.first_danger_lead_s),
            str(fate.warnings_in_first_half),
            str(fate.of_them_cleared),
        )
        other = left_out.get(name, {}).get("score_with_prior_of_the_others")
        lives.add_row(
            name,
            f"{fate.rul_rows:,}",
            _figure(fate.rul_mean_score, ".3f"),
            _figure(other, ".3f"),
            _figure(fate.rul_interval_coverage, ".0%"),
            *(
                "–" if at.score is None else f"{at.score:.2f}\n{_figure(at.error_percent, '.0f')} %"
                for at in fate.rul_at_shares
            ),
        )
    scored = [fate.rul_mean_score for fate in fates.values() if fate.rul_mean_score is not None]
    if scored:
        held_out = [found["score_with_prior_of_the_others"] for found in left_out.values()]
        mean_held_out = _figure(float(np.mean(held_out)) if held_out else None, ".3f")
        lives.add_section()
        lives.add_row("mean", "", f"{np.mean(scored):.3f}", mean_held_out)
    return [alarms, lives]


def _moment(share: float | None, lead_s: float | None) -> str:
    return "never" if share is None or lead_s is None else f"{share:.0%}, {lead_s / 60:,.1f} min"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _without_nan(figures: Any) -> Any:
    """As JSON has it: what is not finite becomes null."""
    if isinstance(figures, Mapping):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, Sequence) and not isinstance(figures, str):
        return [_without_nan(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


if __name__ == "__main__":
    main()
