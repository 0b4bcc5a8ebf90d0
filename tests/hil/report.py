"""The acceptance report: one page that needs nothing else, its data as JSON, and the page on paper."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gateway.fleet.markup import Html, h, join
from gateway.fleet.words import duration, stamp
from tests.browser import FLAGS
from tests.hil import plot
from tests.hil.suite import Protocol
from tests.hil.verdict import Outcome, Result

STYLE = Path(__file__).with_name("report.css")
SIGN = {Outcome.PASSED: ("✔ passed", "well"), Outcome.FAILED: ("✖ failed", "bad")}
SIGN[Outcome.NOT_APPLICABLE] = ("– not applicable", "not")
USUAL = ("answer_p50_s", "answer_p95_s", "to_archive_p50_s", "to_archive_p95_s")
"""Figures with columns of their own."""
TARGETS = {"process": "a process on this machine", "qemu": "the image, in QEMU", "box": "a box"}
BROAD = 120
"""Figures that are longer as text get a row of their own."""
PRINTS_S = 180


def write(protocol: Protocol, folder: Path) -> Path:
    """Write report.json and report.html into a folder; return the page."""
    told = asdict(protocol)
    told["cases"] = told.pop("results")
    told["passed"] = protocol.passed
    for picture in told["pictures"]:
        del picture["uri"]
    data = json.dumps(told, indent=1, allow_nan=False) + "\n"
    (folder / "report.json").write_text(data)
    path = folder / "report.html"
    path.write_text(page(protocol, hashlib.sha256(data.encode()).hexdigest()), encoding="utf-8")
    return path


def print_pdf(path: Path) -> Path | None:
    """Print a page to a PDF beside it by headless Chromium and return it; None where there is no Chromium."""
    browser = shutil.which("chromium")
    if browser is None:
        return None
    pdf = path.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        words = [*FLAGS, f"--user-data-dir={profile}", "--no-pdf-header-footer", f"--print-to-pdf={pdf}"]
        subprocess.run([browser, *words, path.resolve().as_uri()], check=True, capture_output=True, timeout=PRINTS_S)
    return pdf


def page(protocol: Protocol, digest: str) -> str:
    """Return the page; `digest` is the SHA-256 of report.json, which ties the two together."""
    body = join(
        _head(protocol),
        h("h2", "What was tested"),
        _identity(protocol),
        h("h2", "What came of it"),
        _summary(protocol),
        _course(protocol),
        h("h2", "Cases"),
        *(_group(name, protocol.results) for name in dict.fromkeys(one.group for one in protocol.results)),
        _gallery(protocol),
        h("h2", "How the verdict is reached"),
        _method(),
        _signatures(),
        h("footer", "Data of this report: report.json, SHA-256 ", h("code", digest)),
    )
    head = join(
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("title", f"Acceptance report: {protocol.rig}"),
        h("style", Html(STYLE.read_text() + _on_each_sheet(protocol))),
    )
    return "<!doctype html>\n" + h("html", h("head", head), h("body", body), lang="en") + "\n"


def _on_each_sheet(protocol: Protocol) -> str:
    """What stands at the foot of each printed page, so that a sheet alone says where it belongs."""
    told = f"{protocol.rig}, {stamp(protocol.began_at)}, seed {protocol.seed}"
    plain = re.sub(r"[^\w .,:-]", " ", told)
    return f'@page {{ @bottom-left {{ content: "{plain}"; font: 8pt "DejaVu Sans", sans-serif; color: #54616e; }} }}\n'


def _counts(results: Sequence[Result]) -> Counter[Outcome]:
    return Counter(one.outcome for one in results)


def _head(protocol: Protocol) -> Html:
    counts = _counts(protocol.results)
    failed = counts[Outcome.FAILED]
    verdict = "PASSED" if protocol.passed else f"{failed} FAILED" if failed else "NOTHING PASSED"
    words = ", ".join(f"{counts[one]} {one}" for one in Outcome)
    return h(
        "header",
        h("div", h("h1", "Acceptance report"), h("p", f"DICOM edge gateway · {protocol.rig}")),
        h("div", verdict, h("small", words), class_="stamp " + ("well" if protocol.passed else "bad")),
    )


def _identity(protocol: Protocol) -> Html:
    told, rows = protocol.identity, []
    rows.append(("Target", f"{TARGETS[protocol.kind]}, at {protocol.place}"))
    if told:
        rows.append(("Gateway", told["gateway_version"]))
        machine = [f"{name} {told[key]}" for name, key in (("model", "model"), ("serial number", "serial"))]
        rows.append(("Machine", ", ".join(machine)))
        rows.append(("System", f"{told['os']}, slot {told['slot']}"))
        rows.append(("Configuration", h("code", told["config_digest"])))
        rows.append(("Bill of materials", h("code", told["sbom_digest"])))
    else:
        rows.append(("Gateway", "unknown: nothing was heard of it by MQTT"))
    rows.append(("Begun", stamp(protocol.began_at)))
    rows.append(("Took", duration(protocol.seconds)))
    rows.append(("Suite", f"{protocol.suite}; {protocol.form} form"))
    rows.append(("Seed", h("code", str(protocol.seed))))
    return h("dl", *(join(h("dt", name), h("dd", value)) for name, value in rows))


def _summary(protocol: Protocol) -> Html:
    results = protocol.results
    rows = []
    for group in dict.fromkeys(one.group for one in results):
        counts = _counts([one for one in results if one.group == group])
        rows.append(h("tr", h("th", group, scope="row"), *(_number(counts[one]) for one in Outcome)))
    verdicts = h(
        "table",
        h("thead", h("tr", h("th", "cases"), *(h("th", one, class_="number") for one in Outcome))),
        h("tbody", *rows),
        class_="sums",
    )
    sums = [one.sums for one in results]
    lost, altered = (sum(len(getattr(one, name)) for one in sums) for name in ("lost", "altered"))
    sentence = (
        f"Scanners sent {_many(sum(one.sent for one in sums))} objects and were told of "
        f"{_many(sum(one.acknowledged for one in sums))} that they are safe. The archive has "
        f"{_many(sum(one.archived for one in sums))} of those sent, byte for byte: {lost} lost, {altered} altered, "
        f"{protocol.strange} that nobody here sent."
    )
    failed = [one.name for one in results if one.outcome is Outcome.FAILED]
    told = h("p", h("b", "Failed: ", class_="bad"), ", ".join(failed)) if failed else ""
    return join(h("p", h("b", "The oracle's sums. "), sentence), told, verdicts)


def _many(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _number(value: object) -> Html:
    return h("td", str(value), class_="number")


def _course(protocol: Protocol) -> Html:
    points = protocol.points
    if len(points) < 2:
        return Html("")
    marked = [one for one in protocol.results if one.plotted and one.outcome is not Outcome.NOT_APPLICABLE]
    bands = [plot.Band(one.name, one.began_s, one.began_s + one.seconds) for one in marked]
    parts = [h("h2", "Course"), h("div", *_two(points, bands, "Whole run", plot.WIDE), class_="plots")]
    small = []
    for one in marked:
        mine = [point for point in points if one.began_s <= point.at_s <= one.began_s + one.seconds]
        if len(mine) >= 4:
            small += _two(mine, [plot.Band(*mark) for mark in one.marks], one.name, plot.NARROW)
    if small:
        parts += [h("h3", "Cases more closely"), h("div", *small, class_="plots small")]
    return join(*parts)


def _two(points: Sequence[plot.Point], bands: Sequence[plot.Band], title: str, width: float) -> list[Html]:
    one, two = h("span", class_="key"), h("span", class_="key two")
    # A narrow picture has no room for the names of its bands.
    shaded = f"; shaded: {', '.join(band.name for band in bands)}" if bands and width == plot.NARROW else ""
    keys = (h("span", one, "acknowledged", class_="whole"), " ", h("span", two, "archived", class_="whole"))
    first = h("figcaption", h("b", title), ": objects a second", *keys, shaded)
    second = h("figcaption", h("b", title), ": objects that waited in the box", shaded)
    return [
        h("figure", first, plot.throughput(points, bands, width)),
        h("figure", second, plot.backlog(points, bands, width)),
    ]


def _group(name: str, results: Sequence[Result]) -> Html:
    heads = ("case", "verdict", "took", "sent", "told safe", "archived", "answer p50 / p95", "delivery p50 / p95")
    columns = [h("th", text, class_="number" if place > 1 else None) for place, text in enumerate(heads)]
    mine = [one for one in results if one.group == name]
    table = h("table", h("thead", h("tr", *columns)), h("tbody", *map(_row, mine)), class_="cases")
    return join(h("h3", name), table, *(_urgent(one) for one in mine if one.urgent))


def _urgent(one: Result) -> Html:
    """How fast each emergency of a day passed, the slowest first."""
    heads = ("objects", "MB", "waited", "bare line", "times", "took", "line alone", "times", "in an outage")
    rows = []
    for study in sorted(one.urgent, key=lambda study: max(study.after_last, study.from_first), reverse=True):
        after = (f"{study.waited_s:.2f} s", f"{study.bare_s:.2f} s", f"{study.after_last:.2f}")
        whole = (f"{study.took_s:.2f} s", f"{study.alone_s:.2f} s", f"{study.from_first:.2f}")
        values = (study.objects, f"{study.length / 1e6:.1f}", *after, *whole, f"{study.outage_s:.1f} s")
        rows.append(h("tr", *map(_number, values)))
    note = (
        "Waited: from the scanner's last store to the archive's last object, against what the line needs for the "
        "study's bytes at its rate, and a round trip. Took: from the first store, against the line alone when it gets "
        "each object as the scanner stored it. Outages are taken out."
    )
    table = h("table", h("thead", h("tr", *(h("th", text, class_="number") for text in heads))), h("tbody", *rows))
    return join(h("h3", f"{one.name}: studies of emergencies"), h("p", note), table)


def _row(one: Result) -> Html:
    word, kind = SIGN[one.outcome]
    others = " · ".join(_figure(key, value) for key, value in one.figures.items() if key not in USUAL)
    lines = [h("small", one.title)]
    broad = len(others) > BROAD
    if others and not broad:
        lines.append(h("small", others))
    if one.reason:
        lines.append(h("small", one.reason, class_=kind))
    if one.kept:
        lines.append(h("small", "kept in ", h("code", one.kept)))
    p50, p95, late50, late95 = (one.figures.get(key) for key in USUAL)
    row = h(
        "tr",
        h("th", one.name, *lines, scope="row"),
        h("td", h("span", word, class_=f"word {kind}")),
        _number(f"{one.seconds:.1f} s" if one.seconds < 1000 else duration(one.seconds)),
        *(_number(_many(value)) for value in (one.sums.sent, one.sums.acknowledged, one.sums.archived)),
        _number(_pair(p50, p95)),
        _number(_pair(late50, late95)),
        class_="begun" if broad else None,
    )
    return join(row, h("tr", h("td", h("small", others), colspan="8"))) if broad else row


def _figure(name: str, value: float | str) -> str:
    """`objects_per_s` and `drained_s` as a person reads them."""
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s').replace('_', ' ')} a second {value}"
    if name.endswith("_s"):
        return f"{name.removesuffix('_s').replace('_', ' ')} {value} s"
    if name.endswith("_mb"):
        return f"{name.removesuffix('_mb').replace('_', ' ')} {value} MB"
    return f"{name.replace('_', ' ')} {value}"


def _pair(first: object, second: object) -> str:
    if not isinstance(first, float) or not isinstance(second, float):
        return ""
    if second < 1:
        return f"{first * 1000:.0f} / {second * 1000:.0f} ms"
    return f"{_short(first)} / {_short(second)}"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else duration(seconds)


def _gallery(protocol: Protocol) -> Html:
    tiles = []
    for one in protocol.pictures:
        seen = (
            h("img", src=one.uri, alt=f"{one.about}: {one.kind}") if one.uri else h("div", "no pixels", class_="blank")
        )
        words = (h("b", one.profile), " ", one.kind, h("br"), h("code", one.sha256[:16]))
        tiles.append(h("figure", seen, h("figcaption", *words)))
    if not tiles:
        return Html("")
    note = "The first object of each scanner, made again from the seed; the number is the beginning of its SHA-256."
    return join(h("h2", "What was sent"), h("p", note), h("div", *tiles, class_="gallery"))


def _method() -> Html:
    return join(
        h(
            "p",
            "Emulated scanners write down, outside the box, the SHA-256 of each data set that they send, and what they "
            "are answered. An emulated archive writes down the SHA-256 of each data set that comes. A case passes when "
            "its own demands are met, every object that a scanner was told is safe is with the archive byte for byte, "
            "and the archive has nothing under those UIDs that was not sent. Scanners and archive share no code with "
            "the gateway's reader, writer or reception. What a target cannot do is not applicable, with the reason, "
            "and counts as nothing.",
        ),
        h(
            "p",
            "No person was examined: names and images are made from the seed.",
        ),
    )


def _signatures() -> Html:
    def place(title: str) -> Html:
        lines = [join(h("span", name), h("i")) for name in ("Name", "Function", "Place, date")]
        return h("div", h("b", title), *lines, h("span", "Signature"), h("i", class_="tall"))

    return h(
        "section",
        h("h2", "Signatures"),
        h("div", place("Tested by"), place("Accepted by"), class_="signatures"),
        class_="sign",
    )
