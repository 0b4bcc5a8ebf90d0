"""The page of all boxes: one line per box, the ones that need somebody first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.fleet.alarms import meaning
from gateway.fleet.box import Box, Presence
from gateway.fleet.markup import Html, h, join
from gateway.fleet.page import SEVERITY_MARK, View, box_link, mark, presence, small, status, whole
from gateway.fleet.waves import Progress
from gateway.fleet.words import ago, count, duration, percent, stamp
from gateway.model.health import Status

ROWS = 200
"""On one page."""
SHOWN_MODALITIES = 3
_PRESENCES = {Presence.OFFLINE: 0, Presence.STALE: 1, Presence.ONLINE: 3}
_STATUSES = {Status.CRITICAL: 1, Status.DEGRADED: 2, Status.OK: 4}


def urgency(box: Box) -> tuple[Any, ...]:
    """Sort by this: gone, then critical or stale, then degraded, then well; the longest backlog first."""
    worst = min(_PRESENCES[box.presence], _STATUSES[box.health.status] if box.health else 3)
    return worst, not box.invalid, -(box.health.oldest_age_s if box.health else 0.0), box.tenant, box.name


def _last_objects(box: Box) -> list[tuple[str, float]]:
    known = ((name, report.last_object) for name, report in box.modalities.items())
    return sorted(((name, at) for name, at in known if at is not None), key=lambda pair: -pair[1])


def _reason_cell(box: Box, view: View) -> Html:
    invalid = small(mark("degraded", "▲", "sends what is not understood")) if box.invalid else ""
    if box.health is None:
        return join(status(box), invalid)
    if not box.health.complaints:
        return join(status(box), invalid)
    worst, *others = box.health.complaints
    more = small(f"and {count(len(others), 'other reason')}") if others else ""
    sign = mark(box.health.status.value, SEVERITY_MARK[worst.severity], meaning(worst.code), f" ({worst.component})")
    return join(sign, more, invalid)


def _unsent_cell(box: Box, view: View) -> Html:
    if box.health is None:
        return h("span", "unknown", class_="unknown")
    if not box.health.objects and not box.health.oldest_age_s:
        return h("span", "nothing waits")
    age, old = duration(box.health.oldest_age_s), box.health.oldest_age_s >= view.thresholds.oldest_unsent_s
    return join(_limited(old, age), small(count(box.health.objects, "object")))


def _limited(beyond: bool, words: str) -> Html:
    return mark("degraded", "▲", words) if beyond else h("span", words)


def _objects_cell(box: Box, view: View) -> Html:
    if not box.modalities:
        return h("span", "none known", class_="unknown")
    latest = [
        h("span", f"{name} {ago(at, view.wall)}", title=stamp(at), class_="modality")
        for name, at in _last_objects(box)[:SHOWN_MODALITIES]
    ]
    silent = [name for name, report in box.modalities.items() if report.silent]
    if silent:
        latest.append(mark("degraded", "▲", f"silent: {', '.join(silent[:SHOWN_MODALITIES])}"))
    hidden = len(_last_objects(box)) - SHOWN_MODALITIES
    return join(*latest, small(f"and {hidden} more") if hidden > 0 else "") if latest else h("span", "nothing yet")


def _version_cell(box: Box, view: View) -> Html:
    if box.birth is None:
        return h("span", box.versions[-1] if box.versions else "unknown", class_="unknown")
    return join(box.birth.version, small(f"slot {box.birth.slot}") if box.birth.slot else "")


def _disk_cell(box: Box, view: View) -> Html:
    health = box.health
    if health is None or health.disk_pct is None:
        return h("span", "unknown", class_="unknown")
    if health.read_only:
        return mark("critical", "✖", "read-only")
    worn = small(f"{percent(health.wear_pct)} worn") if health.wear_pct is not None else ""
    return join(_limited(health.disk_pct >= view.thresholds.disk_percent, percent(health.disk_pct)), worn)


def _clock_cell(box: Box, view: View) -> Html:
    health = box.health
    if health is None or health.clock_synced is None:
        return h("span", "unknown", class_="unknown")
    if not health.clock_synced:
        return mark("degraded", "▲", "not synced")
    if health.clock_offset_ms is None:
        return h("span", "synced")
    return _limited(abs(health.clock_offset_ms) >= view.thresholds.clock_ms, f"{health.clock_offset_ms:+.0f} ms")


def _certificate_cell(box: Box, view: View) -> Html:
    days = box.health.certificate_days if box.health else None
    if days is None:
        return h("span", "unknown", class_="unknown")
    if days < 0:
        return mark("critical", "✖", "ended")
    return _limited(days < view.thresholds.certificate_days, f"{days:.0f} d")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, how it sorts (best last), and its cell."""

    title: str
    rank: Callable[[Box], Any]
    cell: Callable[[Box, View], Html]


def _or(value: float | None, unknown: float) -> float:
    return unknown if value is None else value


COLUMNS: dict[str, Column] = {
    "box": Column("Box", lambda b: (b.name, b.tenant), lambda b, v: box_link(b, len(v.lines) > 1)),
    "state": Column("State", lambda b: (_PRESENCES[b.presence], b.since), lambda b, v: presence(b, v.wall)),
    "worst": Column("Worst reason", urgency, _reason_cell),
    "unsent": Column("Oldest unsent", lambda b: -b.health.oldest_age_s if b.health else 1.0, _unsent_cell),
    "objects": Column("Last objects", lambda b: max((at for _, at in _last_objects(b)), default=0.0), _objects_cell),
    "version": Column("Version", lambda b: (b.versions[-1:], b.birth.slot or "" if b.birth else ""), _version_cell),
    "disk": Column("Disk", lambda b: -_or(b.health.disk_pct, -1) if b.health else 1.0, _disk_cell),
    "clock": Column("Clock", lambda b: -abs(_or(b.health.clock_offset_ms, 0)) if b.health else 1.0, _clock_cell),
    "cert": Column(
        "Certificate", lambda b: _or(b.health.certificate_days, 1e9) if b.health else 1e9, _certificate_cell
    ),
}
DEFAULT_SORT = "worst"


def matches(box: Box, words: str) -> bool:
    """True when each word is somewhere in what the line of a box says."""
    health, birth = box.health, box.birth
    text = " ".join(
        [box.name, box.tenant, box.presence.value, *box.versions[-1:], *box.modalities, *box.destinations]
        + ([birth.model or "", birth.serial or ""] if birth else [])
        + ([health.status.value] if health else [])
        + ([f"{c.code} {c.component} {meaning(c.code)}" for c in health.complaints] if health else [])
    ).lower()
    return all(word in text for word in words.lower().split())


def chosen(boxes: Iterable[Box], view: View, waves: Sequence[Progress]) -> list[Box]:
    """Return the boxes that the query of the page asks for, in its order."""
    query = view.query
    wave = next((wave for wave in waves if wave.name == query.get("wave")), None)
    members = {box.key for box, _ in wave.boxes} if wave else None
    found = [
        box
        for box in boxes
        if (not query.get("state") or box.presence.value == query["state"])
        and (not query.get("status") or (box.health.status.value if box.health else "unknown") == query["status"])
        and (not query.get("tenant") or box.tenant == query["tenant"])
        and (members is None or box.key in members)
        and (not query.get("q") or matches(box, query["q"]))
    ]
    column, backwards = _order(view)
    return sorted(found, key=COLUMNS[column].rank, reverse=backwards)


def _order(view: View) -> tuple[str, bool]:
    asked = view.query.get("sort", DEFAULT_SORT)
    column = asked.removeprefix("-")
    return (column, asked.startswith("-")) if column in COLUMNS else (DEFAULT_SORT, False)


def fleet_page(boxes: Sequence[Box], view: View, waves: Sequence[Progress]) -> bytes:
    """Return the page; the inventory must be locked meanwhile."""
    found = chosen(boxes, view, waves)
    pages = max(1, -(-len(found) // ROWS))
    asked = view.query.get("page", "1")
    page = min(max(1, int(asked) if asked.isdecimal() and len(asked) < 6 else 1), pages)
    rows = [_row(box, view) for box in found[(page - 1) * ROWS : page * ROWS]]
    table = h(
        "table", h("thead", h("tr", *(_heading(name, view) for name in COLUMNS))), h("tbody", *rows), class_="boxes"
    )
    shown = count(len(found), "box", "boxes") + (f" of {len(boxes):,}" if len(found) != len(boxes) else "")
    nothing = h("p", "No box matches." if boxes else "No box has been heard of yet.") if not found else ""
    parts = (
        h("p", shown, f", page {page} of {pages}" if pages > 1 else "", class_="shown"),
        table if found else "",
        nothing,
        _pages(view, page, pages),
    )
    return whole(
        view, "Boxes", _summary(boxes, view), _filter(view, waves), h("section", *parts, id="table", data_live=True)
    )


def _summary(boxes: Sequence[Box], view: View) -> Html:
    present = Counter(box.presence for box in boxes)
    states = Counter(box.health.status for box in boxes if box.health)
    unseen = sum(not standing.acknowledged_by for box in boxes for standing in box.alarms.values())
    facts = [
        (view.link(state="online", status="", page=""), present[Presence.ONLINE], "● online", "well"),
        (view.link(state="stale", status="", page=""), present[Presence.STALE], "◐ stale", "degraded"),
        (view.link(state="offline", status="", page=""), present[Presence.OFFLINE], "○ offline", "critical"),
        (view.link(state="", status="critical", page=""), states[Status.CRITICAL], "✖ critical", "critical"),
        (view.link(state="", status="degraded", page=""), states[Status.DEGRADED], "▲ degraded", "degraded"),
        ("/alarms?seen=no", unseen, "alarms to see", "critical"),
    ]
    cards = (
        h(
            "li",
            h("a", h("b", f"{number:,}"), " ", words, href=link, class_=kind if number else "none", id=f"sum-{place}"),
        )
        for place, (link, number, words, kind) in enumerate(facts)
    )
    return h("ul", *cards, class_="summary", id="summary", data_live=True)


def _filter(view: View, waves: Sequence[Progress]) -> Html:
    query = view.query
    choices = {
        "state": ("State", [presence.value for presence in Presence]),
        "status": ("Status", [*(status.value for status in Status), "unknown"]),
    }
    if len(view.lines) > 1:
        choices["tenant"] = ("Tenant", [line.tenant for line in view.lines])
    if waves:
        choices["wave"] = ("Wave", [wave.name for wave in waves])
    fields = [
        h("label", h("span", title), select(name, values, query.get(name, "")))
        for name, (title, values) in choices.items()
    ]
    search = h("input", type="search", name="q", id="search", value=query.get("q", ""), maxlength=100, accesskey="s")
    return h(
        "form",
        h("label", h("span", "Search"), search),
        *fields,
        h("label", h("span", "Sort by"), _sorting(view)),
        h("button", "Show", type="submit"),
        h("a", "Show all", href=view.path) if any(query.get(name) for name in ("q", *choices)) else "",
        role="search",
        class_="filter",
        action=view.path,
    )


def _sorting(view: View) -> Html:
    """The same as the heads of the table, which narrow screens do not show."""
    column, backwards = _order(view)
    options = [
        h("option", COLUMNS[name].title + words, value=sign + name, selected=(name, bool(sign)) == (column, backwards))
        for name in COLUMNS
        for sign, words in (("", ""), ("-", ", backwards"))
    ]
    return h("select", *options, name="sort", id="filter-sort")


def select(name: str, values: Sequence[str], current: str) -> Html:
    """Return a list to choose from; the first entry is any."""
    options = (h("option", value, value=value, selected=value == current) for value in values)
    return h("select", h("option", "any", value=""), *options, name=name, id=f"filter-{name}")


def _heading(name: str, view: View) -> Html:
    column, backwards = _order(view)
    current = name == column
    target = f"-{name}" if current and not backwards else name
    sign = h("span", "▼" if backwards else "▲", class_="order", aria_hidden="true") if current else ""
    link = h("a", COLUMNS[name].title, " ", sign, href=view.link(sort=target, page=""), id=f"sort-{name}")
    order = ("descending" if backwards else "ascending") if current else None
    return h("th", link, scope="col", aria_sort=order)


def _row(box: Box, view: View) -> Html:
    cells = [
        h(
            "th" if name == "box" else "td",
            column.cell(box, view),
            data_label=column.title,
            scope="row" if name == "box" else None,
        )
        for name, column in COLUMNS.items()
    ]
    return h("tr", *cells, class_=box.presence.value)


def _pages(view: View, page: int, pages: int) -> Html | str:
    if pages == 1:
        return ""
    before = h("a", "← Previous", href=view.link(page=str(page - 1)), rel="prev", id="previous") if page > 1 else ""
    after = h("a", "Next →", href=view.link(page=str(page + 1)), rel="next", id="next") if page < pages else ""
    return h(
        "nav", before, h("span", f"Page {page} of {pages}"), after, class_="pages", aria_label="Pages of the table"
    )
