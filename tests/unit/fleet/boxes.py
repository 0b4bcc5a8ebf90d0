"""An inventory that is spoken to directly, at times that a test makes up."""

from __future__ import annotations

import json

from gateway.fleet.box import Box
from gateway.fleet.inventory import Heard, Inventory

WALL = 1_700_000_000.0


class House:
    """The clock stands until a test lets it go on; `wall` and `now` go on together unless one is set."""

    def __init__(self, max_boxes: int = 10, stale_periods: float = 3.0, sample_s: float = 300.0) -> None:
        self.inventory = Inventory(max_boxes, stale_periods, sample_s)
        self.now = 1000.0

    @property
    def wall(self) -> float:
        return WALL + self.now

    def say(self, topic: str, body: dict | bytes | None, *, retained: bool = False, left_s: int | None = None) -> None:
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        where = topic if topic.startswith("gw/") else f"gw/v1/default/{topic}"
        self.inventory.hear(Heard(where, payload, retained, left_s, self.now, self.wall))

    def box(self, name: str = "ct1") -> Box | None:
        return self.inventory.boxes.get(("default", name))

    def judge(self, *tenants: str) -> None:
        self.inventory.judge(set(tenants or ("default",)), self.now, self.wall)

    def notes(self, kind: str) -> list[tuple]:
        return [entry[1:] for entry in self.inventory.journal if entry[0] == kind]
