"""`/metrics` as Prometheus reads it, and callers who mean no good."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config.mqtt import MetricsSettings
from gateway.health import metrics
from gateway.health.observer import Observation
from gateway.identity import web_door
from gateway.model.health import (
    Custodian,
    DestinationReport,
    Disk,
    Host,
    ModalityReport,
    Reason,
    Severity,
    Status,
    Sums,
)
from tests.ports import free_port, listens

SEEN = Observation(
    1000.0,
    5.0,
    Status.DEGRADED,
    (Reason("destination_ill", Severity.WARNING, "pacs", 900.0),),
    Custodian(
        Sums(accepted=10, held=3),
        (DestinationReport("pacs", "open", queued=3, oldest_waiting_since=400.0),),
        rejected={"sender": 2},
    ),
    Host(Disk(50.0, 123)),
    (ModalityReport("ct1", 990.0, 4, 5.0, True),),
    60.0,
)


@pytest.fixture
def door(monkeypatch, wait_until):
    monkeypatch.setattr(metrics, "CALL_S", 30.0)
    monkeypatch.setattr(web_door, "AGAIN_S", 0.1)
    port, stop = free_port(), threading.Event()
    room = metrics.Metrics(MetricsSettings(port=port), lambda: SEEN)
    thread = threading.Thread(target=room.run, args=(stop, lambda: None))
    thread.start()
    assert wait_until(lambda: listens(port))
    yield port
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def fetch(port, path="/metrics", method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def test_prometheus_reads_what_was_seen(door):
    found = {}
    for family in text_string_to_metric_families(fetch(door)):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.values()))] = sample.value
    assert found["dicom_gateway_status", ()] == 1
    assert found["dicom_gateway_alarm", ("destination_ill",)] == 1
    assert found["dicom_gateway_alarm", ("disk_full",)] == 0
    assert found["dicom_gateway_accepted_total", ()] == 10
    assert found["dicom_gateway_deliveries", ("pacs", "queued")] == 3
    assert found["dicom_gateway_oldest_unsent_seconds", ("pacs",)] == 600
    assert found["dicom_gateway_modality_silent", ("ct1",)] == 1
    assert found["dicom_gateway_receive_rejected_sender", ()] == 2
    assert ("dicom_gateway_temperature_celsius", ()) not in found, "what is not known has no sample"


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
def test_nothing_else_is_there(door, path, method, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(door, path, method)
    assert error.value.code == status


def test_a_caller_who_is_slow_or_endless_is_left(door, monkeypatch):
    monkeypatch.setattr(metrics, "CALL_S", 0.5)
    with socket.create_connection(("127.0.0.1", door)) as silent, socket.create_connection(("127.0.0.1", door)) as long:
        silent.settimeout(30)
        with suppress(ConnectionError):  # left before we came to speak
            long.sendall(b"GET /" + b"x" * 20000)
            silent.sendall(b"GET /metr")
            assert silent.recv(1) == b""
        monkeypatch.setattr(metrics, "CALL_S", 30.0)  # who asks well may be held up, too
        assert "dicom_gateway_status" in fetch(door)


def test_a_port_that_is_taken_is_tried_again(monkeypatch, wait_until):
    monkeypatch.setattr(web_door, "AGAIN_S", 0.05)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        thread = threading.Thread(
            target=metrics.Metrics(MetricsSettings(port=port), lambda: None).run, args=(stop, lambda: None)
        )
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()

    def answers() -> bool:
        try:
            return fetch(port) == ""
        except (OSError, HTTPException):
            return False

    assert wait_until(answers), "never answered"
    stop.set()
    thread.join(30)
