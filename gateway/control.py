"""The control socket: one line of JSON in, one out. Command line, console and MQTT all act through it.

A request is `{"do": NAME, …}`; the answer `{"ok": …}` or `{"error": …, "hint": …, "exit_code": …}`. Files may
travel beside a request as descriptors (SCM_RIGHTS), so that the service needs no right to the sender's folders.
"""

from __future__ import annotations

import array
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.model.errors import GatewayError, NotRunning

log = logging.getLogger("gateway.control")

MAX_LINE_BYTES = 1 << 20
TIMEOUT_S = 150.0
MAX_FDS = 16

Action = Callable[[Mapping[str, Any], list[int]], Any]
"""Does what a request asks; gets the descriptors that came with it, which are closed afterwards."""


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Read one line and the descriptors that came with it."""
    line, fds = b"", array.array("i")
    while not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        block, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(MAX_FDS * fds.itemsize))
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not block:
            break
        line += block
    return line, list(fds)


class ControlServer:
    """Answers on a Unix socket that only our own user and group may open."""

    def __init__(
        self, path: Path, actions: Mapping[str, Action], spawn: Callable[[str, Callable[[], None]], None]
    ) -> None:
        self._path = path
        self._actions = actions
        self._spawn = spawn
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._socket.listen(16)
        self._socket.settimeout(0.5)

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Answer until stopped."""
        while not stop.is_set():
            beat()
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            self._spawn("control", lambda c=connection: self._serve(c))  # type: ignore[misc]

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(TIMEOUT_S)
            try:
                line, fds = _receive(connection)
                try:
                    connection.sendall(json.dumps(self._answer(line, fds)).encode() + b"\n")
                finally:
                    for fd in fds:
                        os.close(fd)
            except OSError:
                return  # who asked is gone

    def _answer(self, line: bytes, fds: list[int]) -> dict[str, Any]:
        try:
            request = json.loads(line)
            action = self._actions[request["do"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown request", "hint": "client and service differ in version?", "exit_code": 1}
        try:
            return {"ok": action(request, fds)}
        except GatewayError as error:
            return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
        except (KeyError, ValueError, TypeError, OSError) as error:
            log.exception("control_failed do=%s", request["do"])
            return {"error": f"{type(error).__name__}: {error}", "hint": "", "exit_code": 1}


class RemoteError(GatewayError):
    """The service could not do what was asked."""


def ask(path: Path, request: Mapping[str, Any], fds: list[int] | None = None) -> Any:
    """Send one request and return its answer; raises NotRunning, or what the service raised."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
            line = json.dumps(dict(request)).encode() + b"\n"
            if fds:
                socket.send_fds(connection, [line], fds)
            else:
                connection.sendall(line)
            answer = b""
            while not answer.endswith(b"\n"):
                block = connection.recv(65536)
                if not block:
                    raise NotRunning("the service went away while it answered")
                answer += block
        except OSError as error:
            raise NotRunning(f"nobody answers on {path}") from error
    reply = json.loads(answer)
    if "error" in reply:
        remote = RemoteError(reply["error"], hint=reply.get("hint", ""))
        remote.exit_code = reply.get("exit_code", 1)
        raise remote
    return reply["ok"]


def socket_path(data_dir: Path, configured: Path | None) -> Path:
    """Return where the service listens: as configured, or the runtime folder where it exists, or the data folder."""
    if configured is not None:
        return configured
    runtime = Path("/run/dicom-gateway")
    return (runtime if os.access(runtime, os.W_OK) else data_dir) / "control.sock"
