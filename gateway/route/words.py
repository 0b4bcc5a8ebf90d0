"""Routes and their conditions as sentences, for people. Pure."""

from __future__ import annotations

from gateway.config.morph import change_in_words
from gateway.config.routes import RouteSettings, TagCondition
from gateway.config.schema import Settings
from gateway.route.conditions import Reading, readings
from gateway.route.facts import Facts

NAMES = {
    "modality": "modality is",
    "calling_ae_title": "calling AE title is",
    "called_ae_title": "called AE title is",
    "sop_class_uid": "SOP class is",
    "address": "address in",
    "time_of_day": "time of day",
    "body_part": "body part is",
    "station": "station is",
}


def condition_in_words(reading: Reading) -> str:
    """Say what a condition asks: "modality is CT or MR"."""
    wanted = reading.wanted
    if isinstance(wanted, TagCondition):
        return f"{wanted.tag} {_question(wanted)}"
    values = wanted if isinstance(wanted, list) else [wanted]
    return f"{NAMES[reading.name]} {_either(values)}"


def reading_in_words(reading: Reading) -> str:
    """Say what a condition asks and what was seen instead."""
    seen = "is not seen" if reading.seen is None else f"is '{printable(reading.seen)}'"
    return f"{condition_in_words(reading)}: {'holds' if reading.holds else 'fails'}, it {seen}"


def target_in_words(route: RouteSettings) -> str:
    """Say where a route leads: "pacs, first of cloud or spare (stat, when the study was quiet for 30 s)"."""
    group = [f"first of {' or '.join(route.to_first_of)}"] if route.to_first_of else []
    wait = f", when the study was quiet for {route.quiet_s:g} s" if route.wait_for else ""
    recipe = f", changed by {' and '.join(route.recipe)}" if route.recipe else ""
    return f"{', '.join([*route.to, *group])} ({route.priority}{wait}){recipe}"


def routes_in_words(settings: Settings) -> list[str]:
    """Return one sentence for each route, or the one that stands for none, then one for each recipe."""
    if not settings.route:
        return [f"no route: everything goes to {', '.join(d.name for d in settings.destination) or 'nobody'} (normal)"]
    sentences = []
    for number, route in enumerate(settings.route, 1):
        asked = " and ".join(condition_in_words(reading) for reading in readings(route.when, Facts()))
        sentences.append(f"route {number}: {'when ' + asked if asked else 'everything'} -> {target_in_words(route)}")
    for morph in settings.morph:
        sentences.append(f"morph {morph.name}: {'; '.join(change_in_words(change) for change in morph.change)}")
    for table in settings.deidentify:
        options = f" with {', '.join(table.options)}" if table.options else ""
        sentences.append(f"deidentify {table.name}: the Basic Profile of PS3.15 Annex E{options}")
    return sentences


def printable(text: str) -> str:
    """A file must not speak to the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _either(values: list[object]) -> str:
    return " or ".join(str(value) for value in values) or "nothing that exists"


def _question(condition: TagCondition) -> str:
    if condition.absent is not None:
        return "is absent" if condition.absent else "is there"
    if condition.equals is not None:
        return f"is {condition.equals}"
    if condition.one_of is not None:
        return f"is {_either(list(condition.one_of))}"
    if condition.range is not None:
        return f"is from {condition.range[0]} to {condition.range[1]}"
    return f"matches {condition.matches.pattern if condition.matches else ''}"
