"""The page of alarms, and the form by which somebody says that they have seen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.fleet.alarms import Standing, meaning, remedy, urgency
from gateway.fleet.box import Box
from gateway.fleet.fleet_page import ROWS, select
from gateway.fleet.markup import Html, h, join
from gateway.fleet.page import SEVERITY_MARK, View, box_link, form_token, mark, small, whole
from gateway.fleet.reports import moment
from gateway.fleet.words import ago, count, stamp
from gateway.model.health import Severity

SEEN = {"no": "nobody has seen", "yes": "acknowledged"}


def alarms_page(boxes: Sequence[Box], view: View) -> bytes:
    """Return the page; the inventory must be locked meanwhile."""
    query = view.query
    standing = [(box, alarm) for box in boxes for alarm in box.alarms.values() if _asked_for(alarm, box, query)]
    standing.sort(key=lambda pair: (*urgency(pair[1]), pair[0].key))
    rows = [
        h(
            "tr",
            h("th", box_link(box, len(view.lines) > 1, alarm.alarm.code), scope="row", data_label="Box"),
            *alarm_cells(box, alarm, view),
            class_="seen" if alarm.acknowledged_by else None,
        )
        for box, alarm in standing[:ROWS]
    ]
    titles = ("Box", "Alarm", "Since", "What to do", "Seen")
    heads = h("tr", *(h("th", title, scope="col") for title in titles))
    table = h("table", h("thead", heads), h("tbody", *rows), class_="alarms") if rows else h("p", "No alarm holds.")
    shown = count(len(standing), "alarm") + (f", the first {ROWS} are shown" if len(standing) > ROWS else "")
    return whole(
        view, "Alarms", _filter(view), h("section", h("p", shown, class_="shown"), table, id="table", data_live=True)
    )


def _asked_for(standing: Standing, box: Box, asked: Mapping[str, str]) -> bool:
    alarm = standing.alarm
    text = f"{box.name} {box.tenant} {alarm.code} {meaning(alarm.code)} {' '.join(alarm.components)}".lower()
    return (
        (asked.get("seen") not in SEEN or bool(standing.acknowledged_by) == (asked["seen"] == "yes"))
        and asked.get("severity", alarm.severity.value) == alarm.severity.value
        and all(word in text for word in asked.get("q", "").lower().split())
    )


def _filter(view: View) -> Html:
    query = view.query
    search = h("input", type="search", name="q", id="search", value=query.get("q", ""), maxlength=100, accesskey="s")
    return h(
        "form",
        h("label", h("span", "Search"), search),
        h("label", h("span", "Seen"), select("seen", list(SEEN), query.get("seen", ""))),
        h(
            "label",
            h("span", "Severity"),
            select("severity", [severity.value for severity in Severity], query.get("severity", "")),
        ),
        h("button", "Show", type="submit"),
        h("a", "Show all", href=view.path) if query else "",
        role="search",
        class_="filter",
        action=view.path,
    )


def alarm_cells(box: Box, standing: Standing, view: View) -> list[Html]:
    """Return what is told of one alarm, after its box."""
    alarm = standing.alarm
    kind = "critical" if alarm.severity is Severity.CRITICAL else "degraded"
    parts = ", ".join(alarm.components[:8]) + (" …" if len(alarm.components) > 8 else "")
    said = join(
        mark(kind, SEVERITY_MARK[alarm.severity], meaning(alarm.code)), small(f"{alarm.severity.value}: {parts}")
    )
    return [
        h("td", said, data_label="Alarm"),
        h("td", _since(standing, view), data_label="Since"),
        h("td", remedy(alarm.code) or "See the box.", data_label="What to do"),
        h("td", _seen(box, standing, view), data_label="Seen"),
    ]


def _since(standing: Standing, view: View) -> Html:
    """By the box's clock, and when we heard of it by ours."""
    began, heard = moment(standing.alarm.since), f"heard {stamp(standing.raised_at)}"
    return join(ago(standing.raised_at if began is None else began, view.wall), small(heard))


def _seen(box: Box, standing: Standing, view: View) -> Html:
    if standing.acknowledged_by:
        when = small(ago(standing.acknowledged_at, view.wall), stamp(standing.acknowledged_at))
        return join("by ", standing.acknowledged_by, when)
    if not view.operator:
        return h("span", "by nobody", class_="unknown")
    code = standing.alarm.code
    hidden = {"tenant": box.tenant, "box": box.name, "code": code, "since": standing.alarm.since, "back": view.link()}
    label = f"Acknowledge {meaning(code)} of {box.name}"
    button = h("button", "Acknowledge", type="submit", aria_label=label, id=f"ack-{box.tenant}-{box.name}-{code}")
    fields = (h("input", type="hidden", name=name, value=value) for name, value in hidden.items())
    return h("form", form_token(view), *fields, button, method="post", action="/acknowledge")
