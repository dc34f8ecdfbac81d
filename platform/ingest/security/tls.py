"""TLS for the forward port: certificates from files, read again when they change, no restart needed."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from ...config import Settings
from ...errors import ConfigInvalid, WindvaneError


class TlsFiles:
    """The certificate, its key, and the authorities whose client certificates are accepted.

    `current` is the context for the next connection; open connections keep theirs. A renewed certificate is
    often two writes, certificate and key: if the pair does not match, or a file is invalid, the context in
    force stays, and the files are read again when they change. If they are unusable from the start there is
    no context, and the port stays shut. `on_broken` is called once for each state of invalid files,
    `on_repaired` when they are valid again.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None,
        *,
        on_broken: Callable[[WindvaneError], None],
        on_repaired: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = (cert, key, client_ca)
        self._on_broken, self._on_repaired = on_broken, on_repaired
        self._stamps: list[_Stamp] = []
        self._broken_stamps: list[_Stamp] = []
        self._broken: ConfigInvalid | None = None
        self.current: ssl.SSLContext | None = None
        self.authorities_changed = False
        """Whether the last new context has other authorities: clients admitted before may be invalid now."""
        self.refresh()

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        on_broken: Callable[[WindvaneError], None],
        on_repaired: Callable[[], None] = lambda: None,
    ) -> "TlsFiles | None":
        """The files that the settings name; None without a certificate. Paths are relative to the home.

        Raises ConfigInvalid if only one of certificate and key is set.
        """
        gateway = settings.gateway
        given = (gateway.tls_cert_file, gateway.tls_key_file, gateway.tls_client_ca_file)
        cert, key, client_ca = (None if path is None else settings.home / path for path in given)
        if cert is None and key is None and client_ca is None:
            return None
        if cert is None or key is None:
            missing = "tls_cert_file" if cert is None else "tls_key_file"
            raise ConfigInvalid(f"gateway.{missing} is missing: TLS needs a certificate and its key")
        return cls(cert, key, client_ca, on_broken=on_broken, on_repaired=on_repaired)

    @property
    def why_shut(self) -> str | None:
        """Why the port has to stay shut; None: it may be open."""
        return str(self._broken) if self.current is None else None

    @property
    def asks_for_client_certificate(self) -> bool:
        """Whether a client must show a certificate."""
        return self._files[2] is not None

    def refresh(self) -> bool:
        """Looks whether a file has changed; True: there is a new context."""
        stamps = _stamps(self._files)
        if stamps == self._stamps:
            self._repaired()  # they are again as they were before a mistake
            return False
        if stamps == self._broken_stamps:
            return False
        try:
            context = make_server_context(*self._files)
        except ConfigInvalid as error:
            self._broken, self._broken_stamps = error, stamps
            rest = "What was in force stays in force"
            if self.current is None:
                rest = "The forward port stays shut until they are corrected; that needs no restart"
            self._on_broken(ConfigInvalid(f"{error}. {rest}"))
            return False
        self.authorities_changed = self.current is not None and stamps[2] != self._stamps[2]
        self.current, self._stamps = context, stamps
        self._repaired()
        return True

    def _repaired(self) -> None:
        if self._broken is not None:
            self._broken, self._broken_stamps = None, []
            self._on_repaired()


def make_server_context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 at least; with `client_ca` only for who shows a certificate of it. Raises ConfigInvalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load_pair(context, cert, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def make_client_context(
    *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For a sender: the receiver's certificate and name are checked, by `ca` or the system's authorities.

    `cert` and `key` are what it shows of itself. Raises ConfigInvalid.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_authorities(context, ca)
    if cert is not None:
        _load_pair(context, cert, key or cert)
    return context


def certificate_name(peer_certificate: dict[str, Any] | None) -> str | None:
    """The client's name in its certificate, as `SSLObject.getpeercert` returns it.

    The common name of the subject, else the first DNS name, URI or mail address of the certificate.
    """
    certificate = peer_certificate or {}
    for relative_name in certificate.get("subject", ()):
        for kind, value in relative_name:
            if kind == "commonName" and value:
                return str(value)
    for wanted in ("DNS", "URI", "email"):
        for kind, value in certificate.get("subjectAltName", ()):
            if kind == wanted and value:
                return str(value)
    return None


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def no_terminal() -> str:
        raise ConfigInvalid(f"{key}: is locked with a passphrase; give the service a key without one")

    for path in (cert, key):
        _require_readable(path)
    try:
        context.load_cert_chain(cert, key, password=no_terminal)
    except ssl.SSLError as error:
        why = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else error.reason
        raise ConfigInvalid(f"{cert} and {key} cannot be used: {why or error}; both must be PEM") from None
    except OSError as error:
        raise ConfigInvalid(f"{cert} and {key} cannot be used: {error}; both must be PEM") from None


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _require_readable(path)
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigInvalid(f"{path}: holds no certificates of authorities: {why}; it must be PEM") from None


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}") from None


_Stamp: TypeAlias = tuple[int, int, int, int] | None


def _stamps(paths: tuple[Path | None, ...]) -> list[_Stamp]:
    stamps: list[_Stamp] = []
    for path in paths:
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        if status is None:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return stamps
