"""Every way to get evidence, by the kind of destination and its `confirm`.

A new one is a class that satisfies `Witness`, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.confirm.commitment_scu import CommitmentScu
from gateway.confirm.evidence import Witness
from gateway.confirm.query import CFind, Query
from gateway.spool.spool import Spool


def _web_query(settings: Any, calling: str, spool: Spool) -> Witness:
    from gateway.confirm.qido import Qido  # as late as in `send.couriers`

    return Query(settings, spool, Qido(settings))


WITNESSES: dict[tuple[str, str], Callable[[Any, str, Spool], Witness]] = {
    ("dimse", "commitment"): CommitmentScu,
    ("dimse", "query"): lambda settings, calling, spool: Query(settings, spool, CFind(settings, calling)),
    ("stow", "query"): _web_query,
}
"""From the settings of a destination, our AE title and the spool to a witness; raises IdentityError."""
