"""Home Assistant's MQTT discovery: one retained message describes the box as a device with its sensors."""

from __future__ import annotations

import time
from typing import Any

from gateway.health.messages import Message, Speaker
from gateway.model.health import Identity

SENSORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "status": (
        "Status",
        "{{ value_json.status }}",
        {"device_class": "enum", "options": ["ok", "degraded", "critical"]},
    ),
    "reason": ("Reason", "{{ value_json.reasons[0].code if value_json.reasons else 'none' }}", {}),
    "waiting": ("In custody", "{{ value_json.queue.objects }}", {"state_class": "measurement"}),
    "oldest": (
        "Oldest unsent",
        "{{ value_json.queue.oldest_age_s }}",
        {"device_class": "duration", "unit_of_measurement": "s", "state_class": "measurement"},
    ),
    "dead": ("Held for a person", "{{ value_json.queue.dead }}", {"state_class": "measurement"}),
    "accepted": ("Accepted", "{{ value_json.sums.accepted }}", {"state_class": "total_increasing"}),
    "disk": ("Disk used", "{{ value_json.disk.used_pct }}", {"unit_of_measurement": "%", "state_class": "measurement"}),
    "temperature": (
        "Temperature",
        "{{ value_json.power.temp_c if value_json.power.temp_c != 'unknown' else none }}",
        {"device_class": "temperature", "unit_of_measurement": "°C", "state_class": "measurement"},
    ),
}
"""Id -> name, template over the health message, what else Home Assistant is told."""


def discovery(speaker: Speaker, identity: Identity) -> Message:
    """Return the message that announces the box."""
    device = f"{speaker.tenant}-{speaker.gateway}"
    body = {
        "device": {
            "identifiers": [f"dicom-gateway-{device}"],
            "name": speaker.gateway,
            "manufacturer": "dicom-edge-gateway",
            "model": identity.model or "unknown",
            "sw_version": identity.version,
        },
        "origin": {"name": "dicom-edge-gateway", "sw_version": identity.version},
        "availability": [{"topic": f"{speaker.prefix}/session", "value_template": "{{ value_json.state }}"}],
        "state_topic": f"{speaker.prefix}/health",
        "qos": 1,
        "components": {
            name: {
                "platform": "sensor",
                "unique_id": f"dicom-gateway-{device}-{name}",
                "name": label,
                "value_template": template,
                **more,
            }
            for name, (label, template, more) in SENSORS.items()
        },
    }
    topic = f"homeassistant/device/dicom-gateway-{device}/config"
    return Message(topic, "home_assistant", body, at=time.time(), bare=True)
