"""Takes commands from the broker, one after the other, and answers each: accepted, executing, then its end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.health.envelope import NEEDS, Command, Me, Rejection, command, desired, opened
from gateway.health.messages import Message, Speaker
from gateway.health.mqtt import Incoming
from gateway.health.replay import ReplayStore, ReplayUnsafe
from gateway.identity.keyring import ROLES, Key, load_keyring
from gateway.model.errors import IdentityError

log = logging.getLogger("gateway.health")

WAITING = 16
PER_MINUTE = 30
EVENTS_PER_MINUTE = 30
"""Rejections that are told one by one; more are only counted in the log."""
ALARM_S = 3600.0


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a command, or, with `later`, that its end comes by itself."""

    good: bool
    code: str = "done"
    values: dict[str, Any] = field(default_factory=dict)
    later: bool = False


Deed = Callable[[str, Mapping[str, Any]], Done]
"""Gets the command's id and its arguments."""


class Pace:
    """So many a minute."""

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count one; False when there were too many. `now` is monotonic."""
        while self._times and now - self._times[0] > 60.0:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return False
        self._times.append(now)
        return True


class Commands:
    """`hear` belongs to the thread of the line to the broker, `run` to a room of its own."""

    def __init__(
        self,
        speaker: Speaker,
        keyring_file: Path,
        store: ReplayStore,
        deeds: Mapping[str, Deed],
        put: Callable[[Message], None],
        note: Callable[[str, str, float], None],
        trying: Callable[[], bool],
    ) -> None:
        """`deeds`: what this box can do, by verb; `put` takes messages for the broker, `note` an alarm; `trying` says
        whether a configuration is on trial."""
        self._trying = trying
        self._speaker = speaker
        self._me = Me(speaker.tenant, speaker.gateway)
        self._keyring_file = keyring_file
        self._store = store
        self._deeds = deeds
        self._put = put
        self._note = note
        self._waiting: queue.Queue[Command] = queue.Queue(WAITING)
        self._interrupted = store.pending()
        """What an earlier life took and did not end."""
        self._pace, self._event_pace = Pace(PER_MINUTE), Pace(EVENTS_PER_MINUTE)

    @property
    def topics(self) -> list[str]:
        """Return what to subscribe to."""
        return [f"{self._speaker.prefix}/cmd/+/+", self._speaker.desired]

    @property
    def capabilities(self) -> dict[str, list[str]]:
        """Return the roles that may give each command."""
        return {verb: list(ROLES[ROLES.index(NEEDS[verb]) :]) for verb in NEEDS if verb in self._deeds}

    def hear(self, incoming: Incoming) -> None:
        """Take a command, or say why not; durable before the broker is told that we have it."""
        keyring = self._keyring()
        if incoming.topic == self._speaker.desired:
            self._hear_desired(incoming, keyring)
            return
        found = command(incoming.topic, incoming.payload, incoming.retained, keyring, self._me, time.time())
        if isinstance(found, Command):
            try:
                found = self._admit(found)
            except ReplayUnsafe as error:
                log.error("command_unsafe reason=%s", error.detail)
                found = Rejection("replay_unsafe", found.id, found.verb, found.kid)
        if isinstance(found, Rejection):
            self._reject(found)

    def _keyring(self) -> dict[str, Key]:
        try:
            return load_keyring(self._keyring_file)
        except IdentityError as error:
            log.error("keyring_unusable reason=%s", error.detail)
            return {}

    def _admit(self, found: Command) -> Command | Rejection:
        def refuse(code: str) -> Rejection:
            return Rejection(code, found.id, found.verb, found.kid)

        known = self._store.known(found.id)
        if known is not None and known.digest == found.digest:
            self._answer(found.verb, found.id, known.status, known.code, known.values)
            self._tell_rejected(Rejection("replayed", found.id, found.verb, found.kid))
            return found
        if known is not None or not self._store.fresh(found):
            return refuse("replayed")
        if found.verb not in self._deeds:
            return refuse("not_supported")
        if not self._pace.allows(time.monotonic()):
            return refuse("too_many")
        if self._waiting.full():
            return refuse("busy")
        self._store.take(found)
        log.warning("command_accepted verb=%s id=%s kid=%s", found.verb, found.id, found.kid)
        self._answer(found.verb, found.id, "accepted", "accepted", {})
        self._put(self._speaker.event("command_accepted", time.time(), verb=found.verb, id=found.id, kid=found.kid))
        self._waiting.put_nowait(found)
        return found

    def _reject(self, rejection: Rejection) -> None:
        self._note("command_rejected", "commands", ALARM_S)
        if rejection.id:
            self._answer(rejection.verb, rejection.id, "rejected", rejection.code, {})
        self._tell_rejected(rejection)

    def _tell_rejected(self, rejection: Rejection) -> None:
        if not self._event_pace.allows(time.monotonic()):
            return
        log.warning("command_rejected code=%s verb=%s kid=%s", rejection.code, rejection.verb, rejection.kid)
        facts = {name: getattr(rejection, name) for name in ("verb", "id", "kid") if getattr(rejection, name)}
        self._put(self._speaker.event("command_rejected", time.time(), code=rejection.code, **facts))

    def _answer(self, verb: str, command_id: str, status: str, code: str, values: Mapping[str, Any]) -> None:
        body = {"id": command_id, "type": verb, "status": status, "code": code}
        self._put(
            self._speaker.result(verb, command_id, {**body, "values": dict(values)} if values else body, time.time())
        )

    def _hear_desired(self, incoming: Incoming, keyring: Mapping[str, Key]) -> None:
        """Converge to a signed, retained document; an older one than that in force, or the same, changes nothing."""
        if not incoming.payload:
            return
        found = opened(incoming.payload, keyring)
        if isinstance(found, Rejection):
            self._reject(found)
            return
        key, signed = found
        document = desired(signed)
        if document is None:
            self._reject(Rejection("malformed"))
        elif (document["tenant"], document["target"]) != (self._me.tenant, self._me.gateway):
            self._reject(Rejection("misaddressed"))
        elif not key.may("admin"):
            self._reject(Rejection("wrong_role"))
        else:
            try:
                self._converge(document)
            except ReplayUnsafe as error:
                log.error("command_unsafe reason=%s", error.detail)

    def _converge(self, document: Mapping[str, Any]) -> None:
        """Put a newer version in force; one that finds a trial going on comes again with the next session."""
        version = document["version"]
        if version <= self._store.desired:
            return
        if "config" in document:
            if self._trying():
                log.warning("desired_state_waits version=%d", version)
                return
            self._store.take_desired(version)
            done = self._deeds["config.apply"]("", {name: document[name] for name in ("config", "sha256")})
            if not done.later:
                self.finish("config.apply", "", done)
        else:
            self._store.take_desired(version)
        log.warning("desired_state version=%d", version)

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Do what was taken, one after the other, until stopped."""
        self._end_what_was_interrupted()
        while not stop.is_set():
            beat()
            try:
                taken = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            self._mark(taken.verb, taken.id, "executing", "executing", {})
            done = self._deeds[taken.verb](taken.id, taken.args)
            if not done.later:
                self.finish(taken.verb, taken.id, done)

    def _end_what_was_interrupted(self) -> None:
        interrupted, self._interrupted = self._interrupted, {}
        for command_id, taken in interrupted.items():
            if taken.verb in ("service.restart", "reboot") and taken.status == "executing":
                self.finish(taken.verb, command_id, Done(True))
            elif taken.verb != "config.apply":
                self.finish(taken.verb, command_id, Done(False, "interrupted"))

    def finish(self, verb: str, command_id: str, done: Done) -> None:
        """Write down and tell how a command ended; a desired state has no id, and is an event only."""
        if verb == "config.apply" and done.code != "unchanged":
            kind = "config_changed" if done.good else "reverted"
            self._put(self._speaker.event(kind, time.time(), code=done.code))
        if not command_id:
            return
        self._mark(verb, command_id, "successful" if done.good else "failed", done.code, done.values)
        self._put(self._speaker.event("command_done", time.time(), verb=verb, id=command_id, code=done.code))

    def _mark(self, verb: str, command_id: str, status: str, code: str, values: Mapping[str, Any]) -> None:
        try:
            self._store.mark(command_id, status, code, values)
        except ReplayUnsafe as error:
            log.error("command_unsafe reason=%s", error.detail)
        log.warning("command_%s verb=%s id=%s code=%s", status, verb, command_id, code)
        self._answer(verb, command_id, status, code, values)
