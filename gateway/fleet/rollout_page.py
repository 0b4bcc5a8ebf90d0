"""The page of the roll-out: which versions run, and how each wave goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gateway.fleet.box import Box
from gateway.fleet.markup import Html, h, join
from gateway.fleet.page import View, box_link, mark, whole
from gateway.fleet.waves import Progress, Stage
from gateway.fleet.words import count

MAX_VERSIONS = 20
MAX_NAMED = 20
STAGE_WORDS = {
    Stage.WAITING: "waiting",
    Stage.IN_PROGRESS: "in progress",
    Stage.DONE: "done",
    Stage.FAILED: "failed",
    Stage.ROLLED_BACK: "rolled back",
}
STATE_MARK = {
    "abort": ("critical", "✖", "Abort: give no further box this version"),
    "in progress": ("unknown", "…", "in progress"),
    "done": ("well", "✔", "done"),
    "waiting": ("unknown", "○", "waiting"),
}


def rollout_page(boxes: Sequence[Box], view: View, waves: Sequence[Progress]) -> bytes:
    """Return the page; the inventory must be locked meanwhile."""
    versions = Counter(box.versions[-1] if box.versions else "unknown" for box in boxes)
    rows = [_version(version, number, len(boxes)) for version, number in versions.most_common(MAX_VERSIONS)]
    heads = h("tr", *(h("th", title, scope="col") for title in ("Version", "Boxes", "Share")))
    table = h("table", h("thead", heads), h("tbody", *rows), class_="versions")
    hidden = len(versions) - MAX_VERSIONS
    more = h("p", f"and {count(hidden, 'more version')}") if hidden > 0 else ""
    sections = [_wave(wave, view) for wave in waves] or [h("p", "No [[wave]] is configured.")]
    return whole(
        view,
        "Roll-out",
        h(
            "section",
            h("h2", "Versions"),
            table if boxes else h("p", "No box yet."),
            more,
            id="versions",
            data_live=True,
        ),
        h("section", h("h2", "Waves"), *sections, id="waves", data_live=True),
    )


def _version(version: str, number: int, total: int) -> Html:
    share = 100 * number / total
    bar = h("meter", f"{share:.0f} %", min=0, max=total, value=number, aria_label=f"{number} of {total}")
    return h(
        "tr",
        h("th", version, scope="row", data_label="Version"),
        h("td", f"{number:,}", data_label="Boxes"),
        h("td", bar, f" {share:.0f} %", data_label="Share"),
    )


def _wave(wave: Progress, view: View) -> Html:
    numbers = (
        h("li", h("b", f"{wave.count(stage):,}"), " ", words, class_=stage.value)
        for stage, words in STAGE_WORDS.items()
    )
    trouble = [(box, stage) for box, stage in wave.boxes if stage in (Stage.FAILED, Stage.ROLLED_BACK)]
    named = [
        h(
            "li",
            box_link(box, len(view.lines) > 1),
            f": {STAGE_WORDS[stage]}, runs ",
            box.versions[-1] if box.versions else "?",
        )
        for box, stage in trouble[:MAX_NAMED]
    ]
    hidden = len(trouble) - MAX_NAMED
    limit = (
        f"{wave.failed_percent:.0f} % of the boxes that began failed; more than {wave.abort_percent:.0f} % is too many."
    )
    return h(
        "article",
        h("h3", wave.name, " → ", wave.version),
        h("p", mark(*STATE_MARK[wave.state]), class_="state"),
        h("ul", *numbers, class_="stages"),
        h(
            "p",
            limit,
            " ",
            h("a", count(len(wave.boxes), "box", "boxes"), href=f"/?wave={wave.name}", id=f"wave-{wave.name}"),
        ),
        join(h("ul", *named), h("p", f"and {hidden} more") if hidden > 0 else "") if named else "",
        class_="wave",
    )
