"""The command line: `windvane …`, also `python -m windvane.cli …`."""

import errno
import logging
import os
import signal
import sys
from typing import Any

import click

from .commands import (
    alarm,
    backup,
    data,
    dead_letter,
    doctor,
    document,
    drop,
    explain,
    export,
    model,
    operation,
    policy,
    recover,
    reprocess,
    seal,
    send,
    tiers,
    topics,
    upgrade,
    verify,
)
from .commands.common.logs import say, says_json
from .errors import WindvaneError

_MAY_NOT = "give a path, or --home a folder, that you may use"
_NEXT_STEPS = {
    errno.ENOENT: "check the path, or make its folder first",
    errno.ENOTDIR: "check the path: a part of it is a file, not a folder",
    errno.EISDIR: "give the path of a file, not of a folder",
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.EROFS: _MAY_NOT,
    errno.ENOSPC: "make room on that disk, or use another",
    errno.EDQUOT: "make room within your quota, or use another disk",
}


class FriendlyGroup(click.Group):
    """Says what went wrong in one line: a user never sees a traceback for a user's mistake.

    Exit codes: 1 for an error, 130 after Ctrl-C, 141 where the reader of our output went away.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which they were added: what most users need comes first."""
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named; --debug shows tracebacks."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of `entry.main`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return super().invoke(context)
        except WindvaneError as error:
            self._fail(context, str(error), error)
        except KeyboardInterrupt:
            if not says_json():
                click.echo("", err=True)
            context.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # The rest of the buffer has no reader, and would raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(128 + signal.SIGPIPE)
        except OSError as error:
            named = isinstance(error.filename, str | bytes | os.PathLike)
            where = f"{os.fsdecode(error.filename)}: " if named else ""
            next_step = _NEXT_STEPS.get(error.errno or 0, "`windvane --debug …` shows where it happened")
            self._fail(context, f"{where}{error.strerror or error}; {next_step}", error)

    def _fail(self, context: click.Context, message: str, error: Exception) -> None:
        if context.params.get("debug"):
            raise error
        say(message, level=logging.CRITICAL)
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
    export.export,
    explain.explain,
    drop.drop,
    seal.seal,
    alarm.alarm,
    document.document,
    dead_letter.dead_letter,
    operation.operation,
    model.model,
    reprocess.reprocess,
    verify.verify,
    upgrade.upgrade,
    recover.recover,
    backup.backup,
    backup.restore,
    topics.topics,
    doctor.doctor,
    tiers.gateway,
    tiers.worker,
    tiers.process,
    tiers.web,
    tiers.simulate,
):
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="windvane")
