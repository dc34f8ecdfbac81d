"""`python -m windvane.web.describe` prints the description of the API without a running tier."""

import sys

import msgspec

from .app import api_description


def main() -> None:
    """Writes the same JSON as `GET /openapi.json`, indented, to standard output."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(api_description()), indent=2) + b"\n")


if __name__ == "__main__":
    main()
