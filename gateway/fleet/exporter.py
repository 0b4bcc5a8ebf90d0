"""`/metrics`: the fleet in numbers, and each box with few. A box's lines are made anew only when it has changed.

Labels are bounded whatever boxes say: codes are those of our own table, versions the most frequent ones, and names of
boxes are limited by `max_boxes`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.fleet.box import Box, Key, Presence
from gateway.fleet.inventory import Inventory
from gateway.fleet.store import Store
from gateway.fleet.subscriber import Line
from gateway.fleet.waves import Progress, Stage
from gateway.model.codes import CODES
from gateway.model.health import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_VERSIONS = 20
OTHER = "other"
P = "dicom_fleet_"

Value = Callable[[Box], float | None]

PER_BOX: dict[str, tuple[str, Value]] = {
    "box_online": ("1 online, 0 stale or offline", lambda b: float(b.presence is Presence.ONLINE)),
    "box_stale": ("1 while it is silent and never said goodbye", lambda b: float(b.presence is Presence.STALE)),
    "box_heard_timestamp_seconds": ("When it was heard last, by the monitor's clock", lambda b: b.heard_at),
    "box_status": (
        "0 ok, 1 degraded, 2 critical",
        lambda b: float(list(Status).index(b.health.status)) if b.health else None,
    ),
    "box_oldest_unsent_seconds": (
        "Age of the oldest object that no archive has yet",
        lambda b: b.health.oldest_age_s if b.health else None,
    ),
    "box_unsent_objects": ("Objects in custody", lambda b: b.health.objects if b.health else None),
    "box_dead_letters": ("Objects that a destination refuses", lambda b: b.health.dead if b.health else None),
    "box_disk_used_percent": ("Of the disk under custody", lambda b: b.health.disk_pct if b.health else None),
    "box_clock_offset_milliseconds": (
        "Of its clock to its time server",
        lambda b: b.health.clock_offset_ms if b.health else None,
    ),
    "box_certificate_days_left": (
        "Until its first certificate ends",
        lambda b: b.health.certificate_days if b.health else None,
    ),
    "box_alarms": ("Alarms that hold", lambda b: float(len(b.alarms))),
    "box_invalid_messages": ("Kinds of its messages that are not understood", lambda b: float(len(b.invalid))),
}
"""Name -> help and value; None has no sample."""


class Exporter:
    """Threads may share it; one is served after the other."""

    def __init__(
        self, inventory: Inventory, lines: Sequence[Line], store: Store, progress: Callable[[], list[Progress]]
    ) -> None:
        self._inventory = inventory
        self._lines = lines
        self._store = store
        self._progress = progress
        self._cache: dict[Key, tuple[int, tuple[str, ...]]] = {}
        self._turn = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        with self._turn:
            return generate_latest(self._registry) + self._per_box()

    def _per_box(self) -> bytes:
        with self._inventory.lock:
            boxes = list(self._inventory.boxes.values())
            stale = [box for box in boxes if self._cache.get(box.key, (-1,))[0] != box.revision]
            for box in stale:
                self._cache[box.key] = (box.revision, _lines(box))
            rows = [self._cache[box.key][1] for box in boxes]
        if len(self._cache) > len(boxes):
            known = {box.key for box in boxes}
            self._cache = {key: lines for key, lines in self._cache.items() if key in known}
        parts = []
        for (name, (text, _)), column in zip(PER_BOX.items(), zip(*rows, strict=True) if rows else (), strict=False):
            parts.append(f"# HELP {P}{name} {text}\n# TYPE {P}{name} gauge\n")
            parts.extend(column)
        return "".join(parts).encode()

    def collect(self) -> Iterator[Metric]:
        """Yield what is told of the fleet as a whole."""
        with self._inventory.lock:
            boxes = list(self._inventory.boxes.values())
            counters = self._inventory.counters
            presence = Counter((box.tenant, box.presence) for box in boxes)
            status = Counter(box.health.status for box in boxes if box.health)
            standing = [alarm for box in boxes for alarm in box.alarms.values()]
            codes = Counter((s.alarm.code if s.alarm.code in CODES else OTHER) for s in standing)
            unseen = sum(not s.acknowledged_by for s in standing)
            versions = Counter(box.versions[-1] for box in boxes if box.versions)
            invalid = sum(bool(box.invalid) for box in boxes)
            oldest = max((box.health.oldest_age_s for box in boxes if box.health), default=0.0)
            unsent = sum(box.health.objects for box in boxes if box.health)
            disagree = sum(not box.health.agree for box in boxes if box.health)
            waves = self._progress()
        tenants = [line.tenant for line in self._lines]
        told = {(tenant, kind.value): presence[tenant, kind] for tenant in tenants for kind in Presence}
        yield _gauges("boxes", "Boxes, by tenant and presence", ["tenant", "presence"], told)
        yield _gauges("boxes_by_status", "By what they said last", ["status"], {(s.value,): status[s] for s in Status})
        yield _gauges("alarms", "Alarms that hold, by code", ["code"], {(c,): codes[c] for c in [*CODES, OTHER]})
        yield _gauge("alarms_unacknowledged", "Alarms that nobody has seen", unseen)
        frequent = dict(versions.most_common(MAX_VERSIONS))
        if others := len(boxes) - sum(frequent.values()):
            frequent[OTHER] = others
        yield _gauges("version_boxes", "Boxes by version", ["version"], {(v,): n for v, n in frequent.items()})
        yield _gauge("boxes_invalid", "Boxes of which something is not understood", invalid)
        yield _gauge("oldest_unsent_seconds", "Age of the oldest unsent object of all boxes", oldest)
        yield _gauge("unsent_objects", "Objects in custody of all boxes", unsent)
        yield _gauge("boxes_sums_disagree", "Boxes whose arithmetic of custody does not add up", disagree)
        for name, text, value in (
            ("messages", "Messages heard", counters.messages),
            ("invalid_messages", "Messages that broke their schema", counters.invalid),
            ("refused_names", "Messages on topics that no box can have", counters.bad_names),
            ("refused_boxes", "Messages of boxes beyond max_boxes", counters.too_many),
            ("history_lost", "Notes that the database could not take in time", counters.journal_lost),
            ("databases_set_aside", "Databases that were damaged", self._store.set_aside),
        ):
            yield CounterMetricFamily(P + name, text, value=value)
        yield _gauge("store_writable", "0 while history cannot be written", not self._store.reason)
        connected = {(line.tenant,): line.connected for line in self._lines}
        yield _gauges("connected", "1 while the broker is connected", ["tenant"], connected)
        drops = {(line.tenant,): line.drops for line in self._lines}
        yield _gauges(
            "broker_drops", "1: the broker did not answer a subscription: its queue is too short", ["tenant"], drops
        )
        stages = {(wave.name, stage.value): wave.count(stage) for wave in waves for stage in Stage}
        yield _gauges("wave_boxes", "Boxes of a wave, by stage", ["wave", "stage"], stages)
        failed = {(wave.name,): wave.failed_percent for wave in waves}
        yield _gauges("wave_failed_percent", "Of the boxes that began", ["wave"], failed)
        abort = {(wave.name,): wave.abort for wave in waves}
        yield _gauges("wave_abort", "1: more have failed than the wave allows", ["wave"], abort)


def _lines(box: Box) -> tuple[str, ...]:
    labels = f'{{tenant="{box.tenant}",gateway="{box.name}"}}'  # names cannot hold what would need escaping
    return tuple(
        "" if (value := measure(box)) is None else f"{P}{name}{labels} {value!r}\n"
        for name, (_, measure) in PER_BOX.items()
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(P + name, text, value=float(value))


def _gauges(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(P + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
