"""What the house knows about itself, as the plain values of `model/health.py`; and the rooms that tell it on.

`health` must not know the other rooms: it gets functions from here.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.admit.policy import is_modality
from gateway.config.destinations import StowDestination
from gateway.config.hardware import HardwareSettings
from gateway.config.mqtt import MqttSettings
from gateway.config.schema import Settings
from gateway.health import host
from gateway.health.commands import Commands
from gateway.health.home_assistant import discovery
from gateway.health.light import Lights
from gateway.health.lines import Lines
from gateway.health.messages import Message, Speaker
from gateway.health.mqtt import Incoming, Publisher
from gateway.health.observer import Observer, Sources
from gateway.health.outbox import Outbox
from gateway.health.replay import ReplayStore
from gateway.health.reporter import Reporter
from gateway.health.watched import Watched
from gateway.identity.expiry import days_left
from gateway.model.errors import SpoolError
from gateway.model.health import Arrivals, Custodian, DestinationReport, Identity, Sums
from gateway.model.topics import host_state
from gateway.remote import deeds, machine, update_hook
from gateway.report import report
from gateway.retire.scrub import DAY_S, is_overdue
from gateway.send.dispatch import Health, Lane

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.health.metrics import Metrics

SERVICES = {
    "receiver": ("arrive",),
    "forwarder": ("send",),
    "confirmer": ("confirm",),
    "keeper": ("retire", "audit"),
    "spool": ("spool",),
}
"""How the world calls our rooms."""


def custodian(gateway: Gateway) -> Custodian:
    """Return what the gateway knows; raises SpoolError."""
    spool = gateway.spool
    page = report(spool.reader, spool.capacity(), gateway.settings.spool.study_short_alarm_s)
    alarms, lanes, rejected = page["alarms"], gateway.lanes.copy(), Counter[str]()
    refused: dict[str, dict[str, int]] = {}
    for door in gateway.doors:
        for (name, reason), count in door.rejected.copy().items():
            rejected[reason.name.lower()] += count
            if name:
                refused.setdefault(name, Counter())[reason.name.lower()] += count
    late = gateway.supervisor.late()
    sums = Sums(
        **{key: page[key] for key in ("accepted", "held", "held_bytes", "released", "quarantined", "retired")},
        duplicates=page["duplicates"],
        unrouted=page["unrouted"],
        uid_conflicts=alarms.get("uid_conflict", 0),
        lost=alarms.get("custody_loss", 0),
        short_studies=alarms.get("study_short", 0),
        agree=page["sums_agree"],
    )
    names = sorted({*lanes, *page["destinations"]})
    return Custodian(
        sums,
        tuple(_destination(name, page["destinations"].get(name, {}), lanes.get(name)) for name in names),
        page["disk"]["room"],
        bool(spool.committer.fault),
        {name: not any(room.startswith(rooms) for room in late) for name, rooms in SERVICES.items()},
        dict(rejected),
        refused,
        sum(listener.associations for listener in gateway.listeners),
        gateway.workers_lost,
        sum(lane.shaper.saved_bytes for lane in lanes.values()),
        _codecs(lanes.values()),
        tuple(sorted(stay for lane in lanes.values() for stay in lane.stays.latest())),
        page["disk"]["read_only"],
        is_overdue(spool.reader.scrub_state(), time.time(), gateway.settings.spool.scrub_days * DAY_S),
        bool(alarms.get("ledger_rot")),
    )


def _codecs(lanes: Iterable[Lane]) -> dict[str, tuple[int, int, int]]:
    """Return what each codec brought, over all lanes."""
    found: dict[str, tuple[int, int, int]] = {}
    for lane in lanes:
        for codec, (objects, came, sent) in lane.shaper.by_codec.copy().items():
            before = found.get(codec, (0, 0, 0))
            found[codec] = (before[0] + objects, before[1] + came, before[2] + sent)
    return found


def _destination(name: str, row: Mapping[str, Any], lane: Lane | None) -> DestinationReport:
    counts = ("accepted", "queued", "sending", "sent", "confirmed", "held", "retired")
    health = lane.health if lane else Health()
    return DestinationReport(
        name,
        "paused" if health.paused else "open" if health.ill else "closed",
        **{key: row.get(key, 0) for key in counts},
        oldest_waiting_since=row.get("oldest_waiting_since"),
        last_success=health.delivered_at,
        last_error=_class_of(health.code, web=lane is not None and isinstance(lane.settings, StowDestination)),
    )


def _class_of(code: int | None, *, web: bool) -> str:
    """Word the last failure without a peer's own words: those may name a patient."""
    if code is None:
        return ""
    if not code:
        return "no_answer"
    return f"{code:03d}" if web else f"0x{code:04X}"


def certificates(settings: Settings) -> dict[str, Path]:
    """Return our own certificate files by the name under which they are told."""
    found = {f"listener-{door.port}": door.tls.cert_file for door in settings.listener if door.tls}
    for destination in settings.destination:
        tls = getattr(destination, "tls", None)
        if tls and tls.cert_file:
            found[f"destination-{destination.name}"[:63]] = tls.cert_file
    if settings.mqtt and settings.mqtt.tls and settings.mqtt.tls.cert_file:
        found["mqtt"] = settings.mqtt.tls.cert_file
    return found


def config_digest(gateway: Gateway) -> str:
    """Return the SHA-256 of the configuration file in force, hex."""
    try:
        text = gateway.config_path.read_bytes() if gateway.config_path else b""
    except OSError:
        text = b""
    return hashlib.sha256(text or gateway.settings.model_dump_json().encode()).hexdigest()


@cache
def sbom_digest() -> str:
    """Return the SHA-256 of what runs here, hex: the sorted lines `name==version` of all installed distributions.

    Names as PEP 503 normalises them; `pip list --format=freeze` says the same. Read once: it takes the disk.
    """
    found = {(re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(), each.version) for each in distributions()}
    return hashlib.sha256("".join(f"{name}=={version}\n" for name, version in sorted(found)).encode()).hexdigest()


class _Arrivals:
    """What came since the last look, by the names that the configuration gives to senders."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._seen = gateway.spool.reader.last_seq()

    def __call__(self) -> list[Arrivals]:
        reader = self._gateway.spool.reader
        last = reader.last_seq()
        rows, self._seen = reader.senders_between(self._seen, last), last
        found: dict[str, Arrivals] = {}
        for ae_title, address, at, studies in rows:
            for modality in self._gateway.settings.modality:
                if is_modality(modality, ae_title, address):
                    before = found.get(modality.name, Arrivals(modality.name, 0, 0.0))
                    found[modality.name] = Arrivals(modality.name, before.studies + studies, max(before.last_at, at))
                    break
        return list(found.values())


def _glance(gateway: Gateway) -> object:
    try:
        room = gateway.spool.capacity().room.value
    except SpoolError:
        room = "unknown"
    lanes = [(name, lane.health.ill, lane.health.paused) for name, lane in gateway.lanes.copy().items()]
    return room, lanes, bool(gateway.spool.committer.fault), gateway.supervisor.late()


def _identity(gateway: Gateway) -> Identity:
    settings = gateway.settings
    return Identity(
        __version__,
        **host.facts(),
        config_digest=config_digest(gateway),
        sbom_digest=sbom_digest(),
        destinations=tuple(destination.name for destination in settings.destination),
        modalities=tuple(modality.name for modality in settings.modality),
    )


class HealthRooms:
    """The rooms of `health`, as the configuration asks for them."""

    def __init__(self, gateway: Gateway) -> None:
        """Build them; raises SpoolError, ConfigError, IdentityError."""
        settings = gateway.settings
        mqtt = settings.mqtt
        sources = Sources(
            lambda: custodian(gateway),
            lambda: _glance(gateway),
            _Arrivals(gateway),
            lambda: [modality.name for modality in gateway.settings.modality],
            lambda: certificates(gateway.settings),
            days_left,
        )
        interval_s = mqtt.interval_s if mqtt else 60.0
        self.observer = Observer(sources, settings.gateway.data_dir, interval_s)
        self.publisher: Publisher | None = None
        self.commands: Commands | None = None
        self.watched = Watched()
        self.metrics: Metrics | None = None
        if settings.metrics:
            from gateway.health.metrics import Metrics  # its library with it, only where somebody collects them

            self.metrics = Metrics(settings.metrics, lambda: self.observer.latest)
        self._again: Callable[[], None] = self.observer.look_now
        if mqtt:
            self._tell_by(mqtt, gateway)
        self.lights: Lights | None = None
        self.lines: Lines | None = None
        if settings.hardware:
            self._show(settings.hardware)

    def _tell_by(self, mqtt: MqttSettings, gateway: Gateway) -> None:
        speaker, outbox = Speaker(mqtt.tenant, gateway.settings.gateway.id), Outbox()
        roles: dict[str, list[str]] = {}
        beside = partial(_announcements, speaker) if mqtt.home_assistant else _nothing
        reporter = Reporter(speaker, outbox, lambda: _identity(gateway), roles, beside)

        def again() -> None:
            for message in reporter.greeting():
                outbox.put(message)

        self._again = again
        if mqtt.keyring_file:
            doing = deeds(gateway, self.observer.look_now, again, reporter.greeting, hook=update_hook())
            store = ReplayStore(gateway.settings.gateway.data_dir / "commands.json")
            self.commands = Commands(
                speaker,
                mqtt.keyring_file,
                store,
                doing,
                outbox.put,
                self.observer.note,
                lambda: gateway.trial.busy,
            )
            roles.update(self.commands.capabilities)
        self.observer.changed.append(reporter.take)
        outbox.put(speaker.event("boot", time.time()))
        monitor = host_state(mqtt.tenant)

        def hear(incoming: Incoming) -> None:
            if incoming.topic == monitor:
                self.watched.hear(incoming)
            elif self.commands:
                self.commands.hear(incoming)

        topics = [*(self.commands.topics if self.commands else []), monitor]
        self.publisher = Publisher(mqtt, speaker, outbox, reporter.greeting, topics, hear)

    def _show(self, hardware: HardwareSettings) -> None:
        self.lights = Lights(hardware.status_led, hardware.alert_led)
        self.observer.changed.append(self.lights.take)
        if hardware.power_fail or hardware.button:
            shut_down = partial(machine, "poweroff")
            self.lines = Lines(hardware, self.observer.mains, lambda: self._again(), shut_down)

    def off(self) -> None:
        """The rooms have ended: let nothing shine any more."""
        if self.lights:
            self.lights.off()

    def start(self, gateway: Gateway) -> None:
        """Let them begin."""
        room = partial(gateway.supervisor.room, vital=False)
        room("health:observer", self.observer.run)
        if self.lines:
            room("health:lines", self.lines.run)
        if self.metrics:
            room("health:metrics", self.metrics.run)
        if self.publisher:
            room("health:mqtt", self.publisher.run)
        if self.commands:
            room("health:commands", self.commands.run)

    def line(self) -> dict[str, Any]:
        """Return how the line to the broker is."""
        publisher = self.publisher
        connected = bool(publisher and publisher.connected)
        return {
            "configured": publisher is not None,
            "connected": connected,
            "monitor": self.watched.state if connected else "unknown",
            "reason": publisher.reason if publisher else "",
        }


def _announcements(speaker: Speaker, identity: Identity) -> list[Message]:
    return [discovery(speaker, identity)]


def _nothing(identity: Identity) -> list[Message]:
    return []
