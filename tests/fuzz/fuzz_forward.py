"""The fuzz target under atheris, which instruments the code that takes the bytes: see `run.py`."""

import sys

import atheris

with atheris.instrument_imports(include=["windvane", "tests.fuzz"]):
    from tests.fuzz.target import take

if __name__ == "__main__":
    atheris.Setup(sys.argv, take)
    atheris.Fuzz()
