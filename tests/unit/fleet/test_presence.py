"""What a monitor concludes of boxes that it could not hear for a while."""

from __future__ import annotations

import json

from gateway.fleet.inventory import Heard, Inventory
from gateway.fleet.likeness import Likeness


def test_after_a_broker_restart_a_box_was_heard_when_the_broker_says_so():
    """An excuse for the time without a broker must not hide that the box spoke meanwhile."""
    inventory = Inventory(10, 3.0, 300.0)
    box = Likeness(1, 1, "t", 60, 1e9, steady=True)
    box.begin_session()
    health = box.health(box.state(1e9, 1.0), 1e9)
    inventory.hear(Heard(health.topic, health.payload, False, None, 100.0, 1e9 + 100))
    known = inventory.boxes["t", box.id]
    inventory.deaf("t", 30.0)
    assert json.loads(health.payload)["interval_s"] == 60
    inventory.hear(Heard(health.topic, health.payload, True, 178, 131.0, 1e9 + 131))
    assert known.heard_at == 1e9 + 129
    inventory.hear(Heard(health.topic, health.payload, True, 100, 132.0, 1e9 + 132))
    assert known.heard_at == 1e9 + 129, "what is older than what we know tells nothing"
