"""From an instance's facts to its destinations. Pure: settings and facts in, names, priorities and reasons out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from gateway.config.routes import RouteSettings
from gateway.config.schema import Settings
from gateway.model.instance import Priority
from gateway.model.way import Way
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


def ways_of(settings: Settings, facts: Facts, ill: Collection[str] = ()) -> dict[str, Way]:
    """Return destination name -> way there. Every route that matches adds; two to one destination are joined.

    Without any route, everything goes everywhere. With routes of which none matches, the result is empty: the
    instance stays in custody, is reported as unrouted, and is routed again when the configuration changes. Of a
    failover group one is chosen: the first that is not named in `ill`, or the first when all are.
    """
    if not settings.route:
        return {destination.name: Way() for destination in settings.destination}
    matching = (route for route in settings.route if all(r.holds for r in readings(route.when, facts)))
    return _joined(matching, facts.asked, ill)


def explain(settings: Settings, facts: Facts) -> list[Explained]:
    """Return every route with every condition and what was seen, in the order of the file."""
    return [Explained(route, tuple(readings(route.when, facts))) for route in settings.route]


def _joined(routes: Iterable[RouteSettings], asked: Priority, ill: Collection[str]) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for route in routes:
        for name, way in _branches(route, asked, ill):
            ways[name] = ways[name].joined(way) if name in ways else way
    return ways


def _branches(route: RouteSettings, asked: Priority, ill: Collection[str]) -> Iterator[tuple[str, Way]]:
    priority = asked if route.priority == "sender" else Priority[route.priority.upper()]
    way = Way(priority, route.recipe, quiet_s=route.quiet_s if route.wait_for == "study" else 0.0)
    for name in route.to:
        yield name, way
    group = route.to_first_of
    if group:
        yield next((name for name in group if name not in ill), group[0]), replace(way, instead=tuple(group))
