"""Whether to compress for a line, and how: what gets the most native bytes through in a second. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.model.transfer_syntax import JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS

WORTH = 1.1
"""A codec must promise so much more than the bare line: below it the work is not worth its heat."""
WEIGHT = 0.2
"""Of the newest measurement in a running mean: some five objects back still count."""


@dataclass(frozen=True, slots=True)
class CodecRate:
    """What one worker does with one codec."""

    ratio: float
    """Native bytes for each coded byte."""
    bytes_per_s: float
    """Native bytes encoded and proven in a second."""

    def after(self, native: int, coded: int, seconds: float) -> CodecRate:
        """Return the rate with one more measurement in it."""
        if native <= 0 or coded <= 0 or seconds <= 0:
            return self
        return CodecRate(
            self.ratio + WEIGHT * (native / coded - self.ratio),
            self.bytes_per_s + WEIGHT * (native / seconds - self.bytes_per_s),
        )


FIRST_GUESS: Mapping[str, CodecRate] = {
    JPEG_LS_LOSSLESS: CodecRate(2.6, 30e6),
    JPEG_2000_LOSSLESS: CodecRate(2.6, 5e6),
    RLE_LOSSLESS: CodecRate(1.7, 40e6),
}
"""CT on one core of a small industrial PC; measured rates replace it object by object."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A Transfer Syntax, or None: as it came; and why, for a person."""

    transfer_syntax_uid: str | None
    why: str


def choose(link_bytes_per_s: float | None, rates: Mapping[str, CodecRate], workers: int) -> Choice:
    """Return what gets most through: the line alone, or the slower of the workers and the line behind a codec.

    Until the line has been measured (`link_bytes_per_s` None) nothing is coded.
    """
    if link_bytes_per_s is None:
        return Choice(None, "the line is not measured yet")
    through = {syntax: min(rate.bytes_per_s * workers, rate.ratio * link_bytes_per_s) for syntax, rate in rates.items()}
    line = f"line {link_bytes_per_s / 1e6:.1f} MB/s"
    best = max(through, key=lambda syntax: through[syntax], default=None)
    if best is None or through[best] <= WORTH * link_bytes_per_s:
        return Choice(None, f"{line} is as fast as any codec")
    return Choice(best, f"{line}, {through[best] / 1e6:.1f} MB/s of pixels with it")
