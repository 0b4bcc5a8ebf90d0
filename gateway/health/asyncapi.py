"""The AsyncAPI 3.0 document of our topics, made from the JSON Schemas; `asyncapi.json` beside this is its output."""

from __future__ import annotations

import copy
import json
from typing import Any

from gateway.model.payloads import schema

CHANNELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "session": ("session", "session", "send", {"qos": 1, "retain": True}),
    "birth": ("birth", "birth", "send", {"qos": 1, "retain": True}),
    "health": ("health", "health", "send", {"qos": 1, "retain": True}),
    "service": ("svc/{service}/health", "svc", "send", {"qos": 1, "retain": True}),
    "modality": ("mod/{modality}/health", "mod", "send", {"qos": 1, "retain": True}),
    "destination": ("dst/{destination}/health", "dst", "send", {"qos": 1, "retain": True}),
    "counters": ("m/{group}", "m", "send", {"qos": 0, "retain": False, "messageExpiryInterval": 300}),
    "event": ("e/{event}", "e", "send", {"qos": 1, "retain": False, "messageExpiryInterval": 604800}),
    "alarm": ("a/{code}", "a", "send", {"qos": 1, "retain": True}),
    "capability": ("cap/{verb}", "cap", "send", {"qos": 1, "retain": True}),
    "result": ("res/{verb}/{id}", "res", "send", {"qos": 1, "retain": False, "messageExpiryInterval": 604800}),
    "command": ("cmd/{verb}/{id}", "cmd", "receive", {"qos": 1, "retain": False}),
    "desired": ("desired/{gateway}", "cmd", "receive", {"qos": 1, "retain": True}),
    "monitor": ("host/state", "session", "receive", {"qos": 1, "retain": True}),
}
"""Name -> topic below the box's prefix, schema, what the box does, MQTT binding of the operation."""

OF_THE_TENANT = ("desired", "monitor")
"""These are not below the box's own prefix."""

PARAMETERS = {
    "tenant": "`mqtt.tenant` of the box.",
    "gateway": "`gateway.id` of the box; also the common name of its certificate.",
    "service": "receiver, forwarder, confirmer, keeper or spool.",
    "modality": "Name of a [[modality]].",
    "destination": "Name of a [[destination]].",
    "group": "receive, forward, codec or latency.",
    "event": "Kind of the event.",
    "code": "Code of the alarm; see README.md.",
    "verb": "One of the closed list.",
    "id": "UUID of the command.",
}

BROKER: dict[str, Any] = {
    "host": "mqtt.example.org:8883",
    "protocol": "secure-mqtt",
    "protocolVersion": "5.0",
    "description": "Mutual TLS; the common name of a box's certificate is its gateway.id.",
    "bindings": {
        "mqtt": {
            "clientId": "ct1-gateway",
            "cleanSession": False,
            "keepAlive": 30,
            "sessionExpiryInterval": 86400,
            "maximumPacketSize": 65536,
            "lastWill": {
                "topic": "gw/v1/default/ct1-gateway/session",
                "qos": 1,
                "retain": True,
                "message": "the session message with state offline and reason will",
            },
            "bindingVersion": "0.2.0",
        }
    },
}


def _payload(name: str) -> dict[str, Any]:
    """Return a schema as a component: references lead to `common` beside it."""
    document = copy.deepcopy(schema(name))
    for mark in ("$schema", "$id"):
        document.pop(mark)
    text = json.dumps(document).replace("common.v1.json#/$defs/", "#/components/schemas/common_")
    found: dict[str, Any] = json.loads(text)
    return found


def _common() -> dict[str, Any]:
    text = json.dumps(schema("common")["$defs"]).replace("#/$defs/", "#/components/schemas/common_")
    return {f"common_{name}": definition for name, definition in json.loads(text).items()}


def document(version: str) -> dict[str, Any]:
    """Return the whole document for a version of the gateway."""
    names = sorted({entry[1] for entry in CHANNELS.values()} | {"body", "desired"})
    channels, operations = {}, {}
    for name, (topic, payload, action, binding) in CHANNELS.items():
        place = "gw/v1/{tenant}/" if name in OF_THE_TENANT else "gw/v1/{tenant}/{gateway}/"
        address = place + topic
        channels[name] = {
            "address": address,
            "messages": {payload: {"$ref": f"#/components/messages/{payload}"}},
            "parameters": {
                parameter: {"description": text}
                for parameter, text in PARAMETERS.items()
                if f"{{{parameter}}}" in address
            },
        }
        operations[name] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {**binding, "bindingVersion": "0.2.0"}},
        }
    messages = {
        name: {
            "name": f"{name}.v1",
            "title": schema(name)["title"],
            "contentType": "application/json",
            "payload": {
                # The schemas are of draft 2020-12, in words that draft 07 has too: of that the parsers know.
                "schemaFormat": "application/schema+json;version=draft-07",
                "schema": {"$ref": f"#/components/schemas/{name}"},
            },
        }
        for name in names
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DICOM edge gateway",
            "version": version,
            "description": "What a box tells, and the signed commands that it obeys. Never patient data.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": BROKER},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {**_common(), **{name: _payload(name) for name in names}}},
    }
