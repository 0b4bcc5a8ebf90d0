"""Composition root: the only file that knows every room. Builds, wires, starts, reloads and stops them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType

from gateway.actions import actions
from gateway.arrive.commitment_scp import CommitmentScp
from gateway.arrive.reception import Reception
from gateway.arrive.store_scp import StoreScp
from gateway.config.destinations import DestinationSettings
from gateway.config.load import load
from gateway.config.schema import ListenerSettings, Settings, SpoolSettings
from gateway.confirm.commitment_scu import report_service
from gateway.confirm.evidence import Evidence
from gateway.confirm.witnesses import WITNESSES
from gateway.control import ControlServer, socket_path
from gateway.dicom.command import N_ACTION_RQ, N_EVENT_REPORT_RQ
from gateway.dicom.listener import Listener
from gateway.health.commands import Done
from gateway.identity.signing import SigningKey, signing_key
from gateway.identity.tls import server_context
from gateway.model.errors import ConfigError, IdentityError, SpoolError
from gateway.model.instance import SOPInstance
from gateway.model.way import Way
from gateway.prepare.worker import Renderer
from gateway.remote import LogLevel
from gateway.retire import sweeper
from gateway.retire.scrub import Scrub
from gateway.route.facts import Facts, facts_of
from gateway.route.rules import ways_of
from gateway.send.bandwidth import Limit
from gateway.send.couriers import COURIERS
from gateway.send.dispatch import Lane
from gateway.spool.audit import Audit
from gateway.spool.spool import Spool
from gateway.supervisor import Supervisor
from gateway.trial import Trial
from gateway.vitals import HealthRooms

log = logging.getLogger("gateway.app")

STOP_S = 8.0
"""All rooms together; systemd and people expect a stop within 10 s."""
OTHER_ROOMS = ("confirm", "retire", "audit", "health", "control", "reload")
"""Beside those that end first, when the doors are shut and nothing more is sent."""


class Gateway:
    """One running gateway."""

    FIXED = ("gateway", "listener", "folder")
    """Tables that need a restart."""

    def __init__(self, settings: Settings, config_path: Path | None, notify: Callable[[str], None]) -> None:
        """Take the spool and bind every port; raises SpoolError, ConfigError, IdentityError, holding nothing then."""
        self.settings = settings
        self.started_at = time.monotonic()
        self.config_path = config_path
        self._reload = threading.Event()
        self.reloads = 0
        """How often the configuration was read again, refused ones included."""
        self.log_level = LogLevel()
        self.trial = Trial(self, self._trial_ended)
        self.supervisor = Supervisor(notify)
        self.lanes: dict[str, Lane] = {}
        self.evidence: dict[str, Evidence] = {}
        """By destination, of those whose word does not suffice."""
        spool = settings.spool
        self.spool = Spool(
            settings.gateway.data_dir,
            spool.reserve_bytes,
            spool.high_water_percent,
            self._ways_of,
        )
        self.reception = Reception(self.spool, settings.admit.max_object_bytes)
        self._commitment = CommitmentScp(self.spool, lambda: self.settings)
        self._renderer = Renderer(self.spool.store.renditions, self.spool.path_of, lambda: self.settings)
        self.line = Limit(settings.bandwidth)
        self.listeners: list[Listener] = []
        self.doors: list[StoreScp] = []
        self.health: HealthRooms | None = None
        try:
            self.listeners = [self._listener(listener) for listener in settings.listener]
            if settings.mqtt or settings.metrics or settings.hardware:
                self.health = HealthRooms(self)
            path = socket_path(settings.gateway.data_dir, settings.gateway.control_socket)
            self._control = ControlServer(path, actions(self), self.supervisor.spawn)
        except BaseException:
            for listener in self.listeners:
                listener.close()
            self.spool.close()
            raise

    def _listener(self, listener: ListenerSettings) -> Listener:
        settings, commitment = (lambda: self.settings), self._commitment
        beside = {N_EVENT_REPORT_RQ: report_service(self.spool, settings), N_ACTION_RQ: commitment.service}
        door = StoreScp(listener, settings, self.spool, self.reception, beside, commitment.errand)
        self.doors.append(door)
        return Listener(
            listener.address,
            listener.port,
            door,
            self.supervisor.spawn,
            max_pdu_bytes=listener.max_pdu_bytes,
            idle_timeout_s=listener.idle_timeout_s,
            max_associations=listener.max_associations,
            max_per_address=listener.max_associations_per_address,
            tls_context=server_context(listener.tls) if listener.tls else None,
        )

    def start(self) -> None:
        """Let every room begin; the committer first, the doors last."""
        room = self.supervisor.room
        room("spool", self.spool.committer.run)
        for destination in self.settings.destination:
            self._open_lane(destination)
        room("arrive:commitment", self._commitment.run)
        room("retire", lambda stop, beat: sweeper.run(self.spool, self._spool_settings, stop, beat))
        room("retire:scrub", Scrub(self.spool, self._spool_settings).run)
        room("audit", Audit(self.spool.reader, lambda: self._spool_settings().study_short_alarm_s).run)
        room("control", self._control.run)
        if self.settings.folder:
            from gateway.arrive.drop_folder import DropFolder  # with what it needs to watch, which most boxes do not

            for folder in self.settings.folder:
                room(f"arrive:{folder.path.name}", DropFolder(folder, self.reception).run)
        for listener in self.listeners:
            room(f"arrive:{listener.port}", listener.run)
        room("reload", self._reload_when_asked)
        if self.health:
            self.health.start(self)
        self.trial.resume()
        log.info("started id=%s ports=%s", self.settings.gateway.id, [listener.port for listener in self.listeners])

    def _ways_of(self, instance: SOPInstance, beginning: Callable[[], bytes]) -> dict[str, Way]:
        """Route by the settings in force; the hour is that of arrival, so that routing again leads to the same."""
        settings = self.settings
        if not settings.route:
            return ways_of(settings, Facts())  # nobody looks at them, and gathering them takes longer than all the rest
        at = datetime.fromtimestamp(instance.received_at).time()
        given_up = [name for name, lane in list(self.lanes.items()) if lane.given_up]
        return ways_of(settings, facts_of(settings.route, instance, beginning, at), given_up)

    def _stand_ins_of(self, name: str) -> set[str]:
        """Return the destinations, well at present, that share a failover group with this one."""
        groups = [route.to_first_of for route in self.settings.route if name in route.to_first_of]
        lanes = self.lanes.copy()
        return {other for group in groups for other in group if other in lanes and not lanes[other].health.ill}

    def _spool_settings(self) -> SpoolSettings:
        return self.settings.spool

    def signing_key(self) -> SigningKey:
        """Return the key that receipts are signed by, made when it is first asked for; raises IdentityError."""
        return signing_key(self.settings.gateway.data_dir / "identity" / "receipt.key")

    def _open_lane(self, destination: DestinationSettings) -> None:
        calling = self.settings.gateway.ae_title
        lane = Lane(
            destination,
            self.spool,
            lambda: COURIERS[destination.kind](destination, calling),
            self._renderer,
            partial(self._stand_ins_of, destination.name),
            None if destination.kind == "folder" else self.line,
        )
        self.lanes[destination.name] = lane
        for number in range(destination.associations):
            self.supervisor.room(f"send:{destination.name}:{number}", partial(lane.run, number))
        self._open_evidence(destination)

    def _open_evidence(self, destination: DestinationSettings) -> None:
        """Ask for evidence where a destination's word does not suffice; where it does now, take it for all it got."""
        name, confirm = destination.name, destination.confirm
        self.evidence.pop(name, None)
        if confirm == "stored":
            self.spool.change(lambda ledger: ledger.trust(name))
            return
        make = WITNESSES[destination.kind, confirm]
        room = Evidence(destination, self.spool, make(destination, self.settings.gateway.ae_title, self.spool))
        self.evidence[name] = room
        self.supervisor.room(f"confirm:{name}:", room.run)

    def request_reload(self) -> None:
        """Read the configuration again soon; safe in a signal handler."""
        self._reload.set()

    def _reload_when_asked(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        while not stop.wait(0.2):
            beat()
            self.log_level.tick()
            if self._reload.is_set() and not self.spool.committer.fault:  # to route anew is to write
                self._reload.clear()
                self.reload()
                self.reloads += 1

    def _trial_ended(self, command_id: str, done: Done) -> None:
        if self.health and self.health.commands:
            self.health.commands.finish("config.apply", command_id, done)

    def reload(self) -> None:
        """Use the configuration file as it is now, or go on with the old one when it is bad."""
        if self.config_path is None:
            return
        try:
            new = load(self.config_path).settings
            self._build_couriers_once(new)
        except (ConfigError, IdentityError) as error:
            log.error("reload_refused reason=%s", error.detail)
            return
        old, self.settings = self.settings, new
        self.line.settings = new.bandwidth
        for fixed in self.FIXED:
            if getattr(old, fixed) != getattr(new, fixed):
                log.warning("reload_needs_restart table=%s", fixed)
        before = {destination.name: destination for destination in old.destination}
        after = {destination.name: destination for destination in new.destination}
        for name in before:
            if after.get(name) != before[name]:
                self.supervisor.finish(f"send:{name}:", STOP_S)
                self.supervisor.finish(f"confirm:{name}:", STOP_S)
                del self.lanes[name]
        for name, destination in after.items():
            if before.get(name) != destination:
                self._open_lane(destination)
        self.spool.use_router(self._ways_of)
        if (old.mqtt, old.metrics, old.hardware) != (new.mqtt, new.metrics, new.hardware):
            self._end_health()
            self.health = HealthRooms(self) if new.mqtt or new.metrics or new.hardware else None
            if self.health:
                self.health.start(self)
        log.info("reloaded destinations=%d routes=%d", len(new.destination), len(new.route))

    def _end_health(self) -> None:
        self.supervisor.finish("health", STOP_S)
        if self.health:
            self.health.off()

    def _build_couriers_once(self, settings: Settings) -> None:
        """Find out before the old lanes end whether certificates of the new ones can be used."""
        for destination in settings.destination:
            COURIERS[destination.kind](destination, settings.gateway.ae_title).close()

    @property
    def workers_lost(self) -> int:
        """Processes that ended in the middle of a rendition since the start; the originals went instead."""
        return self._renderer.workers_lost

    def status_line(self) -> str:
        """Return one line for systemd."""
        ill = [name for name, lane in self.lanes.items() if lane.health.ill]
        if self.spool.committer.fault:
            return f"ledger fault: {self.spool.committer.fault}"
        return f"waiting behind: {', '.join(ill)}" if ill else "all destinations well"

    def stop(self) -> None:
        """End in order: doors first, the committer last, so that what was begun can still be written down."""
        deadline = time.monotonic() + STOP_S
        for prefix, share in (("arrive", 0.6), ("send", 0.6), *((room, 0.5) for room in OTHER_ROOMS)):
            self.supervisor.finish(prefix, max(0.2, (deadline - time.monotonic()) * share))
        for listener in self.listeners:
            listener.close()
        if self.health:
            self.health.off()
        self._control.close()
        self._renderer.close()
        if self.supervisor.finish("spool", max(1.0, deadline - time.monotonic())):
            self.spool.close()
        log.info("stopped")


def serve(settings: Settings, config_path: Path | None, notify: Callable[[str], None]) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit code."""
    gateway = Gateway(settings, config_path, notify)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            gateway.request_reload()
        else:
            gateway.supervisor.end()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    gateway.start()
    gateway.supervisor.watch(gateway.status_line)
    try:
        gateway.stop()
    except SpoolError as error:
        log.error("stop_unclean reason=%s", error.detail)
        return error.exit_code
    return gateway.supervisor.exit_code
