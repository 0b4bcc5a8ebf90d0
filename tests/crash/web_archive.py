"""A STOW-RS service on raw sockets, as scriptable as its DIMSE sister; what it is sent is taken apart here."""

from __future__ import annotations

import json
import struct

from tests.crash.archive import Answered, Line, Over, Server

DICOM_JSON = "application/dicom+json"


def outcome(uid: str, reason: int | None = None) -> bytes:
    """A store response in DICOM JSON (PS3.18 I.2): stored, or failed for a reason."""
    entry = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        entry["00081197"] = {"vr": "US", "Value": [reason]}
    return json.dumps({"00081199" if reason is None else "00081198": {"vr": "SQ", "Value": [entry]}}).encode()


def reply(status: int, body: bytes = b"", media_type: str = DICOM_JSON, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {media_type}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def data_set_of(part10: bytes) -> bytes:
    """What follows the File Meta Information, by its group length (PS3.10 7.1)."""
    assert part10[128:132] == b"DICM" and part10[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    return part10[144 + struct.unpack_from("<I", part10, 140)[0] :]


def uid_of(data_set: bytes) -> str:
    """SOP Instance UID of an Explicit VR Little Endian data set."""
    at = data_set.index(b"\x08\x00\x18\x00UI")
    return data_set[at + 8 : at + 8 + struct.unpack_from("<H", data_set, at + 6)[0]].decode().strip("\0 ")


class WebArchive(Server):
    """Takes POST, answers OPTIONS."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/studies"

    def serve(self, line: Line) -> None:
        while True:
            try:
                self._exchange(line)
            except Answered:
                continue

    def _exchange(self, line: Line) -> None:
        line.carried = 0
        head = self._head(line)
        length = next((int(h.split(b":")[1]) for h in head if h.lower().startswith(b"content-length:")), 0)
        line.ask("associate")
        body = line.read(length)
        if head[0].startswith(b"OPTIONS"):
            line.ask("echo")
            line.send(reply(204))
            return
        part = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        content = data_set_of(part)
        line.uid = uid_of(content)
        line.ask("whole")
        self.keep(line.uid, content)
        line.ask("stored")
        line.send(reply(200, outcome(line.uid)))

    def _head(self, line: Line) -> list[bytes]:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            byte = line.sock.recv(1)
            if not byte:
                raise Over
            got += byte
        return got.split(b"\r\n")
