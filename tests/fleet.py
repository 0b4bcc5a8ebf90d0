"""`fleet serve` as its own process, and boxes that are nothing but what they say."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.broker import Broker
from tests.ports import free_port
from tests.program import Program

SESSION = "a" * 32


def stamp(wall: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))


def head(session: str = SESSION) -> dict:
    return {"v": 1, "ts": stamp(time.time()), "session": session, "seq": 1}


def session(state: str = "online", reason: str = "connect", session: str = SESSION) -> dict:
    return {**head(session), "state": state, "reason": reason}


def reason(code: str = "disk_filling", component: str = "disk", severity: str = "warning", age_s: float = 600) -> dict:
    return {"code": code, "severity": severity, "component": component, "since": stamp(time.time() - age_s)}


def health(
    status: str = "ok",
    reasons: tuple = (),
    session: str = SESSION,
    *,
    oldest_s: float = 0,
    objects: int = 0,
    disk: object = 41.5,
    offset_ms: object = 0.4,
    days: object = 210.0,
    interval_s: float = 60,
    read_only: bool = False,
) -> dict:
    names = ("accepted", "held", "released", "quarantined", "retired", "duplicates", "unrouted")
    return {
        **head(session),
        "status": status,
        "reasons": list(reasons),
        "sums": {**dict.fromkeys(names, 0), "agree": True},
        "queue": {"objects": objects, "bytes": objects * 500_000, "oldest_age_s": oldest_s, "dead": 0},
        "disk": {
            "used_pct": disk,
            "free_bytes": 10**10,
            "wear_pct": "unknown",
            "read_only": read_only,
            "encrypted": True,
        },
        "clock": {"source": "chrony", "synced": True, "offset_ms": offset_ms},
        "power": {"temp_c": 48.0, "throttled": False, "undervoltage": False, "on_battery": "unknown"},
        "certificates": [{"name": "mqtt", "days_left": days}],
        "load1": 0.2,
        "memory_available_pct": 71.0,
        "rss_bytes": 10**8,
        "uptime_s": 86400,
        "service_uptime_s": 8640,
        "watchdog": "fed",
        "interval_s": interval_s,
    }


def birth(version: str = "0.4.1", slot: str = "A") -> dict:
    return {
        **head(),
        "gateway_version": version,
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "serial": "10000000a1b2c3d4",
        "os": "Edge image 12.4",
        "slot": slot,
        "boot_id": "unknown",
        "reset_reason": "power-on",
        "sbom_digest": "0" * 64,
        "config_digest": "0" * 64,
        "destinations": ["pacs"],
        "modalities": ["ct1"],
        "cmd": [],
    }


def modality(age_s: float = 300, silent: bool = False) -> dict:
    return {
        **head(),
        "last_object": stamp(time.time() - age_s),
        "studies_today": 12,
        "usual_by_now": 40,
        "silent": silent,
        "idle_s": age_s,
        "rejected": {},
    }


def destination(breaker: str = "closed", queued: int = 0, oldest_s: float = 0) -> dict:
    counts = dict.fromkeys(("accepted", "sending", "sent", "confirmed", "held", "retired"), 0)
    return {
        **head(),
        **counts,
        "breaker": breaker,
        "queued": queued,
        "oldest_age_s": oldest_s,
        "last_success": stamp(time.time() - 90),
        "last_error": "none",
    }


def alarm(code: str = "disk_filling", severity: str = "warning", component: str = "disk", since: str = "") -> dict:
    return {
        **head(),
        "code": code,
        "severity": severity,
        "since": since or stamp(time.time() - 600),
        "components": [component],
    }


class Fleet(Program):
    """The monitor in a folder of its own."""

    def __init__(
        self, folder: Path, broker: Broker, more: str = "", page: str = "", tables: str = "", secure: bool = False
    ) -> None:
        """`more`: keys before the first table; `page`: keys of [page]; `secure`: the page by HTTPS."""
        self._secure, self._ca = secure, broker.folder / "ca.pem"
        if secure:
            cert = f'cert_file = "{broker.folder}/broker.pem", key_file = "{broker.folder}/broker.key"'
            page += f"\ntls = {{ {cert}, require_client_cert = false }}"
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        broker._issue("monitor")
        pems = {
            name: broker.folder / file
            for name, file in (("ca_file", "ca.pem"), ("cert_file", "monitor.pem"), ("key_file", "monitor.key"))
        }
        tls = ", ".join(f'{name} = "{path}"' for name, path in pems.items())
        self.config = folder / "fleet.toml"
        self.config.write_text(
            f'{more}\n[broker]\nhost = "127.0.0.1"\nport = {broker.port}\nwill_delay_s = 1\ntls = {{ {tls} }}\n'
            f'[page]\nport = {self.port}\n{page}\n[store]\npath = "fleet.db"\nsample_s = 10\n{tables}\n'
        )

    def start(self) -> Fleet:
        with open(self.folder / "fleet.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "fleet", "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            try:
                if self.metric('connected{tenant="default"}'):
                    return self
            except OSError:
                assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.folder / "fleet.log").read_text()

    @property
    def url(self) -> str:
        return f"{'https' if self._secure else 'http'}://127.0.0.1:{self.port}"

    def get(self, path: str, headers: dict | None = None, form: dict | None = None):
        """What the page answers; no redirection is followed."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self._ca))
        opener = urllib.request.build_opener(_Stay, trust)
        return opener.open(urllib.request.Request(self.url + path, data, headers or {}), timeout=15)

    def page(self, path: str = "/") -> str:
        with self.get(path) as answer:
            return answer.read().decode()

    def row(self, box: str) -> str:
        """The words of a box's line, without mark-up."""
        found = re.search(rf'<tr[^>]*><th[^>]*><a href="/box/[a-z0-9-]+/{box}".*?</tr>', self.page(f"/?q={box}"))
        return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split()) if found else ""

    def metrics(self) -> str:
        return self.page("/metrics")

    def metric(self, name: str) -> float | None:
        """One sample, its name without the prefix, its labels as they are."""
        for line in self.metrics().splitlines():
            if line.startswith(f"dicom_fleet_{name} "):
                return float(line.rpartition(" ")[2])
        return None


class _Stay(urllib.request.HTTPErrorProcessor):
    """Redirections and refusals are answers like any other."""

    def http_response(self, request, response):
        return response

    https_response = http_response


class Speaker:
    """Publishes as central IT's own user, which may write everything: what boxes say, without boxes."""

    def __init__(self, broker: Broker, tenant: str = "default") -> None:
        self._broker = broker
        self._tenant = tenant
        self._client: mqtt.Client | None = None

    def _connected(self) -> mqtt.Client:
        if self._client is None or not self._client.is_connected():
            broker = self._broker
            broker._issue("monitor")
            client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
            pems = [str(broker.folder / name) for name in ("ca.pem", "monitor.pem", "monitor.key")]
            client.tls_set(*pems)
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            self._client = client
        return self._client

    def say(self, box: str, topic: str, body: dict | bytes | None, *, expiry_s: int | None = None) -> None:
        """Retained, and at the broker on return."""
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        properties = Properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        where = f"gw/v1/{self._tenant}/{box}/{topic}"
        self._connected().publish(where, payload, 1, True, properties).wait_for_publish(10)

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
