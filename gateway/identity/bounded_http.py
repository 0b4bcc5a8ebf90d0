"""Connections for web services whose replies come within a time, or not at all.

urllib3's timeout is for each read, so that a service which sends a byte now and then, or `100 Continue` for ever, would
keep its thread. Here one deadline holds for status, headers and body together.
"""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

WHOLE_REPLY = 2.0
"""Times the patience for one read."""


class _Bounded(io.RawIOBase):
    """A socket's bytes until the deadline; after it TimeoutError."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._each_s = sock.gettimeout()
        self._until = None if self._each_s is None else time.monotonic() + WHOLE_REPLY * self._each_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is None or self._each_s is None:
            return self._raw.readinto(buffer)
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the reply has no end")
        self._sock.settimeout(min(left_s, self._each_s))
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(self._each_s)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(HTTPResponse):
    def __init__(self, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(sock))


class _Plain(HTTPConnection):
    response_class = _Reply


class _Secure(HTTPSConnection):
    response_class = _Reply


class PatientHttp(HTTPConnectionPool):
    """Plain connections."""

    ConnectionCls = _Plain


class PatientHttps(HTTPSConnectionPool):
    """TLS connections."""

    ConnectionCls = _Secure


POOLS = {"http": PatientHttp, "https": PatientHttps}
