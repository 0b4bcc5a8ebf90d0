"""The web door of an emulated archive: STOW-RS (PS3.18 10.5), with the same rules and the same shelf."""

from __future__ import annotations

import json
import struct
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.emulator.connection import close_with_reset
from gateway.emulator.rules import HTTP, Rule, Rules
from gateway.emulator.shelf import Shelf, received

PAGE = b"<html><body>Please accept the terms of this network.</body></html>"
FAILED = {"refuse": 0x0122, "fail": 0x0110}
"""Failure Reason of an instance (PS3.18 Table I.2-2): SOP class not supported, processing failure."""


class _Over(Exception):
    """The connection ends without an answer."""


def parts(body: bytes, content_type: str) -> list[bytes]:
    """Return the parts of a multipart/related body (RFC 2046 5.1). Raises ValueError when there is no boundary."""
    marker = next((word for word in content_type.split(";") if word.strip().lower().startswith("boundary=")), None)
    if marker is None:
        raise ValueError("no boundary")
    boundary = b"--" + marker.split("=", 1)[1].strip().strip('"').encode("latin-1")
    found, at = [], body.find(boundary)
    while at >= 0:
        start = body.find(b"\r\n\r\n", at)
        end = body.find(b"\r\n" + boundary, start)
        if start < 0 or end < 0:
            break
        found.append(body[start + 4 : end])
        at = end + 2
    return found


def data_set(part10: bytes) -> bytes:
    """Return what follows the File Meta Information, by its group length (PS3.10 7.1)."""
    (length,) = struct.unpack_from("<I", part10, 140)
    return part10[144 + length :]


class Stow:
    """An HTTP service on one port that takes POST, and answers OPTIONS and QIDO-RS for single instances."""

    def __init__(
        self, shelf: Shelf, rules: Rules, *, port: int = 0, address: str = "127.0.0.1", path: str = "/dicom-web/studies"
    ) -> None:
        """`rules` are those of the archive, whose `store` counts both doors together. Raises OSError."""
        self._shelf, self._rules, self.path = shelf, rules, path
        self._stopping = threading.Event()
        stow = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stow._guarded(self, stow._post)

            def do_OPTIONS(self) -> None:
                stow._guarded(self, stow._options)

            def do_GET(self) -> None:
                stow._guarded(self, stow._find)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: names of patients may be in it."""

        self._server = ThreadingHTTPServer((address, port), Exchange)
        self._server.daemon_threads = True
        self._address, self.port = address, int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it stores."""
        return f"http://{self._address}:{self.port}{self.path}"

    def start(self) -> None:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="stow", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _guarded(self, exchange: BaseHTTPRequestHandler, do: Any) -> None:
        try:
            do(exchange)
        except (_Over, OSError):
            exchange.close_connection = True

    def _options(self, exchange: BaseHTTPRequestHandler) -> None:
        for rule in self._rules.strike("echo"):
            self._misbehave(exchange, rule)
        self._reply(exchange, 204, b"")

    def _find(self, exchange: BaseHTTPRequestHandler) -> None:
        uid = exchange.path.rpartition("SOPInstanceUID=")[2].partition("&")[0]
        found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if self._shelf.has(uid) else []
        self._reply(exchange, 200, json.dumps(found).encode())

    def _body(self, exchange: BaseHTTPRequestHandler) -> bytes:
        if exchange.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return exchange.rfile.read(int(exchange.headers.get("Content-Length", 0)))
        body = bytearray()
        while size := int(exchange.rfile.readline().split(b";")[0], 16):
            body += exchange.rfile.read(size)
            exchange.rfile.readline()
        exchange.rfile.readline()
        return bytes(body)

    def _post(self, exchange: BaseHTTPRequestHandler) -> None:
        body = self._body(exchange)
        stored: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        worst = 200
        try:
            objects = parts(body, exchange.headers.get("Content-Type", ""))
        except ValueError:
            objects = []
        if not objects:
            self._reply(exchange, 400, b"")
            return
        for part in objects:
            status = self._store(exchange, part, stored, failed)
            worst = max(worst, status)
        answer = {
            key: {"vr": "SQ", "Value": some} for key, some in (("00081199", stored), ("00081198", failed)) if some
        }
        for rule in self._rules.strike("stored"):
            self._misbehave(exchange, rule)
        self._reply(exchange, worst, json.dumps(answer).encode())

    def _store(
        self, exchange: BaseHTTPRequestHandler, part: bytes, stored: list[dict[str, Any]], failed: list[dict[str, Any]]
    ) -> int:
        """Take one object; return the HTTP status that it asks for."""
        try:
            head = dcmread(BytesIO(part), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, ValueError, KeyError):
            return 400
        meta = head.file_meta
        uid, syntax = str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        status, lies = 200, False
        for rule in self._rules.strike("store"):
            status = HTTP.get(rule.do, status)
            lies = lies or rule.do == "lie"
            if rule.do in FAILED:
                failed.append({**item, "00081197": {"vr": "US", "Value": [FAILED[rule.do]]}})
            self._misbehave(exchange, rule)
        if not lies:
            content = data_set(part)
            self._shelf.note(received(uid, content, syntax, status), str(meta.MediaStorageSOPClassUID), content)
        if status in (200, 202):
            stored.append(item)
        return status

    def _misbehave(self, exchange: BaseHTTPRequestHandler, rule: Rule) -> None:
        if rule.do == "slow":
            self._stopping.wait(rule.seconds)
        elif rule.do == "hang":
            self._stopping.wait()
            raise _Over
        elif rule.do == "reset":
            close_with_reset(exchange.connection)
            raise _Over
        elif rule.do in ("close", "abort"):
            raise _Over
        elif rule.do == "page":
            self._reply(exchange, 200, PAGE, "text/html")
            raise _Over

    def _reply(
        self, exchange: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "application/dicom+json"
    ) -> None:
        exchange.send_response(HTTPStatus(status))
        exchange.send_header("Content-Type", kind)
        exchange.send_header("Content-Length", str(len(body)))
        if status == 503:
            exchange.send_header("Retry-After", "1")
        exchange.end_headers()
        exchange.wfile.write(body)
