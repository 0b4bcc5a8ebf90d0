"""The page of one box: what it is, what it complains of, its history."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.fleet.alarms import meaning, urgency
from gateway.fleet.alarms_page import alarm_cells
from gateway.fleet.box import Box, Key
from gateway.fleet.markup import Html, h, join
from gateway.fleet.page import SEVERITY_MARK, View, mark, presence, status, whole
from gateway.fleet.plot import Point, plot
from gateway.fleet.store import History, Past
from gateway.fleet.words import ago, count, duration, percent, stamp

SPANS_H = {"6": "6 hours", "24": "1 day", "168": "7 days", "720": "30 days"}
DEFAULT_SPAN = "24"
MAX_POINTS = 3000
MAX_EVENTS = 50
PLOTS = (
    ("Oldest unsent", "h", 2, 1 / 3600, "oldest_unsent_s"),
    ("Objects in custody", "objects", 3, 1.0, None),
    ("Disk used", "%", 4, 1.0, "disk_percent"),
    ("Clock offset", "ms", 5, 1.0, None),
    ("Temperature", "°C", 6, 1.0, None),
)
"""Title, unit, place in a sample, factor, threshold."""


def past_of(key: Key, history: History, view: View) -> Past:
    """Return what the page needs of the box's past."""
    return history.past(key, view.wall - float(_span(view)) * 3600, MAX_POINTS, MAX_EVENTS)


def _span(view: View) -> str:
    asked = view.query.get("hours", DEFAULT_SPAN)
    return asked if asked in SPANS_H else DEFAULT_SPAN


def box_page(box: Box, past: Past, view: View) -> bytes:
    """Return the page; the inventory must be locked meanwhile."""
    span = _span(view)
    choices = (
        h("a", words, href=view.link(hours=hours), aria_current="true" if hours == span else None)
        for hours, words in SPANS_H.items()
    )
    plots = h("div", *(_plot(past.samples, view, *facts) for facts in PLOTS), class_="plots")
    return whole(
        view,
        box.name,
        h("section", _head(box, view), _invalid(box), _complaints(box, view), id="now", data_live=True),
        h("section", h("h2", "Alarms"), _alarms(box, view), id="alarms", data_live=True),
        h("section", h("h2", "Facts"), _facts(box, view)),
        _places(box, view),
        h("section", h("h2", "History"), h("nav", *choices, class_="spans", aria_label="Time shown"), plots),
        h("section", h("h2", "Events"), _events(past.events)),
        h("section", h("h2", "Alarms that ended"), _ended(past.ended_alarms)),
    )


def _plot(samples: Sequence[tuple[object, ...]], view: View, title: str, unit: str, place: int, *more: object) -> Html:
    factor, threshold = more
    points: list[Point] = [
        (float(row[0]), float(row[place]) * float(factor))  # type: ignore[arg-type]
        for row in samples
        if row[place] is not None
    ]
    limit = getattr(view.thresholds, str(threshold)) * factor if threshold else None
    return plot(title, unit, points, limit, None if place > 4 else 0.0)


def _head(box: Box, view: View) -> Html:
    parts = [presence(box, view.wall), " ", status(box)]
    if (drops := box.drops(view.now)) > 1:
        parts += [" ", mark("degraded", "▲", f"connected anew {drops} times in the last hour")]
    heard = f"Heard {ago(box.heard_at, view.wall)}; reports every {duration(box.interval_s)}."
    return join(h("p", *parts, class_="state"), h("p", heard))


def _invalid(box: Box) -> Html | str:
    if not box.invalid:
        return ""
    entries = (h("li", h("code", part), ": ", reason) for part, reason in sorted(box.invalid.items()))
    return join(h("p", mark("degraded", "▲", "What it sends is not understood:")), h("ul", *entries))


def _complaints(box: Box, view: View) -> Html | str:
    if box.health is None:
        return h("p", "It has not said how it is.")
    entries = []
    for complaint in box.health.complaints:
        kind = "critical" if complaint.severity.value == "critical" else "degraded"
        since = f" since {ago(complaint.since, view.wall)} by its clock" if complaint.since is not None else ""
        words = f" ({complaint.component}){since}"
        entries.append(h("li", mark(kind, SEVERITY_MARK[complaint.severity], meaning(complaint.code)), words))
    return h("ul", *entries, class_="reasons") if entries else h("p", "It complains of nothing.")


def _alarms(box: Box, view: View) -> Html:
    standing = sorted(box.alarms.values(), key=urgency)
    if not standing:
        return h("p", "No alarm holds.")
    heads = h("tr", *(h("th", title, scope="col") for title in ("Alarm", "Since", "What to do", "Seen")))
    rows = (
        h("tr", *alarm_cells(box, alarm, view), class_="seen" if alarm.acknowledged_by else None) for alarm in standing
    )
    return h("table", h("thead", heads), h("tbody", *rows), class_="alarms")


def _facts(box: Box, view: View) -> Html:
    birth, health = box.birth, box.health
    facts: list[tuple[str, object]] = [("Tenant", box.tenant)]
    if birth:
        facts += [
            ("Version", birth.version),
            ("Slot", birth.slot),
            ("Model", birth.model),
            ("Serial number", birth.serial),
            ("System", birth.os),
            ("Last reset", birth.reset_reason),
            ("Configuration", birth.config_digest[:12] or None),
            ("What is installed", birth.sbom_digest[:12] or None),
        ]
    if box.version_at:
        facts.append(("Runs this version since", stamp(box.version_at)))
    if health:
        synced = {True: "synced", False: "not synced", None: None}[health.clock_synced]
        off = f", {health.clock_offset_ms:+.0f} ms" if health.clock_offset_ms is not None else ""
        days = health.certificate_days
        wear = f", {percent(health.wear_pct)} worn" if health.wear_pct is not None else ""
        facts += [
            ("In custody", f"{count(health.objects, 'object')}, {health.bytes / 1e6:,.1f} MB"),
            ("Refused by an archive", count(health.dead, "object")),
            ("Sums of custody", "agree" if health.agree else "DISAGREE"),
            ("Disk", percent(health.disk_pct) + (", READ-ONLY" if health.read_only else "") + wear),
            ("Disk encrypted", _yes(health.encrypted)),
            ("Clock", f"{health.clock_source or ''} {synced}{off}" if synced else None),
            ("First certificate to end", f"{health.certificate}: {days:.0f} days left" if days is not None else None),
            ("Temperature", f"{health.temp_c:.0f} °C" if health.temp_c is not None else None),
            ("Slowed down", _yes(health.throttled)),
            ("Supply voltage too low", _yes(health.undervoltage)),
            ("On battery", _yes(health.on_battery)),
            ("Memory available", percent(health.memory_pct)),
            ("Machine up for", duration(health.uptime_s) if health.uptime_s is not None else None),
        ]
    pairs = (h("div", h("dt", name), h("dd", "unknown" if value is None else value)) for name, value in facts)
    return h("dl", *pairs)


def _yes(value: bool | None) -> str | None:
    return {True: "yes", False: "no", None: None}[value]


def _places(box: Box, view: View) -> Html:
    scanners = [
        (
            name,
            "nothing known" if report.last_object is None else ago(report.last_object, view.wall),
            f"{report.studies_today:.0f}" + (f" of usually {report.usual_by_now:.0f}" if report.usual_by_now else ""),
            mark("degraded", "▲", "silent") if report.silent else mark("well", "✔", "as usual"),
        )
        for name, report in sorted(box.modalities.items())
    ]
    archives = [
        (
            name,
            mark("well", "✔", "well")
            if report.breaker == "closed"
            else mark("degraded", "▲", _BREAKER[report.breaker]),
            f"{report.queued:,.0f} waiting, {report.held:,.0f} refused",
            duration(report.oldest_age_s) if report.queued else "nothing waits",
            ago(report.last_success, view.wall) if report.last_success is not None else "not since its start",
            report.last_error,
        )
        for name, report in sorted(box.destinations.items())
    ]
    return h(
        "section",
        h("h2", "Scanners"),
        _table(("Scanner", "Last object", "Studies today", "State"), scanners, "No scanner is configured."),
        h("h2", "Archives"),
        _table(
            ("Archive", "State", "Objects", "Oldest", "Last success", "Last error"), archives, "No archive is known."
        ),
        id="places",
        data_live=True,
    )


_BREAKER = {"open": "does not answer", "paused": "paused"}


def _events(events: Sequence[tuple[float, str, str]]) -> Html:
    rows = [(stamp(at), kind.replace("_", " "), words.replace("_", " ")) for at, kind, words in events]
    return _table(("When", "What", "More"), rows, "Nothing has happened yet.")


def _ended(alarms: Sequence[tuple[str, str, float, float, str]]) -> Html:
    rows = [
        (meaning(code), severity, stamp(raised), duration(cleared - raised), who or "nobody")
        for code, severity, raised, cleared, who in alarms
    ]
    return _table(("Alarm", "Severity", "Raised", "Held for", "Seen by"), rows, "None.")


def _table(titles: Sequence[str], rows: Sequence[tuple[object, ...]], nothing: str) -> Html:
    if not rows:
        return h("p", nothing)
    heads = h("tr", *(h("th", title, scope="col") for title in titles))
    body = (
        h("tr", *(h("td", cell, data_label=title) for title, cell in zip(titles, row, strict=True))) for row in rows
    )
    return h("table", h("thead", heads), h("tbody", *body))
