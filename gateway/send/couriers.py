"""Every destination kind, by name. A new one is a class that satisfies `Courier`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.send.courier import Courier
from gateway.send.folder import Folder
from gateway.send.store_scu import StoreScu
from gateway.send.stow_rs import StowRs

COURIERS: dict[str, Callable[[Any, str], Courier]] = {
    "dimse": StoreScu,
    "stow": StowRs,
    "folder": Folder,
}
"""From the settings of a destination and our AE title to a courier; raises IdentityError."""
