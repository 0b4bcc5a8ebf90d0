"""A web archive that asks who we are, forgets its tokens, refuses a Transfer Syntax: none of it costs an object."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.control import ask

JPEG_LS = b"1.2.840.10008.1.2.4.80"


class WebArchive:
    """STOW-RS and a token service by the standard library; `got` holds (data set digest, was it JPEG-LS)."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bool]] = []
        self.refused, self.tokens, self.valid, self.refuse_jpeg_ls = 0, 0, None, False
        archive = self

        class Service(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_OPTIONS(self):
                self.answer(204)

            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/token":
                    self.answer(200, archive.new_token())
                elif archive.valid is not None and self.headers["Authorization"] != f"Bearer {archive.valid}":
                    archive.refused += 1
                    self.answer(401)
                else:
                    self.answer(*archive.store(content))

            def answer(self, status, document=None):
                body = json.dumps(document).encode() if document is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def new_token(self) -> dict:
        self.tokens += 1
        self.valid = f"token{self.tokens}"
        return {"access_token": self.valid, "expires_in": 3600}

    def store(self, content: bytes) -> tuple[int, dict | None]:
        part = content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        coded = JPEG_LS in part[:512]
        if coded and self.refuse_jpeg_ls:
            self.refused += 1
            return 415, None
        length = int.from_bytes(part[140:144], "little")
        self.got.append((hashlib.sha256(part[144 + length :]).hexdigest(), coded))
        at = part.index(b"\x02\x00\x03\x00UI") + 8
        uid = part[at : at + int.from_bytes(part[at - 2 : at], "little")].decode().strip("\0")
        return 200, {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def archive():
    service = WebArchive()
    yield service
    service.close()


def table(archive, more: str) -> str:
    return (
        f'[[destination]]\nname = "web"\nkind = "stow"\nurl = "{archive.base}/studies"\nassociations = 1\n'
        f"retry_first_s = 0.1\nretry_ceiling_s = 0.5\n{more}\n"
    )


def take(box, *files) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open(path, "rb")) for path in files]
        ask(box.folder / "c.sock", {"do": "import"}, [file.fileno() for file in opened])


def test_a_token_that_the_service_forgot_is_renewed_and_the_object_sent(
    make_box, archive, ct_files, tmp_path, digest_of, wait_until
):
    (tmp_path / "secret").write_text("s3cret\n")
    auth = (
        f'auth = {{ kind = "oauth2", token_url = "{archive.base}/token", client_id = "box", '
        f'client_secret_file = "{tmp_path / "secret"}" }}\ncompression = "off"'
    )
    archive.valid = "nobody has it"
    box = make_box(table(archive, auth)).start()
    take(box, ct_files[0])
    assert wait_until(box.delivered_all), box.log()
    archive.valid = "expired behind our back"
    take(box, ct_files[1])
    assert wait_until(box.delivered_all), box.log()
    assert {digest for digest, _ in archive.got} == {digest_of(path) for path in ct_files[:2]}
    assert (archive.tokens, archive.refused) == (2, 1)
    assert "destination_ill" not in box.log()
    assert "s3cret" not in box.log() and "token1" not in box.log()


def test_a_syntax_that_the_service_refuses_is_tried_once_and_the_originals_go(
    make_box, archive, ct_files, digest_of, wait_until
):
    archive.refuse_jpeg_ls = True
    box = make_box(table(archive, 'compression = "jpeg-ls"')).start()
    take(box, *ct_files[:6])
    assert wait_until(box.delivered_all), box.log()
    assert sorted(archive.got) == sorted((digest_of(path), False) for path in ct_files[:6])
    assert archive.refused == 1


def test_a_service_that_takes_it_gets_jpeg_ls(make_box, archive, ct_files, wait_until):
    box = make_box(table(archive, 'compression = "jpeg-ls"')).start()
    take(box, *ct_files[:4])
    assert wait_until(box.delivered_all), box.log()
    assert sum(coded for _, coded in archive.got) == 3
