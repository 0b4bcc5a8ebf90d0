"""Where on the broker things are said: gw/v1/{tenant}/{gateway}/… ; `v1` is the wire version. Pure."""

from __future__ import annotations

ROOT = "gw/v1"
RESERVED = ("desired", "host")
"""Names beside those of the boxes of a tenant; no box may be called so."""


def box(tenant: str, gateway: str) -> str:
    """Return what every topic of a box begins with."""
    return f"{ROOT}/{tenant}/{gateway}"


def desired(tenant: str, gateway: str) -> str:
    """Return the topic of the state that central IT wants of a box."""
    return f"{ROOT}/{tenant}/desired/{gateway}"


def host_state(tenant: str) -> str:
    """Return the topic on which the fleet monitor says, retained and by its will, whether it watches this tenant."""
    return f"{ROOT}/{tenant}/host/state"
