"""The line to the broker: MQTT 5 over mutual TLS, on one thread of its own, with a limit to everything.

The broker is not trusted. Whatever it does or does not do ends this connection at worst, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.config.mqtt import MqttSettings
from gateway.health.messages import Message, Speaker
from gateway.health.outbox import Outbox
from gateway.identity.bounded_mqtt import CONNECT_S, MAX_PACKET_BYTES, BoundedClient, LineLost, stay_connected
from gateway.identity.tls import client_context

log = logging.getLogger("gateway.health")

ACK_S = 30.0
"""A broker that acknowledges nothing for so long is left."""
WAIT_S = 0.25
FAREWELL_S = 2.0
WINDOW = 20
"""Messages on their way at one time; what we offer the broker, too (Receive Maximum)."""
MAX_PACKETS, PER_S = 500, 10.0
"""More packets than that are a flood."""
SESSION_EXPIRY_S = 86400
"""So long the broker keeps commands for us while the line is down."""
RETRY_FIRST_S, RETRY_CEILING_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker; nothing of it is trusted."""

    topic: str
    payload: bytes
    retained: bool


class Session:
    """One connection to the broker, from CONNECT to its end."""

    def __init__(
        self, settings: MqttSettings, speaker: Speaker, topics: list[str], hear: Callable[[Incoming], None]
    ) -> None:
        """Prepare; raises IdentityError, OSError."""
        self.id = uuid4().hex
        self.welcome = False
        self._settings = settings
        self._topics = topics
        self._hear = hear
        self._seq = 0
        self._refused = ""
        self._window = WINDOW
        self._unacknowledged: dict[int, tuple[Message, float]] = {}
        self._packets: deque[float] = deque()
        self._client = self._make(speaker)

    def _make(self, speaker: Speaker) -> BoundedClient:
        settings = self._settings
        client = BoundedClient(speaker.gateway, settings.tls.server_name if settings.tls else None)
        if settings.tls is not None:
            client.tls_set_context(client_context(settings.tls))
        if settings.user is not None and settings.password_file is not None:
            client.username_pw_set(settings.user, _secret(settings.password_file))
        will = speaker.session("offline", "will", time.time())
        properties = _properties(PacketTypes.WILLMESSAGE, will)
        properties.WillDelayInterval = settings.will_delay_s
        client.will_set(will.topic, will.payload(self.id, 0), will.qos, will.retain, properties)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def open(self) -> None:
        """Connect and wait to be welcome; raises OSError, LineLost."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = WINDOW
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        settings = self._settings
        self._client.connect(
            settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=properties
        )
        deadline = time.monotonic() + CONNECT_S
        while not self.welcome:
            if time.monotonic() > deadline:
                raise LineLost("the broker does not answer CONNECT")
            self.turn(WAIT_S)
        if self._topics:
            # Retained messages come again with each session; a command that is one is refused, and seen to be.
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            self._client.subscribe([(topic, options) for topic in self._topics])

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            return
        self._window = max(1, min(WINDOW, int(getattr(properties, "ReceiveMaximum", WINDOW))))
        self.welcome = True

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        taken = self._unacknowledged.pop(mid, None)
        if taken is not None and reason.is_failure:
            log.warning("mqtt_refused topic=%s reason=%r", taken[0].topic, str(reason))

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._hear(Incoming(message.topic, bytes(message.payload), bool(message.retain)))

    def turn(self, wait_s: float) -> None:
        """Do what the line is ready for, after `wait_s` at most; raises LineLost."""
        try:
            if self._client.turn(wait_s):
                self._count_packet()
        except LineLost as error:
            raise LineLost(f"the broker refuses us: {self._refused}" if self._refused else error.detail) from None
        if self._refused:
            raise LineLost(f"the broker refuses us: {self._refused}")
        if any(time.monotonic() - sent_at > ACK_S for _, sent_at in self._unacknowledged.values()):
            raise LineLost("the broker acknowledges nothing")

    def _count_packet(self) -> None:
        now = time.monotonic()
        self._packets.append(now)
        while now - self._packets[0] > PER_S:
            self._packets.popleft()
        if len(self._packets) > MAX_PACKETS:
            raise LineLost("the broker floods us")

    @property
    def ready(self) -> bool:
        """True when one more message may be sent: nothing piles up behind a slow line."""
        return len(self._unacknowledged) < self._window and not self._client.want_write()

    @property
    def idle(self) -> bool:
        """True when everything that was sent is acknowledged."""
        return not self._unacknowledged and not self._client.want_write()

    def send(self, message: Message) -> None:
        """Give one message to the line; raises LineLost."""
        sent = self._client.publish(
            message.topic,
            message.payload(self.id, self._seq),
            message.qos,
            message.retain,
            _properties(PacketTypes.PUBLISH, message),
        )
        self._seq += message.numbered
        if message.qos:
            self._unacknowledged[sent.mid] = (message, time.monotonic())
        if sent.rc:
            raise LineLost("the line broke")

    def left_over(self) -> list[Message]:
        """Return what the broker did not acknowledge, oldest first."""
        return [message for message, _ in self._unacknowledged.values()]

    def close(self) -> None:
        """End the connection; without `farewell` the broker will publish the will."""
        self._client.drop()

    def farewell(self, message: Message | None = None) -> None:
        """Say that we go, wait a little until the broker has it, and end without the will."""
        deadline = time.monotonic() + FAREWELL_S
        if message is not None:
            self.send(message)
        while not self.idle and time.monotonic() < deadline:
            self.turn(0.05)
        self._client.disconnect()


class Publisher:
    """Keeps a session with the broker as long as it runs."""

    def __init__(
        self,
        settings: MqttSettings,
        speaker: Speaker,
        outbox: Outbox,
        greeting: Callable[[], list[Message]],
        topics: list[str],
        hear: Callable[[Incoming], None],
    ) -> None:
        """`greeting`: what a session begins with, after the online message; `hear` gets what comes to `topics`."""
        self._settings = settings
        self._speaker = speaker
        self._outbox = outbox
        self._greeting = greeting
        self._topics = topics
        self._hear = hear
        self.connected = False
        self.sessions = 0
        """Connections that the broker welcomed since the start."""
        self.reason = "not connected yet"

    def run(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Be connected until stopped."""
        stay_connected(lambda: self._live(stop, beat), self._lost, (RETRY_FIRST_S, RETRY_CEILING_S), stop, beat)

    def _lost(self, reason: str) -> None:
        if reason and reason != self.reason:
            log.warning("mqtt_lost reason=%r", reason)
        self.connected, self.reason = False, reason or self.reason

    def _live(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        session = Session(self._settings, self._speaker, self._topics, self._hear)
        try:
            session.open()
            beat()
            self.sessions += 1
            self.connected, self.reason = True, ""
            log.info("mqtt_connected host=%s session=%s", self._settings.host, session.id)
            now = time.time()
            self._outbox.greet([self._speaker.session("online", "connect", now), *self._greeting()])
            while not stop.is_set():
                beat()
                self._hand_over(session)
                session.turn(WAIT_S)
            deadline = time.monotonic() + FAREWELL_S
            while len(self._outbox) and time.monotonic() < deadline:
                self._hand_over(session)
                session.turn(0.05)
            session.farewell(self._speaker.session("offline", "shutdown", time.time()))
        finally:
            self._outbox.give_back(session.left_over())
            session.close()

    def _hand_over(self, session: Session) -> None:
        while session.ready and (message := self._outbox.take()) is not None:
            session.send(message)


def _properties(packet: int, message: Message) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    if message.body is not None:
        properties.ContentType = "application/json"
        properties.UserProperty = ("schema", f"{message.schema}.v1")
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    return properties


def _secret(path: Path) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read(4096).strip()
