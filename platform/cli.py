"""The command line: `windvane …`, also `python -m windvane.cli …`."""

import os
import signal
import sys
from typing import Any

import click

from .commands import data, policy, send, tiers
from .errors import WindvaneError


class FriendlyGroup(click.Group):
    """Says what went wrong in one line: a user never sees a traceback for a user's mistake.

    Exit codes: 1 for an error, 130 after Ctrl-C, 141 where the reader of our output went away.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which they were added: what most people need comes first."""
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named; --debug shows tracebacks."""
        try:
            return super().invoke(context)
        except WindvaneError as error:
            self._fail(context, str(error), error)
        except KeyboardInterrupt:
            click.echo("", err=True)
            context.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # What is still buffered has nobody to go to, and would raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(128 + signal.SIGPIPE)
        except OSError as error:
            where = f"{os.fspath(error.filename)!s}: " if error.filename is not None else ""
            self._fail(context, f"{where}{error.strerror or error}", error)

    def _fail(self, context: click.Context, message: str, error: Exception) -> None:
        if context.params.get("debug"):
            raise error
        click.echo(f"{click.style('windvane:', fg='red', bold=True)} {message}", err=True)
        context.exit(1)


@click.group(cls=FriendlyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, envvar="WINDVANE_DEBUG", help="Log more; show tracebacks of errors.")
@click.version_option(package_name="windvane", prog_name="windvane")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Windvane takes in what fluentd and Fluent Bit collect, keeps it, and makes spectra and features of it.

    \b
    Start here:
      windvane up --demo
    \b
    Then, in another terminal:
      windvane policy create voice --tag voice --preset audio
      windvane send voice recording.wav --format raw
      windvane ls arrays
    """
    context.obj = {"debug": debug}


for _command in (
    tiers.up,
    policy.policy,
    policy.apply,
    send.send,
    data.ls,
    data.cat,
    data.export,
    tiers.gateway,
    tiers.process,
    tiers.web,
    tiers.simulate,
):
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="windvane")
