"""Whose gateway `windvane send` and `windvane simulate` reach; they say so if it is not their home's."""

import os
import pwd
from pathlib import Path

from ...config import Settings
from ...errors import ConfigInvalid
from ...ingest.forward.client import UNIX
from ...runtime.announcements import forward_address, tier_sockets
from ...runtime.installations import home_of_gateway, is_same_home, is_served, listener_uid
from .logs import say
from .tier_answers import why_forward_port_is_shut


class Receiver:
    """The forward port that a command sends to: that of its home's gateway, or the one of `--to`.

    If that gateway belongs to another home of this user, a note is printed once. A server of another user
    raises `ConfigInvalid` unless `--to` names it.

    Attributes:
        home: of the gateway, if it is one of this user's; else None.
    """

    def __init__(self, settings: Settings, to: str | None) -> None:
        self._settings = settings
        self._to = to
        self._said: Path | str | None = None
        self._is_foreign = False
        self.home: Path | None = None
        self._check(self.address())

    def address(self) -> str:
        """Where to connect; called before each connection."""
        if self._to is not None:
            return self._to
        address = forward_address(self._settings)
        if self._said is None and not self._say_other_home(address):
            self._say_foreign(address)
        return address

    @property
    def other_home(self) -> Path | None:
        """The home of the gateway, if it is another one than that of the command."""
        return self._said if isinstance(self._said, Path) else None

    @property
    def run_dir(self) -> Path | None:
        """Where the sockets of the gateway's home are; None if it cannot be known."""
        if self.home is not None:
            return self.home / "run"
        return self._settings.run_dir if self._to is None else None

    def why_shut(self) -> str | None:
        """That the gateway runs and its forward port is shut, and why; None if it does not say so."""
        home = self.home or (self._settings.home if self._to is None else None)
        if home is None or (reason := why_forward_port_is_shut(home / "run")) is None:
            return None
        return f"the gateway of {home} runs, and its forward port is shut: {reason}"

    def named(self) -> str:
        """Whose gateway it is, for the end of a report; "" for that of this home, or an unknown one."""
        if self._is_foreign:
            return f", which is not the gateway of {self._settings.home}"
        return "" if self._said is None else f" of {self._said}"

    def _check(self, address: str) -> None:
        if self._say_other_home(address) or self._say_foreign(address) or address.startswith(UNIX):
            return
        uid = listener_uid(address)
        if uid is None or uid == os.geteuid() or self.home is not None:
            return
        who = _user_name(uid)
        if self._to is None:
            raise ConfigInvalid(
                f"no gateway of {self._settings.home} runs, and the server at {address} is one of user "
                f"{who}. Start yours with `windvane up`, or name that address to send there"
            )
        say(f"the server at {address} is one of user {who}")
        self._said = f"user {who}"

    def _say_other_home(self, address: str) -> bool:
        home = self.home = self._home_of(address)
        if home is None or is_same_home(home, self._settings.home):
            return False
        if self._said != home:
            self._said = home
            say(
                f"{address} is the gateway of {home}, not of {self._settings.home}; what is sent "
                f"is stored there: `windvane ls --home {home}`"
            )
        return True

    def _home_of(self, address: str) -> Path | None:
        if not address.startswith(UNIX):
            return home_of_gateway(address)
        path = Path(address.removeprefix(UNIX)).absolute()
        if is_same_home(path, self._settings.forward_socket):
            return self._settings.home
        run_dir = path.resolve().parent
        return run_dir.parent if run_dir.name == "run" and tier_sockets(run_dir, "gateway") else None

    def _say_foreign(self, address: str) -> bool:
        """Say that a process of this user listens there which is not the gateway of this home."""
        if self._is_foreign or self.home is not None or address.startswith(UNIX):
            return self._is_foreign
        home = self._settings.home
        # The gateway of this home may listen and not have announced itself yet.
        if listener_uid(address) != os.geteuid() or is_served(home):
            return False
        self._is_foreign = True
        say(
            f"{address} is not the gateway of {home}, over which nothing runs; another process of "
            "yours listens there, and what is sent is stored where that one stores it"
        )
        return True


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
