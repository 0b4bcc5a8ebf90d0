"""What every page has: head, navigation, the line about the broker; and marks that are words as well as colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from gateway.fleet.box import Box, Presence
from gateway.fleet.markup import Html, h, join
from gateway.fleet.settings import ThresholdSettings
from gateway.fleet.subscriber import Line
from gateway.fleet.words import ago, stamp
from gateway.model.health import Severity, Status

NAVIGATION = {"/": "Boxes", "/alarms": "Alarms", "/rollout": "Roll-out"}
PRESENCE_MARK = {Presence.ONLINE: "●", Presence.STALE: "◐", Presence.OFFLINE: "○"}
STATUS_MARK = {Status.OK: ("✔", "well"), Status.DEGRADED: ("▲", "degraded"), Status.CRITICAL: ("✖", "critical")}
SEVERITY_MARK = {Severity.WARNING: "▲", Severity.CRITICAL: "✖"}


@dataclass(frozen=True, slots=True)
class View:
    """What a page is made for."""

    path: str
    query: Mapping[str, str]
    lines: Sequence[Line]
    thresholds: ThresholdSettings
    now: float
    """Monotonic."""
    wall: float
    operator: str = ""
    """Who is signed in."""
    way_in: str = ""
    """How somebody could: "token", "name" or not at all."""
    form_token: str = ""
    store_fault: str = ""

    def link(self, **changes: str) -> str:
        """Return the address of this page with other words in its query; empty ones are left out."""
        merged = {name: value for name, value in {**self.query, **changes}.items() if value}
        return self.path + ("?" + urlencode(merged) if merged else "")


def whole(view: View, title: str, *content: object) -> bytes:
    """Return a page. What has `data-live` is renewed by the script while it is looked at."""
    links = (
        h("a", name, href=path, aria_current="page" if view.path == path else None) for path, name in NAVIGATION.items()
    )
    body = h(
        "body",
        h("a", "Skip to content", href="#main", class_="skip"),
        h("header", h("b", "Fleet"), h("nav", *links, aria_label="Pages"), _who(view)),
        h("div", *_banners(view), id="banners", data_live=True),
        h("main", h("h1", title), *content, id="main"),
        h("footer", "As of ", h("time", stamp(view.wall), id="as-of", data_live=True)),
    )
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{title} – fleet"),
        h("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        h("link", rel="stylesheet", href="/static/fleet.css"),
        h("script", src="/static/fleet.js", defer=True),
    )
    return ("<!DOCTYPE html>" + h("html", head, body, lang="en")).encode("utf-8", "replace")


def _who(view: View) -> Html:
    if view.operator:
        button = h("button", "Sign out", type="submit", class_="quiet")
        return h("form", form_token(view), h("span", view.operator), button, method="post", action="/sign-out")
    return h("span", h("a", "Sign in", href="/sign-in")) if view.way_in else h("span", "read only")


def _banners(view: View) -> list[Html]:
    found = []
    for line in view.lines:
        if not line.connected:
            said = f"✖ Tenant {line.tenant} is not watched since {ago(line.since, view.wall)}: "
            found.append(h("p", said, line.reason, ". What is shown is what was known then.", role="alert"))
        elif line.drops:
            said = f"▲ The broker drops what it is to send us of tenant {line.tenant}; boxes may be missing. "
            found.append(h("p", said, "Raise its queue (mosquitto: max_queued_messages).", role="alert"))
    if view.store_fault:
        found.append(h("p", "▲ History cannot be written: ", view.store_fault, role="alert"))
    return found


def form_token(view: View) -> Html:
    """Return the hidden field that every form needs."""
    return h("input", type="hidden", name="form_token", value=view.form_token)


def mark(kind: str, sign: str, *words: object) -> Html:
    """Return words with a sign; the colour comes after both."""
    return h("span", h("span", sign, aria_hidden="true"), " ", *words, class_=f"mark {kind}")


def presence(box: Box, wall: float) -> Html:
    """Return whether a box is there, and since when not."""
    sign, word = PRESENCE_MARK[box.presence], box.presence.value
    if box.presence is Presence.ONLINE:
        return mark("well", sign, word)
    if box.presence is Presence.STALE:
        return mark("degraded", sign, word, small(f"silent since {ago(box.heard_at, wall)}", stamp(box.heard_at)))
    since = f"since {ago(box.since, wall)}" if box.since_exact else f"since before {stamp(box.since)[5:16]}"
    return mark("critical", sign, word, small(since, stamp(box.since)))


def status(box: Box) -> Html:
    """Return what a box said of itself last."""
    if box.health is None:
        return mark("unknown", "?", "unknown")
    sign, word = STATUS_MARK[box.health.status]
    return mark({"ok": "well"}.get(box.health.status.value, box.health.status.value), sign, word)


def small(words: object, title: str | None = None) -> Html:
    """Return words of less weight, on a line of their own."""
    return h("small", words, title=title)


def box_link(box: Box, several_tenants: bool, place: str = "box") -> Html:
    """Return a box's name as the way to its page; `place` tells two links to it on one page apart."""
    name = h("a", box.name, href=f"/box/{box.tenant}/{box.name}", id=f"{place}-{box.tenant}-{box.name}")
    return join(name, small(box.tenant)) if several_tenants else name
