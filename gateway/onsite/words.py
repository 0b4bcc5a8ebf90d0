"""What `result.txt` says, to somebody who has never seen the inside of the box."""

from __future__ import annotations

import time
from collections.abc import Iterable

from gateway import __version__
from gateway.config.schema import Settings
from gateway.identity.device import CERTIFICATE, REQUEST
from gateway.model.errors import ConfigError


def _head(verdict: str, now: float) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return [verdict, "", f"DICOM edge gateway {__version__}, {when} by the clock of the box.", ""]


def taken(settings: Settings, addresses: Iterable[str], moved: Iterable[str], *, own: bool, now: float) -> str:
    """Say that the box works by what was in the folder. `own`: nobody has certified the box's key yet."""
    rows = [*_head("TAKEN. The box works by this configuration.", now), *for_the_scanner(settings, addresses), ""]
    moved = sorted(moved)
    if moved:
        rows += [f"Secrets were moved to the box and deleted here: {', '.join(moved)}", ""]
    if own:
        rows += [
            f"{REQUEST} is the box's request for a certificate. Have it signed, put the certificate here",
            f"as {CERTIFICATE}, and bring the folder again. The key itself never leaves the box.",
            "",
        ]
    return "\n".join(rows)


def for_the_scanner(settings: Settings, addresses: Iterable[str]) -> list[str]:
    """Return what to type into a scanner."""
    hosts = ", ".join(addresses) or "(no network yet)"
    rows = ["Type into the scanner, as its archive or store:"]
    for listener in settings.listener:
        title = listener.called_ae_titles[0] if listener.called_ae_titles else settings.gateway.ae_title
        host = hosts if listener.address in ("0.0.0.0", "::") else listener.address
        rows.append(f"  AE title {title}   IP {host}   port {listener.port}{'   with TLS' if listener.tls else ''}")
    if not settings.listener:
        rows = ["There is no [[listener]]: scanners cannot send to the box."]
    return rows


def refused(error: ConfigError, *, has_one: bool, now: float) -> str:
    """Say what must be mended."""
    goes_on = "goes on with the configuration that it had" if has_one else "is up, and waits for a configuration"
    rows = [
        *_head(f"NOT TAKEN. The box {goes_on}.", now),
        "What must be mended:",
        "",
        error.detail,
        "",
        f"What to do: {error.hint}",
        "Then bring the folder again. On a laptop, `dicom-gateway provision FOLDER` checks it beforehand.",
        "",
    ]
    return "\n".join(rows)


def stuck(reason: str, now: float) -> str:
    """Say that the box itself is at fault."""
    return "\n".join([*_head("NOT TAKEN. The box could not write it down.", now), reason, ""])
