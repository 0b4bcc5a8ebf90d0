"""`/metrics` for Prometheus: the latest observation, by HTTP, one caller after the other, each with a deadline."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.config.mqtt import MetricsSettings
from gateway.health.messages import counters, oldest_age_s
from gateway.health.observer import Observation
from gateway.identity.web_door import accept_callers
from gateway.model.codes import CODES
from gateway.model.health import Status

log = logging.getLogger("gateway.health")

CALL_S = 3.0
"""For one caller, all in all."""
MAX_REQUEST_BYTES = 8192
P = "dicom_gateway_"


class Collector:
    """What Prometheus is told of the latest observation; nothing before the first."""

    def __init__(self, latest: Callable[[], Observation | None]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        seen = self._latest()
        if seen is None:
            return
        yield _gauge("status", "0 ok, 1 degraded, 2 critical", list(Status).index(seen.status))
        yield _gauge("observed_timestamp_seconds", "When this was seen", seen.at)
        alarms = GaugeMetricFamily(P + "alarm", "1 while an alarm holds", labels=["code"])
        holding = {reason.code for reason in seen.reasons}
        for code in CODES:
            alarms.add_metric([code], float(code in holding))
        yield alarms
        yield from _sums(seen)
        yield from _machine(seen)
        yield from _destinations(seen)
        silent = GaugeMetricFamily(P + "modality_silent", "1 while a scanner is unusually silent", labels=["modality"])
        last = GaugeMetricFamily(P + "modality_last_object_timestamp_seconds", "Last object", labels=["modality"])
        for modality in seen.modalities:
            silent.add_metric([modality.name], float(modality.silent))
            if modality.last_object is not None:
                last.add_metric([modality.name], modality.last_object)
        yield from (silent, last)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(P + name, text, value=float(value))


def _sums(seen: Observation) -> Iterator[Metric]:
    sums = seen.custodian.sums
    instances = GaugeMetricFamily(P + "instances", "Instances here, by state", labels=["state"])
    for state, count in (("in_custody", sums.held), ("released", sums.released), ("quarantined", sums.quarantined)):
        instances.add_metric([state], count)
    yield instances
    yield _gauge("sums_agree", "1 while everything accepted is accounted for", sums.agree)
    yield _gauge("held_bytes", "Bytes in custody", sums.held_bytes)
    yield CounterMetricFamily(P + "accepted", "Instances ever accepted", value=sums.accepted)
    yield CounterMetricFamily(P + "retired", "Instances given up after all had confirmed", value=sums.retired)
    for group, values in counters(seen).items():
        for name, value in values.items():
            yield _gauge(f"{group}_{name}", f"{group}: {name.replace('_', ' ')}", value)


def _machine(seen: Observation) -> Iterator[Metric]:
    host = seen.host
    for name, text, value in (
        ("disk_used_percent", "Of the disk under custody", host.disk.used_pct),
        ("disk_free_bytes", "Of the disk under custody", host.disk.free_bytes),
        ("disk_wear_percent", "Of its life", host.disk.wear_pct),
        ("clock_synced", "1 while the clock follows a server", host.clock.synced),
        ("clock_offset_milliseconds", "To the server", host.clock.offset_ms),
        ("temperature_celsius", "Of the processor", host.power.temp_c),
        ("undervoltage", "1 while the supply is too low", host.power.undervoltage),
        ("memory_available_percent", "Of the machine", host.memory_available_pct),
        ("resident_bytes", "Of this process", host.rss_bytes),
        ("uptime_seconds", "Of the service", seen.uptime_s),
    ):
        if value is not None:  # what is not known has no sample
            yield _gauge(name, text, value)
    certificates = GaugeMetricFamily(P + "certificate_days_left", "Until it ends", labels=["certificate"])
    for certificate in host.certificates:
        if certificate.days_left is not None:
            certificates.add_metric([certificate.name], certificate.days_left)
    yield certificates


def _destinations(seen: Observation) -> Iterator[Metric]:
    deliveries = GaugeMetricFamily(P + "deliveries", "Deliveries, by state", labels=["destination", "state"])
    well = GaugeMetricFamily(P + "destination_well", "0 while it is ill or paused", labels=["destination"])
    oldest = GaugeMetricFamily(P + "oldest_unsent_seconds", "Age of the oldest", labels=["destination"])
    for destination in seen.custodian.destinations:
        for state in ("queued", "sending", "sent", "confirmed", "held"):
            deliveries.add_metric([destination.name, state], getattr(destination, state))
        well.add_metric([destination.name], float(destination.breaker == "closed"))
        oldest.add_metric([destination.name], oldest_age_s(destination, seen.at))
    yield from (deliveries, well, oldest)


class Metrics:
    """The door. A caller who is slow is left; a port that is taken is tried again."""

    def __init__(self, settings: MetricsSettings, latest: Callable[[], Observation | None]) -> None:
        self._settings = settings
        self._registry = CollectorRegistry()
        self._registry.register(Collector(latest))

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Answer until stopped."""
        address = (self._settings.address, self._settings.port)
        accept_callers("metrics", address, self._welcome, stop, beat, log)

    def _welcome(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):  # who asked is gone, or too slow
            self._serve(caller, time.monotonic() + CALL_S)

    def _serve(self, caller: Any, deadline: float) -> None:
        request = b""
        while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST_BYTES:
            caller.settimeout(max(0.001, deadline - time.monotonic()))
            block = caller.recv(4096)
            if not block:
                return
            request += block
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            status, body = "405 Method Not Allowed", b""
        elif path != b"/metrics":
            status, body = "404 Not Found", b""
        else:
            status, body = "200 OK", generate_latest(self._registry)
        head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\n"
        caller.settimeout(max(0.001, deadline - time.monotonic()))
        caller.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
