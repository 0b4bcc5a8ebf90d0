"""Every destination kind, by name. A new one is a class that satisfies `Courier`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.send.courier import Courier
from gateway.send.folder import Folder
from gateway.send.store_scu import StoreScu


def _stow(settings: Any, calling_ae_title: str) -> Courier:
    # Here, since the HTTP client takes time and memory of each start, and many a box has no archive on the web.
    from gateway.send.stow_rs import StowRs

    return StowRs(settings, calling_ae_title)


COURIERS: dict[str, Callable[[Any, str], Courier]] = {
    "dimse": StoreScu,
    "stow": _stow,
    "folder": Folder,
}
"""From the settings of a destination and our AE title to a courier; raises IdentityError."""
