"""Writes a commented configuration file; the comments are the schema's own descriptions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gateway.config.bandwidth import BandwidthSettings
from gateway.config.destinations import DimseDestination, StowDestination
from gateway.config.schema import AdmitSettings, GatewaySettings, ListenerSettings, SpoolSettings

HOURS = '[{ days = ["mon", "tue", "wed", "thu", "fri"], hours = "08:00-18:00", mbit_per_s = 5 }]'
EXAMPLES = {
    "tls": '{ ca_file = "ca.pem", cert_file = "gateway.pem", key_file = "gateway.key" }',
    "windows": HOURS,
    "bandwidth": f"{{ mbit_per_s = 20, windows = {HOURS} }}",
}
"""For what has no default that says anything."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What `init` asks."""

    gateway_id: str = "gateway"
    ae_title: str = "EDGEGW"
    port: int = 11112
    archive: str = ""
    """AE@host:port of a C-STORE archive, or the URL of a STOW-RS service; empty: to be filled in later."""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(element) for element in value) + "]"
    return json.dumps(str(value))


def _table(header: str, model: type[BaseModel], given: dict[str, Any]) -> list[str]:
    """Return a table with every field: given values set, defaults shown as comments."""
    rows = [header]
    for name, field in model.model_fields.items():
        rows.append(f"# {field.description}")
        if name in given:
            rows.append(f"{name} = {_value(given[name])}")
        elif field.default is not None and name not in EXAMPLES:
            rows.append(f"# {name} = {_value(field.default)}")
        elif name in EXAMPLES:
            rows.append(f"# {name} = {EXAMPLES[name]}")
        else:
            rows.append(f"# {name} =")
    return [*rows, ""]


def _destination(archive: str) -> list[str]:
    if not archive:
        example = _destination("PACS@pacs.example.org:104")
        return [row if row.startswith("#") or not row else f"# {row}" for row in example]
    if archive.startswith(("http://", "https://")):
        given: dict[str, Any] = {"name": "cloud", "kind": "stow", "url": archive}
        return _table("[[destination]]", StowDestination, given)
    ae_title, _, place = archive.partition("@")
    host, _, port = place.rpartition(":")
    given = {"name": "pacs", "kind": "dimse", "host": host, "port": int(port), "ae_title": ae_title}
    return _table("[[destination]]", DimseDestination, given)


def template(answers: Answers) -> str:
    """Return the text of a configuration file; raises ValueError when the archive's address cannot be read."""
    if answers.archive and not answers.archive.startswith(("http://", "https://")):
        ae_title, _, place = answers.archive.partition("@")
        host, _, port = place.rpartition(":")
        if not (ae_title and host and port.isdigit()):
            raise ValueError("give the archive as AE@host:port, or as a URL that ends in /studies")
    rows = [
        "# DICOM edge gateway. `dicom-gateway config check` finds every mistake in this file.",
        "# What is commented out shows the default.",
        "",
        *_table("[gateway]", GatewaySettings, {"id": answers.gateway_id, "ae_title": answers.ae_title}),
        *_table("[[listener]]", ListenerSettings, {"port": answers.port}),
        *_table("[admit]", AdmitSettings, {}),
        *_table("[spool]", SpoolSettings, {}),
        *_table("[bandwidth]", BandwidthSettings, {}),
        *_destination(answers.archive),
        "# Without any route, every instance goes to every destination.",
        "# [[route]]",
        '# when = { modality = ["CT", "MR"] }',
        '# to = ["pacs"]',
        "",
    ]
    return "\n".join(rows)
