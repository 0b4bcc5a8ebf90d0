"""Text burned in to the pixels, made black before the header is de-identified: afterwards nobody knows the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.config.deidentify import Blacken, DeidentifySettings
from gateway.model.transfer_syntax import EXPLICIT_LE
from gateway.prepare.blacken import areas, blacken
from gateway.prepare.edit import header_of
from gateway.prepare.recipe import Stage
from gateway.prepare.transcode import transcode


def rules_of(stages: Sequence[Stage]) -> list[Sequence[Blacken]]:
    """Return the rules of each table that asks for clean pixels."""
    return [
        stage.blacken
        for stage in stages
        if isinstance(stage, DeidentifySettings) and "clean-pixel-data" in stage.options
    ]


def blackened(
    path: Path, offset: int, transfer_syntax_uid: str, out: Path, rules: Sequence[Sequence[Blacken]]
) -> tuple[Path, int, str]:
    """Return where the data set is without what the rules name, its offset and Transfer Syntax.

    Where there is something to blacken it is written to `out`, decoded to Explicit VR Little Endian; else it stays
    where it is. Raises PrepareError when an image is not known to the rules or cannot be decoded, OSError.
    """
    header = header_of(path, offset, transfer_syntax_uid, out)
    rectangles = list(dict.fromkeys(area for some in rules for area in areas(header, some)))
    if not rectangles:
        return path, offset, transfer_syntax_uid
    plain = out.with_name(f"{out.name}.native")
    try:
        if transfer_syntax_uid != EXPLICIT_LE:
            transcode(path, offset, transfer_syntax_uid, EXPLICIT_LE, plain)
            path, offset = plain, 0
        with open(path, "rb") as source, open(out, "wb") as target:
            source.seek(offset)
            blacken(source, target, rectangles)
    finally:
        plain.unlink(missing_ok=True)
    return out, 0, EXPLICIT_LE
