"""An operator's line to the broker, for as long as one command takes; driven by the thread that waits."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.fleet.inventory import Heard
from gateway.fleet.settings import BrokerSettings, read_secret
from gateway.identity.bounded_mqtt import CONNECT_S, MAX_PACKET_BYTES, BoundedClient, LineLost
from gateway.identity.tls import client_context
from gateway.model import topics
from gateway.model.errors import GatewayError

QUIET_S = 0.5
"""Retained messages come at once; after so long without one, that was all."""
PATIENCE_S, SETTLE_S = 10.0, 120.0
BOX_NAME = re.compile(r"[a-z0-9-]{1,63}")

Hear = Callable[[Heard], None]


class Unreachable(GatewayError):
    """The broker is not reached."""

    exit_code = 69
    hint = "check host, port and certificates in the [broker] table, and that the broker runs"


class Desk:
    """Use it in a `with` statement; everything raises Unreachable when the line is lost."""

    def __init__(self, broker: BrokerSettings, hear: Hear) -> None:
        """`hear` gets what comes; it runs within the calls below."""
        self._broker = broker
        self._welcome = False
        self._refused = ""
        self._subscribed: dict[int, list[str]] = {}
        self._published: dict[int, int] = {}
        self.heard_at = 0.0
        self._hear = hear
        self._client = BoundedClient(
            f"{broker.client_id}-desk-{uuid4().hex[:8]}", broker.tls.server_name if broker.tls else None
        )

    def __enter__(self) -> Desk:
        client, broker = self._client, self._broker
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        try:
            if broker.tls is not None:
                client.tls_set_context(client_context(broker.tls))
            if broker.user is not None and broker.password_file is not None:
                client.username_pw_set(broker.user, read_secret(broker.password_file))
            client.connect(broker.host, broker.port, broker.keepalive_s, properties=properties)
        except (OSError, ValueError) as error:
            raise Unreachable(f"{broker.host}:{broker.port} is not reached: {error}") from None
        if not self.wait(lambda: self._welcome, CONNECT_S):
            raise Unreachable(f"{broker.host}:{broker.port} does not answer CONNECT")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._welcome, self._refused = not reason.is_failure, str(reason) if reason.is_failure else ""

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._subscribed[mid] = refused if reasons else ["its SUBACK says nothing"]

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._published[mid] = reason.value

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.heard_at, left_s = time.monotonic(), getattr(message.properties, "MessageExpiryInterval", None)
        payload, retained = bytes(message.payload), bool(message.retain)
        self._hear(Heard(message.topic, payload, retained, left_s, self.heard_at, time.time()))

    def wait(self, done: Callable[[], bool], patience_s: float) -> bool:
        """Turn until it is done, or for so long; return whether it is."""
        deadline = time.monotonic() + patience_s
        while not done() and (left_s := deadline - time.monotonic()) > 0:
            try:
                self._client.turn(min(0.25, left_s))
            except (LineLost, OSError, ValueError, IndexError, struct.error) as error:
                raise Unreachable(f"the broker ended the line: {self._refused or error}") from None
            if self._refused:
                raise Unreachable(f"the broker refuses us: {self._refused}")
        return done()

    def subscribe(self, *wanted: str) -> None:
        """Hear what comes on these topics from now on."""
        for start in range(0, len(wanted), 100):
            _, mid = self._client.subscribe([(topic, 1) for topic in wanted[start : start + 100]])
            self.heard_at = time.monotonic()
            while not self.wait(lambda mid=mid: mid in self._subscribed, PATIENCE_S):  # type: ignore[misc]
                if time.monotonic() - self.heard_at > PATIENCE_S:  # what is retained may come before the answer
                    raise Unreachable("the broker does not answer SUBSCRIBE")
            if self._subscribed[mid or 0]:
                raise Unreachable(f"the broker refuses a subscription: {self._subscribed[mid or 0][0]}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> int:
        """Publish, and return the broker's reason code (MQTT 5, 3.4.2.1): 0x80 and above are failures, 0x10 says that
        nobody subscribed to this."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if payload:
            properties.ContentType = "application/json"
            properties.UserProperty = ("schema", "cmd.v1")
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        mid = self._client.publish(topic, payload, 1, retain, properties).mid
        if not self.wait(lambda: mid in self._published, PATIENCE_S):
            raise Unreachable("the broker does not acknowledge what we publish")
        return self._published.pop(mid)

    def settle(self) -> None:
        """Wait until all that is retained has come, or for two minutes: a fleet may never be quiet."""
        self.heard_at = time.monotonic()
        self.wait(lambda: time.monotonic() - self.heard_at > QUIET_S, SETTLE_S)


def known_boxes(broker: BrokerSettings, tenant: str) -> list[str]:
    """Return the names of all boxes of a tenant that the broker knows of, sorted; raises Unreachable."""
    found: set[str] = set()

    def hear(heard: Heard) -> None:
        name = heard.topic.split("/")[3]
        if heard.payload and BOX_NAME.fullmatch(name) and name not in topics.RESERVED:
            found.add(name)

    with Desk(broker, hear) as desk:
        desk.subscribe(topics.box(tenant, "+") + "/session")
        desk.settle()
    return sorted(found)
