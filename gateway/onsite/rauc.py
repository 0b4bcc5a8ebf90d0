"""Updates of an image by RAUC's command line: two slots, one in use, the other for what comes next.

RAUC does what must be right: signature, kind of box, what is written where, which slot starts next. Here its answers
become words. On a plain Debian there is none, and updates are packages.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.errors import GatewayError

SHORT_S, INSTALL_S = 60.0, 3600.0
SUFFIX = ".raucb"
NO_RAUC = "it is not our image: on Debian, apt install ./dicom-gateway_*.deb"
AGAIN = "copy it again, to another stick if that does not help"
CAUSES = {
    "signature": (
        "it is not signed by anybody whom this box trusts, or it was changed on the way",
        "take it from whoever made the image of this box, and copy it again",
    ),
    "compatible": ("it is made for another kind of box", "take the bundle that was made for this kind"),
    "minimum|version": ("it is older than this box allows", "take a newer one"),
    "no space": ("there is no room for it", "flash an image with larger slots"),
    "squashfs|verity": ("it is damaged", AGAIN),
    "reading from file": ("it cannot be read to its end: it is damaged, or what it lies on", AGAIN),
    "not found|no such file": ("there is no such file", "look at its name, and whether the stick is plugged in"),
    "already processing": ("another installation is under way", "wait until it has ended"),
}
"""What RAUC's own words (a pattern) mean for a person and what to do then; the first that fits, in this order."""


class UpdateError(GatewayError):
    """The update was not installed; the box goes on with what it runs."""

    hint = "try it once more; if it fails again, start the box again first"


@dataclass(frozen=True, slots=True)
class Slot:
    """One of two places for the system."""

    name: str
    bootname: str
    booted: bool
    good: bool
    """The boot loader would start it."""
    version: str | None
    """Of the bundle that it came from; None: from the factory image."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Both, and which starts next."""

    compatible: str
    slots: tuple[Slot, ...]
    next: str | None
    """Name of the slot that starts next."""

    @property
    def booted(self) -> Slot | None:
        return next((slot for slot in self.slots if slot.booted), None)

    @property
    def other(self) -> Slot | None:
        return next((slot for slot in self.slots if not slot.booted), None)


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["rauc", *words], capture_output=True, text=True, timeout=SHORT_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise UpdateError("this box has no RAUC", hint=NO_RAUC) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpdateError(f"rauc does not answer: {type(error).__name__}") from error


def _run(*words: str) -> str:
    done = _ask(*words)
    if done.returncode:
        raise UpdateError(f"rauc {words[0]} failed: {_last(done.stderr.splitlines())}")
    return done.stdout


def slots() -> Slots:
    """Return what RAUC knows; raises UpdateError."""
    text = _run("status", "--detailed", "--output-format=json")
    try:
        facts = json.loads(text)
        found = [_slot(name, row) for entry in facts["slots"] for name, row in entry.items() if row.get("bootname")]
        return Slots(str(facts["compatible"]), tuple(found), facts.get("boot_primary"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UpdateError("what rauc says of its slots cannot be understood") from error


def _slot(name: str, row: dict[str, Any]) -> Slot:
    bundle = (row.get("slot_status") or {}).get("bundle") or {}
    return Slot(
        name,
        str(row["bootname"]),
        row.get("state") == "booted",
        row.get("boot_status") == "good",
        bundle.get("version"),
    )


def bundle_version(bundle: str) -> str:
    """Return the version of a bundle whose signature is good; raises UpdateError."""
    done = _ask("info", "--output-format=json", bundle)
    if done.returncode:
        raise _refused(f"{bundle} is not taken", done.stderr.splitlines())
    try:
        return str(json.loads(done.stdout)["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UpdateError(f"{bundle} names no version") from error


def install(bundle: str, tell: Callable[[str], None]) -> None:
    """Write a bundle, a file or an https URL, to the other slot, which then starts next; raises UpdateError.

    `tell` hears RAUC's lines of progress.
    """
    try:
        process = subprocess.Popen(
            ["rauc", "install", bundle], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except FileNotFoundError as error:
        raise UpdateError("this box has no RAUC", hint=NO_RAUC) from error
    said: deque[str] = deque(maxlen=20)
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            said.append(line.strip())
            tell(line.strip())
    if process.returncode:
        raise _refused(f"{bundle} was not installed", list(said))


def mark(what: str, slot: str) -> None:
    """`good`, `bad` or `active`; `slot` may be "booted" and "other". Raises UpdateError."""
    _run("status", f"mark-{what}", slot)


def on_stick(folder: Path) -> Path:
    """Return the one bundle on a stick; raises UpdateError when there is none, or a choice."""
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UpdateError(f"a stick should hold one file *{SUFFIX}, there are: {names}", hint="name the bundle instead")
    return found[0]


def _refused(what: str, said: list[str]) -> UpdateError:
    # Its last error where it names one; else not what it was busy with: it begins with "20% Verifying signature".
    errors = [line for line in said if line.startswith("LastError: ")][-1:]
    lines = errors or [line for line in said if not re.match(r"\s*\d+%", line)]
    text = " ".join(lines).lower()
    meaning, remedy = next((told for words, told in CAUSES.items() if re.search(words, text)), (_last(lines), ""))
    return UpdateError(f"{what}: {meaning}", hint=remedy)


def _last(lines: list[str]) -> str:
    rows = [line.strip().removeprefix("LastError: ") for line in lines if line.strip()]
    return rows[-1][:300] if rows else "it said nothing"
