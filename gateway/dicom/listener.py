"""The accepting socket: caps before threads, handshakes in the association's own thread."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from gateway.dicom.association import Association
from gateway.dicom.negotiation import reject_pdu
from gateway.dicom.pdu_stream import Patience
from gateway.dicom.services import AssociationFacts, Door
from gateway.model.errors import ConfigError

log = logging.getLogger("gateway.dicom")

PULSE_S = 0.5
BACKLOG = 128
LOCAL_LIMIT_EXCEEDED = reject_pdu(2, 3, 2)
"""Transient, by the presentation service provider (PS3.8 table 9-21)."""
NO_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""What `accept` says again at once, so that it is worth a pause; other failures are one peer's."""

Spawn = Callable[[str, Callable[[], None]], None]


def peer_name(connection: socket.socket) -> str | None:
    """Return the name in a client certificate that the handshake verified; None without one, or without TLS."""
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not certificate:
        return None
    names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())  # type: ignore[assignment]
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())  # type: ignore[assignment]
    dns = [value for kind, value in names if kind == "DNS"]
    common = [value for part in subject for kind, value in part if kind == "commonName"]
    return next(iter(dns + common), None)


class Listener:
    """One port for scanners."""

    def __init__(
        self,
        address: str,
        port: int,
        door: Door,
        spawn: Spawn,
        *,
        max_pdu_bytes: int,
        idle_timeout_s: float,
        max_associations: int,
        max_per_address: int,
        tls_context: ssl.SSLContext | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Bind at once; raises ConfigError when the port cannot be had. `idle_timeout_s` overrides `patience`."""
        self._door = door
        self._spawn = spawn
        self._max_pdu_bytes = max_pdu_bytes
        self._patience = replace(patience or Patience(), idle_s=idle_timeout_s)
        self._max_associations = max_associations
        self._max_per_address = max_per_address
        self._tls_context = tls_context
        self._lock = threading.Lock()
        self._per_address: Counter[str] = Counter()
        self._open: set[Association] = set()
        self._stopping = False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address, port))
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"cannot listen on {address} port {port}: {error.strerror}", hint="is another program using the port?"
            ) from error
        self._socket.settimeout(PULSE_S)
        self.port: int = self._socket.getsockname()[1]

    @property
    def associations(self) -> int:
        """Connections being served."""
        with self._lock:
            return self._per_address.total()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Accept until stopped; then let messages under way finish, for a few seconds."""
        while not stop.is_set():
            beat()
            try:
                connection, peer = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if stop.is_set() or self._socket.fileno() < 0:
                    break
                if error.errno in NO_RESOURCES:
                    log.error("accept_failed port=%d reason=%r", self.port, error.strerror)
                    stop.wait(PULSE_S)
                continue
            self._welcome(connection, peer[0])
        self._end_all(beat)

    def _welcome(self, connection: socket.socket, address: str) -> None:
        """Give a connection its thread, or turn it away while that costs nothing."""
        with self._lock:
            here = self._per_address[address]
            full = here >= self._max_per_address or self._per_address.total() >= self._max_associations
            if not full:
                self._per_address[address] += 1
        if full:
            log.warning("turned_away from=%s port=%d open=%d", address, self.port, here)
            self._turn_away(connection)
            return
        try:
            self._spawn(f"association {address}", lambda: self._serve(connection, address))
        except RuntimeError as error:  # the system has no thread left; the next connection may find one
            log.error("turned_away from=%s port=%d reason=%r", address, self.port, str(error))
            self._turn_away(connection)
            self._leave(address)

    def _turn_away(self, connection: socket.socket) -> None:
        """Reject without waiting for a request: nothing of it is read, and nothing here can block."""
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            if self._tls_context is None:
                connection.send(LOCAL_LIMIT_EXCEEDED)
        connection.close()

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            secured = self._secure(connection, address)
            if secured is None:
                return
            facts = AssociationFacts(address, "", "", self.port, peer_name(secured))
            association = Association(secured, facts, self._door, self._max_pdu_bytes, self._patience)
            with self._lock:
                self._open.add(association)
            try:
                if self._stopping:
                    association.stop()
                association.run()
            finally:
                with self._lock:
                    self._open.discard(association)
        finally:
            connection.close()
            self._leave(address)

    def _leave(self, address: str) -> None:
        with self._lock:
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def _secure(self, connection: socket.socket, address: str) -> socket.socket | None:
        """Shake hands where this listener speaks TLS; None: it failed, and the log says why."""
        if self._tls_context is None:
            return connection
        secured = None
        try:
            secured = self._tls_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            secured.settimeout(self._patience.handshake_s)  # of the handshake as a whole, not of each read in it
            secured.do_handshake()
            return secured
        except (OSError, ValueError) as error:
            log.warning("tls_refused from=%s port=%d reason=%r", address, self.port, str(error))
            if secured is not None:
                secured.close()
            return None

    def _end_all(self, beat: Callable[[], None]) -> None:
        self._stopping = True
        self._socket.close()
        for end, patience_s in ((Association.stop, self._patience.finish_s), (Association.cut, 1.0)):
            with self._lock:
                still_open = list(self._open)
            for association in still_open:
                end(association)
            deadline = time.monotonic() + patience_s
            while self._open and time.monotonic() < deadline:
                beat()
                time.sleep(0.02)

    def close(self) -> None:
        """Give the port back; safe to call twice."""
        self._socket.close()
