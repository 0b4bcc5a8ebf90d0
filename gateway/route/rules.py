"""From an instance's facts to its destinations. Pure: settings and facts in, names, priorities and reasons out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.config.routes import RouteSettings
from gateway.config.schema import Settings
from gateway.model.instance import Priority
from gateway.route.conditions import Reading, readings
from gateway.route.facts import Facts


@dataclass(frozen=True, slots=True)
class Explained:
    """One route, laid beside one instance."""

    route: RouteSettings
    readings: tuple[Reading, ...]

    @property
    def matched(self) -> bool:
        """True when each of its conditions holds."""
        return all(reading.holds for reading in self.readings)


def destinations_of(settings: Settings, facts: Facts) -> dict[str, int]:
    """Return destination name -> priority. Every route that matches adds; the most urgent priority wins.

    Without any route, everything goes everywhere. With routes of which none matches, the result is empty: the
    instance stays in custody, is reported as unrouted, and is routed again when the configuration changes.
    """
    if not settings.route:
        return {destination.name: Priority.NORMAL for destination in settings.destination}
    return _joined(route for route in settings.route if all(r.holds for r in readings(route.when, facts)))


def explain(settings: Settings, facts: Facts) -> list[Explained]:
    """Return every route with every condition and what was seen, in the order of the file."""
    return [Explained(route, tuple(readings(route.when, facts))) for route in settings.route]


def _joined(routes: Iterable[RouteSettings]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for route in routes:
        priority = Priority[route.priority.upper()]
        for name in route.to:
            wanted[name] = min(priority, wanted.get(name, priority))
    return wanted
