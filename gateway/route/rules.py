"""From an instance's facts to its destinations. Pure: settings and facts in, names and priorities out."""

from __future__ import annotations

from gateway.config.schema import RouteCondition, Settings
from gateway.model.instance import Priority, SOPInstance


def matches(when: RouteCondition, instance: SOPInstance) -> bool:
    """True when each condition that is named holds for one of its values."""
    facts = (
        (when.modality, instance.header.modality),
        (when.calling_ae_title, instance.origin.calling_ae_title.strip()),
        (when.called_ae_title, instance.origin.called_ae_title.strip()),
        (when.sop_class_uid, instance.sop_class_uid),
    )
    return all(wanted is None or fact in wanted for wanted, fact in facts)


def destinations_of(settings: Settings, instance: SOPInstance) -> dict[str, int]:
    """Return destination name -> priority. Every route that matches adds; the most urgent priority wins.

    Without any route, everything goes everywhere. With routes of which none matches, the result is empty: the
    instance stays in custody, is reported as unrouted, and is routed again when the configuration changes.
    """
    if not settings.route:
        return {destination.name: Priority.NORMAL for destination in settings.destination}
    wanted: dict[str, int] = {}
    for route in settings.route:
        if matches(route.when, instance):
            priority = Priority[route.priority.upper()]
            for name in route.to:
                wanted[name] = min(priority, wanted.get(name, priority))
    return wanted
