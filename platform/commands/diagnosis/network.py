"""What the ports need: that they are free or ours, certificates, and who may connect."""

import errno
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...addresses import parse_address
from ...config import Settings
from ...errors import ConfigInvalid
from ...ingest.security.settings import load_security, require_guarded_port
from ...ingest.security.tls import make_server_context
from ...runtime.announcements import read_announcement
from ...runtime.supervision import process_start
from .finding import Finding, failure, ok, skipped, warning

EXPIRY_WARNING_S = 30 * 86_400.0
"""A certificate that ends sooner than this is a warning."""

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL: an expired certificate can be read too
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: the certificate itself may be the anchor


def check_network(settings: Settings) -> Iterator[Finding]:
    """All checks of this module."""
    announced = _announced(settings.run_dir)
    for what, address in (("forward", settings.forward), ("web", settings.web)):
        yield check_port(what, address, is_ours=address in announced)
    yield check_guard(settings)
    yield check_security_file(settings)
    gateway = settings.gateway
    given = (gateway.tls_cert_file, gateway.tls_key_file, gateway.tls_client_ca_file)
    cert, key, client_ca = (None if path is None else settings.home / path for path in given)
    yield from check_certificate("certificate", cert, key, client_ca)
    kafka = settings.kafka
    if kafka.cert_file is not None:
        paths = (settings.home / kafka.cert_file, settings.home / (kafka.key_file or kafka.cert_file))
        yield from check_certificate("certificate for Kafka", *paths, None)
    if kafka.ca_file is not None:
        yield from check_authorities("authorities for Kafka", settings.home / kafka.ca_file)


def _announced(run_dir: Path) -> set[str]:
    """Where the tiers of this home listen that run: a killed one leaves its announcement."""
    found = set()
    for path in run_dir.glob("*.json"):
        try:
            pid = int(path.with_suffix(".lock").read_text())
        except (OSError, ValueError):
            continue
        if process_start(pid) is not None:
            report = read_announcement(path) or {}
            found |= {report[name].removeprefix("http://") for name in ("forward", "web") if name in report}
    return found


def check_port(what: str, address: str, *, is_ours: bool) -> Finding:
    """Whether the port is free, or a tier of this home listens there."""
    check = f"{what} port"
    host, port = parse_address(address)
    if port == 0:
        return skipped(check, f"{address} takes any free port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as trying:
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trying.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_ours:
            return ok(check, f"{address} is ours: a tier of this home listens there")
        fix = f"end the program that listens there (`ss -ltnp`), or choose another with --{what} HOST:PORT"
        if error.errno == errno.EACCES:
            fix = f"choose a port of 1024 or more with --{what} HOST:PORT"
        elif error.errno != errno.EADDRINUSE:
            fix = f"choose an address of this machine with --{what} HOST:PORT"
        return failure(check, f"{address} cannot be bound: {error.strerror or error}", fix)
    return ok(check, f"{address} is free")


def check_guard(settings: Settings) -> Finding:
    """Whether clients beyond this machine need credentials for the forward port."""
    try:
        require_guarded_port(settings)
    except ConfigInvalid as error:
        return failure("forward access", str(error), "do one of these")
    return ok("forward access", "only this machine reaches the forward port, or it asks for credentials")


def check_security_file(settings: Settings) -> Finding:
    """Whether the secrets of the forward port can be used; none is shown."""
    path = settings.forward_security_file
    try:
        found = load_security(path)
    except ConfigInvalid as error:
        return failure(path.name, str(error), "correct the file; docs/forward-security.toml is an example")
    if found is None:
        return skipped(path.name, f"there is no {path}; the forward port asks for no shared key")
    counts = f"{len(found.users)} users, {len(found.tokens)} tokens, {len(found.clients)} clients"
    if not found.takes_forward:
        return ok(path.name, f"can be used: {counts}; {found.why_no_forward}")
    return ok(path.name, f"can be used: {counts}")


def check_certificate(
    check: str, cert: Path | None, key: Path | None, client_ca: Path | None
) -> Iterator[Finding]:
    """Whether certificate and key can be used together, until when, and who may read the key."""
    if cert is None and key is None and client_ca is None:
        yield skipped(check, "TLS is not configured for the forward port")
        return
    if cert is None or key is None:
        missing = "tls_cert_file" if cert is None else "tls_key_file"
        yield failure(check, f"gateway.{missing} is missing", "set both tls_cert_file and tls_key_file")
        return
    try:
        context = make_server_context(cert, key, client_ca)
    except ConfigInvalid as error:
        yield failure(check, str(error), "name the PEM files of one certificate and its own key")
        return
    yield _expiry(check, cert, _certificate_of(context, cert), what="certificate")
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        state = failure if mode & 0o007 else warning
        who = "every user" if mode & 0o007 else "its group"
        yield state(f"{check}: key", f"{key} has mode {mode:04o}: {who} may use it", f"chmod 600 {key}")
    else:
        yield ok(f"{check}: key", f"{key} belongs to the certificate, and no other user may read it")
    if client_ca is not None:
        yield from check_authorities(f"{check}: client authorities", client_ca)


def check_authorities(check: str, path: Path) -> Iterator[Finding]:
    """Until when the certificates of authorities in a file hold."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        yield failure(
            check, f"{path} cannot be used: {error}", "name a PEM file of the authorities' certificates"
        )
        return
    found = context.get_ca_certs()
    if not found:
        yield warning(check, f"{path} holds no certificate of an authority", "name one that does")
    for each in found:
        yield _expiry(check, path, each, what="authority")


def _expiry(check: str, path: Path, certificate: dict[str, Any] | None, *, what: str) -> Finding:
    if certificate is None:
        return warning(
            check, f"{path} can be used; until when cannot be found out", "openssl x509 -enddate -in FILE"
        )
    now_s = time.time()
    begins_s, ends_s = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    days = (ends_s - now_s) / 86_400
    renew = f"renew it; the gateway reloads the file without a restart ({path})"
    if now_s < begins_s:
        return failure(
            check, f"the {what} of {path} holds from {certificate['notBefore']} on", "check the clock"
        )
    if days < 0:
        return failure(check, f"the {what} of {path} ended on {certificate['notAfter']}", renew)
    if ends_s - now_s < EXPIRY_WARNING_S:
        return warning(
            check, f"the {what} of {path} ends in {days:.0f} days, {certificate['notAfter']}", renew
        )
    return ok(check, f"the {what} of {path} holds for {days:,.0f} days, until {certificate['notAfter']}")


def _certificate_of(server_context: ssl.SSLContext, cert: Path) -> dict[str, Any] | None:
    """The fields of a certificate, as the `ssl` module reads them of a peer: by a handshake in memory."""
    server_context.verify_mode = ssl.CERT_NONE
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.load_verify_locations(cafile=cert)
    client_context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME | _PARTIAL_CHAIN)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:  # such as a certificate that is for clients alone
            return None
    return client.getpeercert()
