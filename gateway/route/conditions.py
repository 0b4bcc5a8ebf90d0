"""What one condition asks, what was seen, and whether it holds. Pure; never raises for what an instance says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import time
from ipaddress import IPv4Network, IPv6Network

from gateway.config.routes import RouteCondition, TagCondition
from gateway.config.tags import element
from gateway.model.address import address_of
from gateway.route.facts import BODY_PART, STATION, Facts


@dataclass(frozen=True, slots=True)
class Reading:
    """One condition, laid beside one instance."""

    name: str
    """As the configuration calls it; a tag by its keyword or number."""
    wanted: object
    """As configured."""
    seen: str | None
    """None: the instance does not say."""
    holds: bool


def readings(when: RouteCondition, facts: Facts) -> Iterator[Reading]:
    """Yield every condition, cheap ones first: who stops at the first that fails asks for no attribute in vain."""
    for name, wanted, seen in (
        ("modality", when.modality, facts.modality),
        ("calling_ae_title", when.calling_ae_title, facts.calling_ae_title),
        ("called_ae_title", when.called_ae_title, facts.called_ae_title),
        ("sop_class_uid", when.sop_class_uid, facts.sop_class_uid),
    ):
        if wanted is not None:
            yield Reading(name, wanted, seen, any(seen == value.strip() for value in wanted))
    if when.address is not None:
        yield Reading("address", when.address, facts.address, is_within(facts.address, when.address))
    if when.time_of_day is not None:
        yield Reading("time_of_day", when.time_of_day, f"{facts.at:%H:%M}", is_between(facts.at, when.time_of_day))
    for name, keyword, values in (("body_part", BODY_PART, when.body_part), ("station", STATION, when.station)):
        if values is not None:
            text = facts.attributes().get(element(keyword)[0])
            yield Reading(name, values, text, any(value in values for value in values_in(text)))
    for condition in when.tag:
        text = facts.attributes().get(element(condition.tag)[0])
        yield Reading(condition.tag, condition, text, answers(condition, text))


def is_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """True when the address lies in one of the networks; an instance that came by no network lies in none."""
    seen = address_of(address)
    return seen is not None and any(seen in network for network in networks)


def is_between(at: time, hours: str) -> bool:
    """True from the first minute of "HH:MM-HH:MM" until before the last; a later first goes past midnight."""
    first, last, now = hours[:5], hours[6:], f"{at:%H:%M}"
    return first <= now < last if first < last else now >= first or now < last


def answers(condition: TagCondition, seen: str | None) -> bool:
    """True when one of the values satisfies the condition's one question."""
    if condition.absent is not None:
        return condition.absent is not bool(seen)
    return any(_satisfies(condition, value) for value in values_in(seen))


def values_in(seen: str | None) -> list[str]:
    """Return what can be compared: of several values (PS3.5 6.4) all as they stand, then each."""
    if seen is None:
        return []
    parts = [part.strip() for part in seen.split("\\")]
    return [seen, *parts] if len(parts) > 1 else parts


def _satisfies(condition: TagCondition, value: str) -> bool:
    if condition.equals is not None:
        return value == condition.equals
    if condition.one_of is not None:
        return value in condition.one_of
    if condition.matches is not None:
        return condition.matches.search(value) is not None
    return condition.range is not None and _in_range(value, *condition.range)


def _in_range(value: str, first: float | str, last: float | str) -> bool:
    if isinstance(first, str) or isinstance(last, str):
        return bool(value) and str(first) <= value and value[: len(str(last))] <= str(last)
    try:
        return first <= float(value) <= last
    except ValueError:
        return False
