"""Settings: defaults, then windvane.toml, then WINDVANE_* variables, then flags; the later wins.

All data of Windvane is in one home directory; `Settings` has the paths in it. A setting that is not valid
raises `ConfigInvalid`, which names the source of the value and the allowed values.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from .addresses import DEFAULT_FORWARD, DEFAULT_WEB, parse_address
from .errors import ConfigInvalid
from .toml_lines import explain_toml_error

MIB = 1024 * 1024
CONFIG_NAME = "windvane.toml"
ENVIRONMENT_PREFIX = "WINDVANE_"
_SECRET = ("kafka.password", "alarms.webhook_url", "database", "catalog")

LogFormat = Literal["console", "json"]
Bytes = Annotated[int, msgspec.Meta(gt=0)]
SegmentBytes = Annotated[int, msgspec.Meta(ge=4096)]
Count = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of one gateway process; input beyond them waits or is rejected."""

    max_message_bytes: Bytes = 32 * MIB
    max_decompressed_bytes: Bytes = 64 * MIB
    connection_window_bytes: Bytes = 8 * MIB
    pending_bytes: Bytes = 64 * MIB
    handshake_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 600.0
    # One message may take `message_timeout_s`, and a second more for every `message_bytes_per_s` of it.
    message_timeout_s: Seconds = 60.0
    message_bytes_per_s: Bytes = 8192
    # Paths are relative to the home.
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    forward_socket: Path | None = None
    forward_socket_mode: Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")] = "600"
    udp_heartbeat: bool = True


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker polls the bus and how often it makes its work durable."""

    checkpoint_interval_s: Seconds = 2.0
    poll_bytes: Bytes = 4 * MIB
    # What one stream may have waiting in memory; over it its partition waits, and its policy's others with
    # it.
    stream_backlog_bytes: Bytes = 8 * MIB
    chunk_id_window: Count = 100_000
    # A chunk whose stream another worker writes, for another policy, goes to the dead letters after this.
    stream_wait_s: Seconds = 60.0
    # Of results that the bus has not taken yet; over it the pipelines wait.
    results_pending_bytes: Bytes = 32 * MIB
    # Of the segments of new streams and arrays. Without it those of streams have 64 MiB, and those of arrays
    # about an hour's rows.
    segment_bytes: SegmentBytes | None = None


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of the HTTP connections of each tier; see `windvane.runtime.http_connections`."""

    # From the connection, or its first byte, to the end of a request's header.
    header_timeout_s: Seconds = 15.0
    # Between two requests.
    idle_timeout_s: Seconds = 75.0
    # A body may pause so long, and take `body_timeout_s` and a second for every `body_bytes_per_s` of it.
    body_idle_timeout_s: Seconds = 30.0
    body_timeout_s: Seconds = 60.0
    body_bytes_per_s: Bytes = 1024
    # A client that takes nothing of its answer for so long has left.
    send_timeout_s: Seconds = 300.0
    max_connections: Count = 1000
    # Behind a reverse proxy all connections have its address: raise it to `max_connections` there.
    max_connections_per_address: Count = 500


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a Kafka cluster, and the bounds of its producers and consumers.

    Its representation omits the password.
    """

    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = None
    # Paths are relative to the home.
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    # Before the name of every topic and group, so that one cluster can serve several installations.
    topic_prefix: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{0,40}$")] = "windvane."
    # The ID that says whose the topics are, for a gateway with a home of its own; default: HOME/installation.
    installation: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")] | None = None
    replication_factor: Count | None = None
    compression: Literal["none", "lz4", "zstd"] = "none"
    # Larger chunks are split. A topic's own limit (max.message.bytes) has to be a little above it.
    max_message_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=64 * MIB)] = 8 * MIB
    # What one request carries for a partition, and what is on its way to the brokers at a time.
    batch_bytes: Bytes = 2 * MIB
    in_flight_bytes: Annotated[int, msgspec.Meta(gt=0, le=80 * MIB)] = 32 * MIB
    fetch_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 16 * MIB
    # How long a message may wait for unavailable brokers before its publishing fails.
    delivery_timeout_s: Seconds = 120.0
    request_timeout_s: Seconds = 30.0
    session_timeout_s: Seconds = 10.0

    def __repr__(self) -> str:
        values = {name: value for name, value in msgspec.structs.asdict(self).items() if name != "password"}
        password = "" if self.password is None else ", password=…"
        return f"KafkaSettings({', '.join(f'{name}={value!r}' for name, value in values.items())}{password})"


class AlarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long alarms are kept, and the webhook that receives them too; see docs/alarms.md.

    Its representation omits the address: services put secrets into it.
    """

    # A cleared alarm is deleted so long after its last change; by default never.
    retention_hours: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    webhook_url: Annotated[str, msgspec.Meta(pattern="^https?://[^/ ]+[^ ]*$")] | None = None
    # A path relative to the home; without it requests are not signed.
    webhook_secret_file: Path | None = None
    webhook_timeout_s: Seconds = 10.0
    # The first pause before another try; it doubles each time, up to the last.
    webhook_first_retry_s: Seconds = 1.0
    webhook_last_retry_s: Seconds = 300.0
    # Deliveries that wait; over it the oldest are given up.
    webhook_queue: Count = 10_000

    def __repr__(self) -> str:
        values = {
            name: value for name, value in msgspec.structs.asdict(self).items() if name != "webhook_url"
        }
        url = "" if self.webhook_url is None else ", webhook_url=…"
        return f"AlarmSettings({', '.join(f'{name}={value!r}' for name, value in values.items())}{url})"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one installation.

    Addresses are HOST:PORT, an IPv6 host in brackets; port 0 stands for any free one. `instance` tells
    several gateways, or several workers, over one home apart: lower-case letters, digits and dashes.
    """

    home: Path
    instance: Annotated[str, msgspec.Meta(pattern="^([a-z0-9][a-z0-9-]{0,30})?$")] = ""
    forward: str = DEFAULT_FORWARD
    web: str = DEFAULT_WEB
    bus: str = "embedded:"
    store: str = "local:"
    # postgresql://…: checkpoints, dead letters and catalog; by default SQLite files in the home. `catalog` is
    # another database for the catalog alone.
    database: Annotated[str, msgspec.Meta(pattern="^(postgresql://.+)?$")] | None = None
    catalog: str | None = None
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    kafka: KafkaSettings = KafkaSettings()
    alarms: AlarmSettings = AlarmSettings()
    # The format of the log lines: text, or a JSON object each.
    log_format: LogFormat = "console"
    dead_letter_bytes: Bytes = 256 * MIB
    # Room that is left on the file system of the home: below it nothing is acked or stored.
    disk_reserve_bytes: Bytes = 64 * MIB
    # The most that the permissions of the home may allow, in octal; by default 0700. With a value of its own
    # the home may belong to another user, as one that is shared within a group does.
    home_mode: Annotated[str, msgspec.Meta(pattern="^0?7[0-7]{2}$")] | None = None

    def __post_init__(self) -> None:
        # An empty variable of the environment stands for the default.
        for name in ("database", "catalog"):
            if getattr(self, name) == "":
                msgspec.structs.force_setattr(self, name, None)

    @property
    def has_catalog_elsewhere(self) -> bool:
        """Whether the catalog is not a file of the home."""
        return self.catalog is not None or self.database is not None

    @property
    def store_dir(self) -> Path:
        """Data streams and data arrays."""
        return self.home / "store"

    @property
    def run_dir(self) -> Path:
        """Sockets and addresses of the running tiers; `make_run_dir` makes it, for this user alone."""
        return self.home / "run"

    def tier_name(self, tier: str) -> str:
        """Of this instance's lock, socket and announcement in `run_dir`: `worker`, or `worker-NAME`."""
        return f"{tier}-{self.instance}" if self.instance else tier

    @property
    def catalog_url(self) -> str:
        """The SQLAlchemy URL of the catalog, by default SQLite in the home directory."""
        return self.catalog or self.database or f"sqlite+aiosqlite:///{self.home / 'catalog.sqlite'}"

    @property
    def policy_copy_file(self) -> Path:
        """The policies that were in force last; a tier starts with them if the catalog is damaged."""
        return self.home / "policies-in-force.json"

    @property
    def operations_dir(self) -> Path:
        """Python files with the user's own operations."""
        return self.home / "operations"

    @property
    def token_file(self) -> Path:
        """The access token of the web tier; `ensure_token` makes it."""
        return self.home / "token"

    @property
    def checkpoint_file(self) -> Path:
        """The SQLite database of the worker's checkpoints, unless they are in `database`."""
        return self.home / "checkpoints.sqlite"

    @property
    def checkpoint_place(self) -> Path | str:
        """Where the worker's checkpoints are: a file, or the URL of a database."""
        return self.database or self.checkpoint_file

    @property
    def forward_security_file(self) -> Path:
        """The secrets of the forward port's handshake; see `windvane.ingest.security.settings`."""
        return self.home / "forward-security.toml"

    @property
    def forward_socket(self) -> Path:
        """The forward protocol for this machine, by default for this user alone."""
        path = self.home / (self.gateway.forward_socket or Path("run") / "forward.sock")
        return path.with_stem(f"{path.stem}-{self.instance}") if self.instance else path

    @property
    def dead_letter_file(self) -> Path:
        """The SQLite database of rejected input, unless it is in `database`."""
        return self.home / "dead-letters.sqlite"

    @property
    def dead_letter_place(self) -> Path | str:
        """Where rejected input is: a file, or the URL of a database."""
        return self.database or self.dead_letter_file


def urls_in_environment(settings: Settings) -> dict[str, str]:
    """The variables that give the URLs of these settings to a child process."""
    urls = {
        "BUS": settings.bus,
        "CATALOG": settings.catalog,
        "DATABASE": settings.database,
        "STORE": settings.store,
    }
    return {f"{ENVIRONMENT_PREFIX}{name}": url or "" for name, url in urls.items()}


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """$WINDVANE_HOME, else $XDG_DATA_HOME/windvane, else ~/.local/share/windvane."""
    if home := environment.get("WINDVANE_HOME"):
        return Path(home).expanduser()
    if data_home := environment.get("XDG_DATA_HOME"):
        return Path(data_home).expanduser() / "windvane"
    return Path.home() / ".local" / "share" / "windvane"


def load_settings(
    *,
    home: Path | None = None,
    config: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings of one installation.

    `home` and `flags` come from the command line (None: not given). `config` is a file that must exist;
    without it HOME/windvane.toml is read if it exists. Only a file given by `config` may set `home`, since
    HOME/windvane.toml is found by it. Raises `ConfigInvalid`.
    """
    from_file: dict[str, Any] = {}
    if config is not None:
        from_file = _read_file(config)
        if "home" in from_file:
            listed = Path(str(from_file.pop("home"))).expanduser()
            if home is None and "WINDVANE_HOME" not in environment:
                home = config.absolute().parent / listed
    home = (home or default_home(environment)).expanduser().absolute()
    if config is None and (home / CONFIG_NAME).is_file():
        config = home / CONFIG_NAME
        from_file = _read_file(config)
        if "home" in from_file:
            raise ConfigInvalid(
                f"{config}: `home` cannot be set in the file that is found by it; "
                "give --home, set WINDVANE_HOME, or name the file with --config"
            )
    merged: dict[str, Any] = {"home": str(home)}
    _check_layer(from_file, str(config))
    _merge(merged, from_file)
    for variable, path, value in _from_environment(environment):
        layer: dict[str, Any] = {path[-1]: value}
        for name in reversed(path[:-1]):
            layer = {name: layer}
        _check_layer(layer, f"the environment variable {variable}")
        _merge(merged, layer)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    for name, value in given.items():
        _check_layer({name: value}, f"--{name.replace('_', '-')}")
    _merge(merged, given)
    return _convert(merged)


def _convert(mapping: Mapping[str, Any]) -> Settings:
    # Not strict: the environment gives numbers as text.
    return msgspec.convert(mapping, Settings, strict=False, dec_hook=_from_text)


def _from_text(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigInvalid(f"{path}: no such file; give --config the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, reason = explain_toml_error(text, error)
        raise ConfigInvalid(f"{path}, line {line}: not valid TOML: {reason}") from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, Mapping):
            _merge(below.setdefault(name, {}), value)
        else:
            below[name] = value


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {
        "gateway": GatewaySettings,
        "worker": WorkerSettings,
        "kafka": KafkaSettings,
        "alarms": AlarmSettings,
    }


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    # Only variables that name a setting are looked at: orchestrators set others with the same prefix.
    for field in msgspec.structs.fields(Settings):
        section = _sections().get(field.name)
        if field.name == "home":
            continue
        names = [inner.name for inner in msgspec.structs.fields(section)] if section else [None]
        for inner in names:
            path = (field.name,) if inner is None else (field.name, inner)
            variable = ENVIRONMENT_PREFIX + "_".join(path).upper()
            if value := environment.get(variable):
                yield variable, path, value


def _check_layer(layer: Mapping[str, Any], source: str) -> None:
    """Check one source by itself, so that the message can name it."""
    _check_names(layer, Settings, source, prefix="")
    for name, section in _sections().items():
        if name in layer:
            if not isinstance(layer[name], Mapping):
                raise ConfigInvalid(f"{source}: `{name}` is a table; write [{name}] and its settings below")
            _check_names(layer[name], section, source, prefix=f"{name}.")
    try:
        _convert({"home": "/", **layer})
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        where = where.rstrip("`")
        value: Any = layer
        for name in where.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        shown = "…" if where in _SECRET else repr(value)
        raise ConfigInvalid(f"{source}: {where} = {shown}: {what[0].lower()}{what[1:]}") from None
    for name, example in (("forward", DEFAULT_FORWARD), ("web", DEFAULT_WEB)):
        if name in layer:
            try:
                parse_address(layer[name], example=example)
            except ConfigInvalid as error:
                raise ConfigInvalid(f"{source}: {name}: {error}") from None


def _check_names(layer: Mapping[str, Any], into: type[msgspec.Struct], source: str, *, prefix: str) -> None:
    known = [field.name for field in msgspec.structs.fields(into)]
    for name in layer:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{prefix}{close[0]}`?" if close else f"; known are {', '.join(known)}"
            raise ConfigInvalid(f"{source}: there is no setting `{prefix}{name}`{hint}")
