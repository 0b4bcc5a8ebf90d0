"""What a C-STORE status word means for us: one table (PS3.4 B.2.3, PS3.7 Annex C). Nobody else reads status words."""

from __future__ import annotations

from gateway.model.verdict import Blame, Outcome, Verdict

A, D, R = Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.REFUSED

STATUS: dict[int, tuple[Outcome, Blame | None, str]] = {
    0x0000: (A, None, "stored"),
    0x0001: (A, None, "stored; optional attributes are not supported"),
    0x0107: (A, None, "stored; attribute list warning"),
    0x0111: (A, None, "the archive has this instance already"),
    0x0116: (A, None, "stored; attribute value out of range"),
    0xB000: (A, None, "stored; elements were coerced"),
    0xB006: (A, None, "stored; elements were discarded"),
    0xB007: (A, None, "stored; data set does not match SOP class"),
    0x0105: (R, Blame.INSTANCE, "no such attribute"),
    0x0106: (R, Blame.INSTANCE, "invalid attribute value"),
    0x0110: (D, Blame.INSTANCE, "processing failure at the archive"),
    0x0112: (D, Blame.INSTANCE, "no such SOP instance"),
    0x0117: (R, Blame.INSTANCE, "invalid SOP instance"),
    0x0118: (R, Blame.INSTANCE, "no such SOP class"),
    0x0122: (R, Blame.INSTANCE, "the archive does not support this SOP class"),
    0x0124: (D, Blame.DESTINATION, "the archive does not authorise us"),
    0x0210: (D, Blame.DESTINATION, "duplicate invocation"),
    0x0211: (D, Blame.DESTINATION, "the archive does not recognise C-STORE"),
    0x0212: (R, Blame.INSTANCE, "mistyped argument"),
    0x0213: (D, Blame.DESTINATION, "the archive has resource limits"),
}
RANGES: tuple[tuple[int, int, tuple[Outcome, Blame | None, str]], ...] = (
    (0xA700, 0xA7FF, (D, Blame.DESTINATION, "the archive is out of resources")),
    (0xA800, 0xA8FF, (R, Blame.INSTANCE, "SOP class not supported")),
    (0xA900, 0xA9FF, (R, Blame.INSTANCE, "data set does not match SOP class")),
    (0xB000, 0xBFFF, (A, None, "stored with a warning")),
    (0xC000, 0xCFFF, (R, Blame.INSTANCE, "the archive cannot understand the instance")),
)
UNKNOWN = (D, Blame.INSTANCE, "a status that the standard does not know")


def verdict_of(status: int, comment: str = "") -> Verdict:
    """Return what a C-STORE response means; `comment` is the peer's Error Comment, kept out of the verdict's text.

    An error comment may hold patient data, so it is shown only as its length.
    """
    found = STATUS.get(status) or next((entry for low, high, entry in RANGES if low <= status <= high), UNKNOWN)
    outcome, blame, text = found
    if outcome is not Outcome.ACCEPTED:
        text = f"{text} (0x{status:04X}{', with a comment' if comment else ''})"
    return Verdict(outcome, blame, status, text)
