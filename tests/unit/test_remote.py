"""What commands do beyond the actions of the control socket."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import trustme

from gateway import remote
from gateway.config.destinations import ClientTls
from gateway.config.mqtt import MqttSettings
from gateway.health.messages import Message


def box(mqtt=None, associations=0):
    return SimpleNamespace(
        settings=SimpleNamespace(mqtt=mqtt),
        lanes={},
        listeners=[SimpleNamespace(associations=associations)],
        supervisor=SimpleNamespace(end=lambda: ended.append(1)),
        spool=SimpleNamespace(reader=None),
    )


ended: list[int] = []


def deeds(gateway, **more):
    return remote.deeds(gateway, lambda: None, lambda: None, lambda: MESSAGES, **more)


MESSAGES = [Message("gw/v1/t/g/health", "health", {"status": "ok"}), Message("gw/v1/t/g/a/hot", "a", None)]


def test_nobody_restarts_a_service_that_nobody_starts_again():
    assert "service.restart" not in deeds(box(), managed=False)
    assert "reboot" not in deeds(box(), managed=False)


def test_a_restart_waits_for_scanners_unless_it_is_forced():
    ended.clear()
    found = deeds(box(associations=1), managed=True)["service.restart"]
    assert found("id", {}).code == "busy"
    assert ended == []
    assert found("id", {"force": True}).later
    assert ended == [1]


def test_a_reboot_is_systemds(monkeypatch):
    asked = []
    monkeypatch.setattr(remote.host, "run", lambda words: asked.append(words) or "")
    assert deeds(box(), managed=True)["reboot"]("id", {}).later
    assert asked == [["systemctl", "reboot"]]


def test_where_the_service_may_not_restart_the_box_root_is_asked(monkeypatch):
    sent = []
    monkeypatch.setattr(remote.host, "run", lambda words: None)
    monkeypatch.setattr(remote.errand, "send", lambda errand, within_s: sent.append(errand.verb))
    assert deeds(box(), managed=True)["reboot"]("id", {}).later
    assert sent == ["reboot"]


def test_updates_are_the_images(tmp_path):
    hook, ends = tmp_path / "update", []
    gateway = box()
    gateway.supervisor.spawn = lambda name, work: work()
    gateway.health = SimpleNamespace(commands=SimpleNamespace(finish=lambda *end: ends.append(end)))
    assert "update.install" not in deeds(gateway)
    hook.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n[ "$1" != confirm ]\n')
    hook.chmod(0o755)
    found = deeds(gateway, hook=hook)
    assert found["update.check"]("id1", {}).later
    assert found["update.install"]("id2", {"version": "1.2.3"}).later
    assert found["update.confirm"]("id3", {}).later
    assert [(verb, number, done.code) for verb, number, done in ends] == [
        ("update.check", "id1", "done"),
        ("update.install", "id2", "done"),
        ("update.confirm", "id3", "hook_failed"),
    ]
    assert (tmp_path / "said").read_text() == "check\ninstall 1.2.3\nconfirm\n"


def test_a_deed_that_breaks_is_a_failed_command():
    gateway = box()
    gateway.lanes = {"pacs": None}
    assert deeds(gateway)["destination.test"]("id", {"destination": "pacs"}).code == "failed"
    assert deeds(gateway)["destination.test"]("id", {"destination": "other"}).code == "unknown_destination"


def test_a_log_level_goes_back(monkeypatch):
    logger, level = logging.getLogger("gateway"), remote.LogLevel()
    logger.setLevel("INFO")
    level.set("debug", 120.0)
    level.set("warning", 60.0)
    assert logger.level == logging.WARNING
    level.tick()
    assert logger.level == logging.WARNING
    later = time.monotonic() + 60.0
    monkeypatch.setattr(remote.time, "monotonic", lambda: later)
    level.tick()
    assert logger.level == logging.INFO


@pytest.fixture
def upload(tmp_path):
    """Where diagnostics may go: HTTPS, and what came."""
    ca, came = trustme.CA(), []
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    class Shelf(BaseHTTPRequestHandler):
        def do_PUT(self):
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201 if self.path == "/good" else 302)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Shelf)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(ca=tmp_path / "ca.pem", url=f"https://127.0.0.1:{server.server_port}", came=came)
    server.shutdown()


def test_diagnostics_go_where_the_configuration_says_and_are_what_is_told_anyway(upload):
    def settings(path):
        return MqttSettings(host="m", tls=ClientTls(ca_file=upload.ca), diagnostics_url=upload.url + path)

    assert "diag.bundle" not in deeds(box(MqttSettings(host="localhost")))
    assert deeds(box(settings("/good")))["diag.bundle"]("id", {}).code == "uploaded"
    assert upload.came == [{"health": {"status": "ok"}}]
    assert deeds(box(settings("/elsewhere")))["diag.bundle"]("id", {}).code == "not_uploaded"
    stranger = MqttSettings(host="m", tls=ClientTls(), diagnostics_url=upload.url + "/good")
    assert deeds(box(stranger))["diag.bundle"]("id", {}).code == "not_uploaded"
    assert len(upload.came) == 2
