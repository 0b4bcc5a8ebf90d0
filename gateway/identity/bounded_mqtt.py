"""paho with limits: a broker is not trusted with our memory, nor with our time. One thread drives it by `turn`."""

from __future__ import annotations

import random
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from gateway.model.backoff import next_delay_s
from gateway.model.errors import GatewayError

CONNECT_S = 10.0
"""For TCP, for the TLS handshake as a whole, and for the broker's CONNACK, each."""
MAX_PACKET_BYTES = 65536
"""Incoming; the broker is told (Maximum Packet Size)."""
STEADY_S = 30.0
"""After a session that lasted so long, the next try is soon again."""
PAUSE_S = 0.25


class LineLost(GatewayError):
    """The line to the broker is lost."""


class BoundedClient(mqtt.Client):
    """paho for MQTT 5, with the name that is expected in the broker's certificate, and a limit to what is read."""

    def __init__(self, client_id: str, expected_name: str | None) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        self.connect_timeout = CONNECT_S
        self._expected_name = expected_name

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        if self._expected_name is None or self._ssl_context is None:
            return super()._ssl_wrap_socket(tcp_sock)
        secured = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self._expected_name, do_handshake_on_connect=False
        )
        secured.settimeout(CONNECT_S)
        secured.do_handshake()
        return secured

    def _sock_recv(self, bufsize: int) -> bytes:
        """Read; paho asks for as much as the broker says that a packet has, which may be 256 MB."""
        if bufsize > MAX_PACKET_BYTES:
            raise LineLost("the broker sends a packet larger than we take")
        return super()._sock_recv(bufsize)

    def turn(self, wait_s: float) -> bool:
        """Do what the line is ready for, after `wait_s` at most; return whether it read. Raises LineLost."""
        line: Any = self.socket()
        if line is None:
            raise LineLost("the line broke")
        pending = getattr(line, "pending", lambda: 0)()
        poller = select.poll()  # not select(): a busy gateway has descriptors beyond its 1024
        poller.register(line, select.POLLIN | (select.POLLOUT if self.want_write() else 0))
        ready = poller.poll(0 if pending else wait_s * 1000)
        events = ready[0][1] if ready else 0
        outcome = MQTTErrorCode.MQTT_ERR_SUCCESS
        reads = bool(pending or events & ~select.POLLOUT)
        if reads:
            outcome = self.loop_read()
        if not outcome and events & select.POLLOUT:
            outcome = self.loop_write()
        if outcome or self.loop_misc():
            raise LineLost("the line broke")
        return reads

    def drop(self) -> None:
        """End the connection without DISCONNECT: the broker will publish the will."""
        line: Any = self.socket()
        if line is not None:
            line.close()


def stay_connected(
    live: Callable[[], None],
    lost: Callable[[str], None],
    delays_s: tuple[float, float],
    stop: threading.Event,
    beat: Callable[[], None],
) -> None:
    """Call `live`, one session, until stopped; after each, `lost` with why it ended (empty: it ended by itself).

    `delays_s` are the first and the longest pause between two tries.
    """
    attempt = 0
    while not stop.is_set():
        beat()
        began, reason = time.monotonic(), ""
        try:
            live()
        except Exception as error:  # noqa: BLE001 - the network door: a broker's nonsense makes paho raise anything
            reason = (error.detail or str(error)) if isinstance(error, GatewayError) else type(error).__name__
        lost(reason)
        attempt = 0 if time.monotonic() - began > STEADY_S else attempt + 1
        deadline = time.monotonic() + next_delay_s(attempt, *delays_s, random.random())
        while not stop.is_set() and time.monotonic() < deadline:
            beat()
            stop.wait(PAUSE_S)
