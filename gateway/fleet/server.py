"""The door of the page: HTTP/1.1, one request for each connection, with a limit and a deadline to everything."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from gateway.fleet.settings import PageSettings
from gateway.identity.tls import server_context
from gateway.identity.web_door import accept_callers
from gateway.model.address import address_of

log = logging.getLogger("gateway.fleet")

CALL_S = 10.0
"""For one caller, all in all."""
MAX_HEAD_BYTES = 16384
MAX_BODY_BYTES = 4096
MAX_CALLERS = 32
MAX_FIELDS = 20
ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks; nothing of it is trusted."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in small letters."""
    local: bool
    """The caller is on this machine, and nobody says that it asks for another one."""
    secure: bool

    @property
    def cookies(self) -> dict[str, str]:
        """Return the cookies by name."""
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Response:
    """What it gets."""

    body: bytes = b""
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


class BadRequest(ValueError):
    """What came is no request that we serve."""

    def __init__(self, status: int, said: str = "") -> None:
        self.status = status
        self.said = said or HTTPStatus(status).phrase
        super().__init__(self.said)


class Server:
    """Accepts callers and gives each a thread of its own; a port that is taken is tried again."""

    def __init__(
        self,
        settings: PageSettings,
        answer: Callable[[Request], Response],
        spawn: Callable[[str, Callable[[], None]], None],
    ) -> None:
        """Raises IdentityError when the certificate cannot be used."""
        self._settings = settings
        self._answer = answer
        self._spawn = spawn
        self._context = server_context(settings.tls) if settings.tls else None
        self._callers = threading.Semaphore(MAX_CALLERS)
        self._names = {settings.address.lower(), *settings.hosts, "localhost", "127.0.0.1", "::1"}

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Answer until stopped."""
        address = (self._settings.address, self._settings.port)
        accept_callers("page", address, self._welcome, stop, beat, log)

    def _welcome(self, caller: socket.socket) -> None:
        if self._callers.acquire(blocking=False):
            self._spawn("page-caller", lambda: self._serve(caller))
        else:
            caller.close()

    def _serve(self, caller: socket.socket) -> None:
        deadline = time.monotonic() + CALL_S
        line: Any = caller
        request = None
        try:
            caller.settimeout(CALL_S)
            if self._context is not None:
                line = self._context.wrap_socket(caller, server_side=True)
            try:
                request = self._read(line, deadline)
                if request is None:
                    return
                response = self._answer(request)
            except BadRequest as error:
                response = Response(error.said.encode(), "text/plain; charset=utf-8", error.status)
            line.settimeout(max(0.001, deadline - time.monotonic()))
            line.sendall(_head(response) + (b"" if request and request.method == "HEAD" else response.body))
        except (OSError, ssl.SSLError):
            pass  # who asked is gone, too slow, or speaks no TLS
        finally:
            line.close()
            self._callers.release()

    def _read(self, line: Any, deadline: float) -> Request | None:
        """Return a request, None when the caller went away; raises BadRequest, OSError."""
        text = b""
        while b"\r\n\r\n" not in text:
            if len(text) > MAX_HEAD_BYTES:
                raise BadRequest(413)
            if not (block := _receive(line, deadline)):
                return None
            text += block
        head, _, body = text.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        method, target, version = (*first.split(" "), "", "")[:3]
        if not version.startswith("HTTP/1.") or not target.startswith("/"):
            raise BadRequest(400)
        pairs = (field.partition(":") for field in rest)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if self._host(headers.get("host", "")) not in self._names:
            # It may be one that was made to lead here, for a script of its owner (DNS rebinding).
            raise BadRequest(421, "This page does not know that name; add it to hosts in the [page] table.")
        if method not in ("GET", "HEAD", "POST"):
            raise BadRequest(405)
        length = headers.get("content-length", "0").lstrip("0") or "0"
        if "transfer-encoding" in headers or not length.isdecimal() or len(length) > 6 or int(length) > MAX_BODY_BYTES:
            raise BadRequest(413)
        while len(body) < int(length):
            if not (block := _receive(line, deadline)):
                return None
            body += block
        path, _, query = target.partition("?")
        asked_for_others = "forwarded" in headers or "x-forwarded-for" in headers
        return Request(
            method,
            unquote_to_bytes(path).decode("utf-8", "replace"),
            _fields(query),
            _fields(body[: int(length)].decode("latin-1")) if method == "POST" else {},
            headers,
            not asked_for_others and _is_loopback(line.getpeername()[0]),
            self._context is not None,
        )

    def _host(self, host: str) -> str:
        name = host.lower()
        return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _receive(line: Any, deadline: float) -> bytes:
    line.settimeout(max(0.001, deadline - time.monotonic()))
    block: bytes = line.recv(8192)
    return block


def _fields(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, max_num_fields=MAX_FIELDS, encoding="utf-8", errors="replace"))
    except ValueError:
        raise BadRequest(400) from None


def _is_loopback(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.is_loopback


def _head(response: Response) -> bytes:
    fields = {"Content-Type": response.content_type, "Content-Length": str(len(response.body)), **ALWAYS}
    lines = [f"{name}: {value}\r\n" for name, value in {**fields, **response.headers}.items()]
    return f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{''.join(lines)}\r\n".encode("latin-1")
