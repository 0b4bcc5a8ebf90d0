"""The table in README.md: which profile and which mistake was last played in which case, against what, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.emulator.profile import names, quirks
from tests.hil.suite import Protocol
from tests.hil.verdict import Outcome

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- coverage: written by `make hil RECORD=1` -->", "<!-- end of coverage -->"
STORED, LAST = "stored and forwarded", "last run"
LEGEND = (
    "✔ passed, ✖ failed, – not applicable; P a process, Q the image in QEMU, B a box; a small letter: the short form."
)
Cells = dict[tuple[str, str], str]
"""Row and column -> what was last run there."""


def read(text: str) -> Cells:
    """Return the cells of every table between the marks."""
    found: Cells = {}
    heads: list[str] = []
    for line in text.partition(BEGIN)[2].partition(END)[0].splitlines():
        columns = [one.strip() for one in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = columns
        elif not columns[0].startswith("--"):
            found |= {(columns[0], head): cell for head, cell in zip(heads[1:], columns[1:], strict=True) if cell}
    return found


def updated(cells: Cells, protocol: Protocol) -> Cells:
    """Return the cells with what this run played."""
    day = f"{datetime.fromtimestamp(protocol.began_at, UTC):%Y-%m-%d}"
    letter = protocol.kind[0].upper() if protocol.form == "full" else protocol.kind[0]
    fresh = dict(cells)
    for one in protocol.results:
        if one.outcome is Outcome.NOT_APPLICABLE:
            fresh.setdefault(_place(one.name, LAST), "–")
            continue
        sign = "✔" if one.outcome is Outcome.PASSED else "✖"
        for profile in one.profiles:
            fresh[_place(one.name, profile)] = f"{sign}{letter}"
        fresh[_place(one.name, LAST)] = day
    return fresh


def _place(case: str, profile: str) -> tuple[str, str]:
    if case.startswith("quirk-"):
        return case.removeprefix("quirk-"), LAST if profile == LAST else "played"
    return profile, STORED if case.startswith("profile-") else case


def tables(cells: Mapping[tuple[str, str], str]) -> str:
    """Return both tables in Markdown."""
    others = sorted({column for _, column in cells if column not in ("played", LAST, STORED)})
    profiles = _table("profile", [*names(), LAST], [STORED, *others], cells)
    return f"{LEGEND}\n\n{profiles}\n\n{_table('mistake', list(quirks()), ['played', LAST], cells)}"


def _table(name: str, rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], str]) -> str:
    lines = [f"| {name} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row} | {' | '.join(cells.get((row, column), '') for column in columns)} |")
    return "\n".join(lines)


def record(protocol: Protocol, path: Path = README) -> None:
    """Write what this run played into the marked section of a file."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{tables(updated(read(text), protocol))}\n{END}{after}", encoding="utf-8")
