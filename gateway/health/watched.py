"""Whether anybody watches this box, as the fleet monitor says of itself: retained, and by its will."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from gateway.health.mqtt import Incoming
from gateway.model.payloads import faults

log = logging.getLogger("gateway.health")

MAX_BYTES = 4096


class Watched:
    """Only told on; nothing depends on it, for whoever can write to that topic can say anything."""

    def __init__(self) -> None:
        self.state = "unknown"
        """`online`, `offline`, or `unknown`: no monitor ever said anything here."""
        self.since = 0.0
        """Wall clock, when we heard of that state first."""

    def hear(self, incoming: Incoming) -> None:
        """Take what a monitor says; what breaks the schema says nothing."""
        if len(incoming.payload) > MAX_BYTES:
            return
        try:
            told: Any = json.loads(incoming.payload) if incoming.payload else {"state": "unknown"}
        except (ValueError, RecursionError):
            return
        if incoming.payload and faults("session", told):
            return
        if told["state"] != self.state:
            self.state, self.since = told["state"], time.time()
            log.info("monitor_%s", self.state)
