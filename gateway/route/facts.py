"""What rules look at: an instance's facts, and the attributes of its data set when a rule asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import time
from functools import cache

from gateway.config.routes import RouteSettings
from gateway.config.tags import element
from gateway.dicom.attributes import attribute_values
from gateway.model.instance import Priority, SOPInstance

BODY_PART, STATION = "BodyPartExamined", "StationName"


@dataclass(frozen=True, slots=True)
class Facts:
    """One instance in the eyes of the rules; empty where it does not say."""

    modality: str = ""
    sop_class_uid: str = ""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    address: str = ""
    at: time = time()
    """When it came, in local time."""
    attributes: Callable[[], Mapping[int, str]] = dict
    """Tag -> text of what the rules want and the beginning of the data set has; asked only by rules that want any."""
    asked: Priority = Priority.NORMAL
    """The order of delivery that its sender asks for."""


def wanted_tags(routes: Iterable[RouteSettings]) -> dict[int, str]:
    """Return tag -> VR by the dictionary of every attribute that a route asks for."""
    names: set[str] = set()
    for when in (route.when for route in routes):
        names.update(condition.tag for condition in when.tag)
        names.update([BODY_PART] if when.body_part is not None else [])
        names.update([STATION] if when.station is not None else [])
    return dict(element(name) for name in names)


def facts_of(routes: Iterable[RouteSettings], instance: SOPInstance, beginning: Callable[[], bytes], at: time) -> Facts:
    """Return the facts of an instance; `beginning` gives the first bytes of its data set, and is asked at most once."""
    origin = instance.origin
    return Facts(
        instance.header.modality,
        instance.sop_class_uid,
        origin.calling_ae_title.strip(),
        origin.called_ae_title.strip(),
        origin.address,
        at,
        cache(lambda: attribute_values(beginning(), instance.transfer_syntax_uid, wanted_tags(routes))),
        origin.asked,
    )
