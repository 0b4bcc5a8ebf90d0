"""The lossless codecs, one row each: a frame of native samples to a code stream, and back.

A frame is little endian and colour-by-pixel, all allocated bits. Every codec is told that all of them are stored, so
that overlay and sign bits above Bits Stored survive. What its library cannot say exactly raises, and the original goes.
The libraries are imported when they are called: only workers pay for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.model.transfer_syntax import HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """The Image Pixel attributes that a codec needs (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    """Samples per Pixel."""
    bits: int
    """Bits Allocated: what is coded, whatever Bits Stored says."""
    signed: bool
    by_plane: bool
    """Planar Configuration 1 (C.7.6.3.1.3)."""
    frames: int
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Length of one native frame."""
        return self.rows * self.columns * self.samples * (self.bits // 8)


Code = Callable[[bytes, PixelFacts], bytes]


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to code a frame."""

    encode: Code
    decode: Code


def _to_planes(frame: bytes, facts: PixelFacts) -> bytes:
    """Colour-by-pixel to colour-by-plane."""
    import numpy as np

    return np.frombuffer(frame, f"<u{facts.bits // 8}").reshape(-1, facts.samples).T.tobytes()


def to_pixels(frame: bytes, facts: PixelFacts) -> bytes:
    """Colour-by-plane to colour-by-pixel."""
    import numpy as np

    return np.frombuffer(frame, f"<u{facts.bits // 8}").reshape(facts.samples, -1).T.tobytes()


def _jpeg_ls_encode(frame: bytes, facts: PixelFacts) -> bytes:
    import jpeg_ls

    return bytes(
        jpeg_ls.encode_pixel_data(
            frame,
            rows=facts.rows,
            columns=facts.columns,
            samples_per_pixel=facts.samples,
            bits_stored=facts.bits,
            planar_configuration=0,
        )
    )


def _jpeg_ls_decode(stream: bytes, facts: PixelFacts) -> bytes:
    import jpeg_ls

    return bytes(jpeg_ls.decode_pixel_data(stream)[0])


def _jpeg_2000_encode(frame: bytes, facts: PixelFacts) -> bytes:
    import openjpeg

    return bytes(
        openjpeg.encode_pixel_data(
            frame,
            rows=facts.rows,
            columns=facts.columns,
            samples_per_pixel=facts.samples,
            bits_stored=facts.bits,
            pixel_representation=int(facts.signed),
            photometric_interpretation=facts.photometric,
            use_mct=False,  # with it Photometric Interpretation would have to say YBR_RCT (PS3.5 8.2.4)
        )
    )


def _jpeg_2000_decode(stream: bytes, facts: PixelFacts) -> bytes:
    import openjpeg

    return bytes(openjpeg.decode_pixel_data(stream, version=2))


def _rle_encode(frame: bytes, facts: PixelFacts) -> bytes:
    import rle

    return bytes(
        rle.encode_pixel_data(
            frame,
            rows=facts.rows,
            columns=facts.columns,
            samples_per_pixel=facts.samples,
            bits_allocated=facts.bits,
            byteorder="<",
        )
    )


def _rle_decode(stream: bytes, facts: PixelFacts) -> bytes:
    import rle

    planes = bytes(
        rle.decode_pixel_data(stream, version=2, rows=facts.rows, columns=facts.columns, bits_allocated=facts.bits)
    )
    return to_pixels(planes, facts) if facts.samples > 1 else planes


def _array(frame: bytes, facts: PixelFacts) -> object:
    import numpy as np

    shape = (facts.rows, facts.columns) + ((facts.samples,) if facts.samples > 1 else ())
    return np.frombuffer(frame, f"<{'i' if facts.signed else 'u'}{facts.bits // 8}").reshape(shape)


def _htj2k_encode(frame: bytes, facts: PixelFacts) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(_array(frame, facts), reversible=True, rgb=False, planar=False))


def _htj2k_decode(stream: bytes, facts: PixelFacts) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_decode(stream).tobytes())


CODECS: dict[str, Codec] = {
    JPEG_LS_LOSSLESS: Codec(_jpeg_ls_encode, _jpeg_ls_decode),
    JPEG_2000_LOSSLESS: Codec(_jpeg_2000_encode, _jpeg_2000_decode),
    RLE_LOSSLESS: Codec(_rle_encode, _rle_decode),
    HTJ2K_LOSSLESS: Codec(_htj2k_encode, _htj2k_decode),
}
"""By Transfer Syntax UID. HTJ2K needs the extra `htj2k`."""
