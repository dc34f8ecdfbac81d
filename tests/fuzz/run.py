"""`make fuzz`: a minute of fuzzing over the forward port's parsers (FUZZ_S seconds where that is set).

It begins with the wire fixtures and with what earlier runs found worth keeping in build/fuzz/corpus. An input
that finds a fault stays in build/fuzz and is printed as a fixture: fix it, add the input to `crashers.py`.
"""

import os
import platform
import re
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.ingest.wire.notation import as_fixture

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "fuzz"
MAX_INPUT_BYTES = 8192
MAX_RESIDENT_MIB = 1024
MAX_INPUT_S = 10


def main() -> int:
    if find_spec("atheris") is None:
        python = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
        print(
            f"make fuzz needs atheris, which has no wheel for {python}; "
            "take CPython 3.11 to 3.13 on x86_64 Linux"
        )
        return 1
    seconds = int(os.environ.get("FUZZ_S", "60"))
    corpus, seeded = FOLDER / "corpus", FOLDER / "seeds"
    for folder in (corpus, seeded):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (seeded / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    known = set(FOLDER.glob("*-*"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.fuzz_forward",
            f"-max_total_time={seconds}",
            f"-max_len={MAX_INPUT_BYTES}",
            f"-rss_limit_mb={MAX_RESIDENT_MIB}",
            f"-timeout={MAX_INPUT_S}",
            f"-artifact_prefix={FOLDER}/",
            "-print_final_stats=1",
            str(corpus),
            str(seeded),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=seconds + 600,
    )
    said = done.stdout.decode(errors="replace")
    found = sorted(set(FOLDER.glob("*-*")) - known)
    if done.returncode or found:
        print(said[-6000:])
    for path in found:
        print(f"{path.relative_to(ROOT)}, as a fixture for tests/fuzz/crashers.py:\n")
        print(as_fixture(path.read_bytes()) + "\n")
    print(summary(said))
    return 1 if found else done.returncode


def summary(said: str) -> str:
    """Executions, coverage and corpus of the run, out of what libFuzzer printed."""
    last = re.findall(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", said)
    rate = re.findall(r"average_exec_per_sec:\s+(\d+)", said)
    if not last:
        return "nothing was run"
    executions, edges, features, corpus = last[-1]
    return (
        f"{executions} executions, {rate[-1] if rate else '?'}/s; "
        f"{edges} edges, {features} features, {corpus} inputs worth keeping"
    )


if __name__ == "__main__":
    sys.exit(main())
