"""The only place that builds an SSLContext: TLS 1.2 and 1.3 by PS3.15 B.12 (BCP 195), names always checked."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.config.destinations import ClientTls
from gateway.config.schema import ServerTls
from gateway.model.errors import IdentityError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only; TLS 1.3 has nothing else."""


def _context(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _identify(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    for path in (cert_file, key_file):
        _must_be_readable(path)
    try:
        context.load_cert_chain(cert_file, key_file)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise IdentityError(
            f"certificate {cert_file} and key {key_file} cannot be used together: {error}",
            hint="both must be PEM, the key unencrypted and the one that belongs to the certificate",
        ) from error


def _trust(context: ssl.SSLContext, ca_file: Path) -> None:
    _must_be_readable(ca_file)
    try:
        context.load_verify_locations(ca_file)
    except (ssl.SSLError, OSError) as error:
        raise IdentityError(f"trust anchors {ca_file} cannot be used: {error}", hint="the file must be PEM") from error


def _must_be_readable(path: Path) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Return a context that checks the peer's chain and name; raises IdentityError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        _trust(context, tls.ca_file)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.cert_file is not None and tls.key_file is not None:
        _identify(context, tls.cert_file, tls.key_file)
    return context


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Return a context for a listener, with client certificates where they are required; raises IdentityError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    _identify(context, tls.cert_file, tls.key_file)
    if tls.ca_file is not None:
        _trust(context, tls.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_cert else ssl.CERT_OPTIONAL
    return context
