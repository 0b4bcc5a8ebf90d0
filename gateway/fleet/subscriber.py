"""The line to the broker, one for each tenant: subscribes to what its boxes say, and says that somebody watches them.

State is retained at the broker, so every connection begins by hearing all of it again. What is superseded within a
minute anyway (health, scanners, archives) comes by QoS 0, the rest by QoS 1. Nothing is gathered here: a message goes
into the inventory before the next one is read, and while that takes long the broker waits.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.fleet.box import Key
from gateway.fleet.inventory import Heard, Inventory
from gateway.fleet.settings import BrokerSettings, read_secret
from gateway.identity.bounded_mqtt import CONNECT_S, MAX_PACKET_BYTES, BoundedClient, LineLost, stay_connected
from gateway.identity.tls import client_context
from gateway.model.topics import box, host_state

log = logging.getLogger("gateway.fleet")

SESSION_EXPIRY_S = 3600
"""So long the broker keeps events for us while we are away."""
RECEIVE_MAXIMUM = 1000
RETRY_FIRST_S, RETRY_CEILING_S = 0.5, 10.0
"""One monitor does not hammer a broker; people wait for the page."""
WAIT_S = 0.25
FAREWELL_S = 2.0
SILENCE_S = 5.0
"""A broker that says nothing at all for so long will not answer SUBSCRIBE any more."""
ASK_EVERY_S, ASK_BOXES = 1.0, 20
"""What is missing of a box is asked for, so many boxes at a time."""
SUBSCRIPTIONS = {
    "session": 1,
    "birth": 1,
    "a/+": 1,
    "e/+": 1,
    "res/update.install/+": 1,
    "mod/+/health": 0,
    "dst/+/health": 0,
    "health": 0,
}
"""Topic below a box -> QoS, in the order in which the retained ones are to come."""
RETAINED = ("session", "birth", "a", "mod", "dst")
"""Of these, what comes again only when something changes."""


class Line:
    """Keeps one tenant's connection as long as it runs."""

    def __init__(self, settings: BrokerSettings, tenant: str, inventory: Inventory) -> None:
        self.tenant = tenant
        self.connected = False
        self.reason = "not connected yet"
        self.since = time.time()
        """Wall clock, of being connected or not."""
        self.sessions = 0
        self.drops = False
        """The broker did not answer a subscription: it drops what it is to send us."""
        self._told = ""
        """The reason that was logged last."""
        self._asked: set[Key] = set()
        self._settings = settings
        self._inventory = inventory
        self._lost_at: float | None = None
        self._refused = ""
        self._welcome = False
        self._unanswered: set[int] = set()

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Be connected until stopped."""
        stay_connected(lambda: self._live(stop, beat), self._lost, (RETRY_FIRST_S, RETRY_CEILING_S), stop, beat)

    def _lost(self, reason: str) -> None:
        if reason:
            if reason != self._told:
                log.warning("broker_lost tenant=%s reason=%r", self.tenant, reason)
            self.reason = self._told = reason
        self._become(False)

    def _become(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected, self.since = connected, time.time()
            if not connected:
                self._lost_at = time.monotonic()

    def _live(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        session = uuid4().hex
        client = self._client(session)
        try:
            self._open(client, stop, beat)
            self._excuse()
            self.reason = "connected, and hearing what the broker kept"
            self._subscribe(client, stop, beat)
            self.sessions, self.reason, self._told = self.sessions + 1, "", ""
            self._become(True)
            log.info("broker_connected tenant=%s host=%s", self.tenant, self._settings.host)
            self._say(client, session, 0, "online", "connect")
            asked_at = time.monotonic()
            while not stop.is_set():
                beat()
                self._turn(client, WAIT_S)
                if time.monotonic() - asked_at > ASK_EVERY_S:
                    asked_at = time.monotonic()
                    self._ask_for_missing(client)
            self._say(client, session, 1, "offline", "shutdown")
            deadline = time.monotonic() + FAREWELL_S
            while (client.want_write() or self._unanswered) and time.monotonic() < deadline:
                self._turn(client, 0.05)
            client.disconnect()
        finally:
            client.drop()

    def _excuse(self) -> None:
        """What we could not hear is nobody's silence."""
        if self._lost_at is not None:
            now = time.monotonic()
            with self._inventory.lock:
                self._inventory.deaf(self.tenant, now - self._lost_at)
            self._lost_at = now

    def _client(self, session: str) -> BoundedClient:
        """Prepare a connection; raises IdentityError, OSError."""
        settings = self._settings
        name = f"{settings.client_id}-{self.tenant}"
        client = BoundedClient(name, settings.tls.server_name if settings.tls else None)
        if settings.tls is not None:
            client.tls_set_context(client_context(settings.tls))
        if settings.user is not None and settings.password_file is not None:
            client.username_pw_set(settings.user, read_secret(settings.password_file))
        properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
        properties.WillDelayInterval = settings.will_delay_s
        _describe(properties)
        client.will_set(host_state(self.tenant), _state(session, 0, "offline", "will"), 1, True, properties)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        self._refused, self._welcome, self._unanswered = "", False, set()
        return client

    def _open(self, client: BoundedClient, stop: threading.Event, beat: Callable[[], None]) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        settings = self._settings
        client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=properties)
        if not self._until(client, lambda: self._welcome, CONNECT_S, stop, beat):
            raise LineLost("the broker does not answer CONNECT")

    def _subscribe(self, client: BoundedClient, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Ask for one kind after the other, so that the broker need not queue all that is retained at once.

        One that drops what exceeds its queue drops its own answer as well; then we have a part, and ask for the rest.
        """
        self.drops, self._asked = False, set()
        for part, qos in SUBSCRIPTIONS.items():
            topic = box(self.tenant, "+") + "/" + part
            _, mid = client.subscribe([(topic, SubscribeOptions(qos=qos))])
            if mid is None:
                raise LineLost("the line broke")
            self._unanswered.add(mid)
            if not self._until(client, lambda: not self._unanswered, SILENCE_S, stop, beat) and not stop.is_set():
                log.warning("broker_drops tenant=%s part=%s hint='mosquitto: max_queued_messages'", self.tenant, part)
                self.drops = True
                self._unanswered.clear()

    def _until(
        self,
        client: BoundedClient,
        done: Callable[[], bool],
        silence_s: float,
        stop: threading.Event,
        beat: Callable[[], None],
    ) -> bool:
        """Drive the line until it is done; False when the broker says nothing for so long, or we are told to stop."""
        deadline = time.monotonic() + silence_s
        while not done():
            if stop.is_set() or time.monotonic() > deadline:
                return False
            beat()
            if self._turn(client, WAIT_S):
                deadline = time.monotonic() + silence_s  # it talks: what is retained comes before the answer
        return True

    def _ask_for_missing(self, client: BoundedClient) -> None:
        """Ask once for what lies at the broker of boxes that speak and never said who they are."""
        with self._inventory.lock:
            keys = self._inventory.incomplete(self.tenant, self._asked, ASK_BOXES)
        for tenant, name in keys:
            self._asked.add((tenant, name))
            topics = [f"{box(tenant, name)}/{part}" for part in SUBSCRIPTIONS if part.split("/")[0] in RETAINED]
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
            client.unsubscribe(topics)  # the general subscription stands

    def _turn(self, client: BoundedClient, wait_s: float) -> bool:
        try:
            reads = client.turn(wait_s)
        except LineLost as error:
            raise LineLost(self._refused or error.detail) from None
        if self._refused:
            raise LineLost(self._refused)
        return reads

    def _say(self, client: BoundedClient, session: str, seq: int, state: str, reason: str) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        _describe(properties)
        sent = client.publish(host_state(self.tenant), _state(session, seq, state, reason), 1, True, properties)
        self._unanswered.add(sent.mid)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"the broker refuses us: {reason}"
        self._welcome = True

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._unanswered.discard(mid)
        if any(reason.is_failure for reason in reasons):
            self._refused = f"the broker refuses a subscription: {reasons[0]}"

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._unanswered.discard(mid)
        if reason.is_failure:
            log.warning("broker_refuses topic=%s reason=%r", host_state(self.tenant), str(reason))

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        left_s = getattr(message.properties, "MessageExpiryInterval", None)
        now, wall = time.monotonic(), time.time()
        heard = Heard(message.topic, bytes(message.payload), bool(message.retain), left_s, now, wall)
        with self._inventory.lock:
            self._inventory.hear(heard)


def _describe(properties: Properties) -> None:
    properties.ContentType = "application/json"
    properties.UserProperty = ("schema", "session.v1")


def _state(session: str, seq: int, state: str, reason: str) -> bytes:
    """Return what we say of ourselves: the same words as a box's."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {"v": 1, "ts": at, "session": session, "seq": seq, "state": state, "reason": reason}, separators=(",", ":")
    ).encode()
