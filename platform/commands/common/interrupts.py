"""Ctrl-C while code of users runs in the main thread.

Whatever that code raises, KeyboardInterrupt included, rejects a block. So Ctrl-C raises nothing in it: the
command ends between two blocks. A second Ctrl-C ends the process at once.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click


@contextmanager
def interrupted_between_blocks() -> Iterator[Callable[[], None]]:
    """Gives a function to call between blocks: it raises KeyboardInterrupt if Ctrl-C was pressed."""
    pressed = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        pressed = True
        click.echo("ending after this block; Ctrl-C again ends at once", err=True)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
