"""Formats sizes, and lists as columns, for the lab."""

from collections.abc import Sequence


def readable_bytes(size_bytes: int) -> str:
    """A size for users, in decimal units.

    >>> readable_bytes(999), readable_bytes(1_234_567)
    ('999 B', '1.2 MB')
    """
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return (
        f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns of `rows` are aligned.

    >>> table([("a", "1 B"), ("bcd", "22 B")])
    ['  a    1 B', '  bcd  22 B']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
