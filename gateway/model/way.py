"""How one instance is to reach one destination: what routing decided, and the ledger keeps."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.instance import Priority


@dataclass(frozen=True, slots=True)
class Way:
    """One destination's part of a route."""

    priority: Priority = Priority.NORMAL
    recipe: tuple[str, ...] = ()
    """Names of the `[[morph]]` and `[[deidentify]]` tables to apply, in this order; empty: as it came."""
    quiet_s: float = 0.0
    """Not before its study has been quiet for so long; 0: at once."""
    instead: tuple[str, ...] = ()
    """The failover group in order of preference, this destination included; empty: none may take its place."""

    def joined(self, other: Way) -> Way:
        """Return what satisfies two routes to one destination: the more urgent, the sooner, every recipe, and the
        destination itself where one of them names it."""
        return Way(
            min(self.priority, other.priority),
            tuple(dict.fromkeys((*self.recipe, *other.recipe))),
            min(self.quiet_s, other.quiet_s),
            self.instead if self.instead == other.instead else (),
        )
