"""Where the program `windvane` begins: Ctrl-C while its modules are loaded ends it without a traceback."""

import signal


def main() -> None:
    """Load the command line and run it; `cli.FriendlyGroup` takes Ctrl-C from then on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is not ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as run

    run(prog_name="windvane")
