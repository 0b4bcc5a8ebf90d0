"""Transfer Syntax facts (PS3.5 Annex A, PS3.6 Annex A), as a table."""

from __future__ import annotations

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})
"""Pixel data is uncompressed: any of these can be turned into any other without touching a pixel's value."""

LOSSLESS = frozenset(
    {
        RLE_LOSSLESS,
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS_LOSSLESS,
        JPEG_2000_LOSSLESS,
        HTJ2K_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
    }
)
"""Encapsulated, by a syntax that cannot hold anything lossy: decoding to native loses nothing."""

LOSSY_METHODS = {
    JPEG_BASELINE: "ISO_10918_1",
    JPEG_EXTENDED: "ISO_10918_1",
    JPEG_LS_NEAR_LOSSLESS: "ISO_14495_1",
    JPEG_2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
"""Encapsulated images, by a syntax that may hold what lost something already; with their Defined Term for Lossy Image
Compression Method (PS3.3 C.7.6.1.1.5.1). No video is here: it is never decoded."""

COMPRESSION = {
    "jpeg-ls": JPEG_LS_LOSSLESS,
    "jpeg-2000": JPEG_2000_LOSSLESS,
    "rle": RLE_LOSSLESS,
    "htj2k": HTJ2K_LOSSLESS,
    "deflated": DEFLATED_LE,
}
"""By the name in the configuration and in reports."""

VERIFICATION_SOP_CLASS = "1.2.840.10008.1.1"


def is_implicit(transfer_syntax_uid: str) -> bool:
    """True for Implicit VR (PS3.5 A.1); every other syntax, known or private, is taken for Explicit VR."""
    return transfer_syntax_uid == IMPLICIT_LE


def is_big_endian(transfer_syntax_uid: str) -> bool:
    """True for the retired Explicit VR Big Endian syntax."""
    return transfer_syntax_uid == EXPLICIT_BE
