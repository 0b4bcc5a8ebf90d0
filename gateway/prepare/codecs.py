"""The lossless codecs, one row each: a frame of native samples to a code stream, and back.

A frame is little endian and colour-by-pixel, all allocated bits. Every codec is told that all of them are stored, so
that overlay and sign bits above Bits Stored survive. What its library cannot say exactly raises, and the original goes.
The libraries are imported when they are called: only workers pay for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.model.transfer_syntax import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    RLE_LOSSLESS,
)


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

    frame, said = jpeg_ls.decode_pixel_data(stream)
    if facts.samples > 1 and said["interleave_mode"] == 0:  # others write one scan for each component
        return to_pixels(bytes(frame), facts)
    return bytes(frame)


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


def _array(frame: bytes, facts: PixelFacts) -> Any:
    import numpy as np

    shape = (facts.rows, facts.columns) + ((facts.samples,) if facts.samples > 1 else ())
    return np.frombuffer(frame, f"<{'i' if facts.signed else 'u'}{facts.bits // 8}").reshape(shape)


def _htj2k_encode(frame: bytes, facts: PixelFacts) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(_array(frame, facts), reversible=True, rgb=False, planar=False))


def _jpeg_lossless_decode(stream: bytes, facts: PixelFacts) -> bytes:
    """The components as they are: to convert YCbCr would round."""
    import imagecodecs

    as_it_is = "GRAYSCALE" if facts.samples == 1 else "RGB"
    return bytes(imagecodecs.jpeg8_decode(stream, colorspace=as_it_is, outcolorspace=as_it_is).tobytes())


def _jpeg_decode(stream: bytes, facts: PixelFacts) -> bytes:
    """Photometric Interpretation says what the components are, and YCbCr comes back as RGB, as by DCMTK."""
    import imagecodecs

    if not facts.photometric.startswith("YBR"):
        return _jpeg_lossless_decode(stream, facts)
    return bytes(imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="RGB").tobytes())


CODECS: dict[str, Codec] = {
    JPEG_LS_LOSSLESS: Codec(_jpeg_ls_encode, _jpeg_ls_decode),
    JPEG_2000_LOSSLESS: Codec(_jpeg_2000_encode, _jpeg_2000_decode),
    RLE_LOSSLESS: Codec(_rle_encode, _rle_decode),
    # OpenJPH encodes and OpenJPEG decodes: the proof is another implementation's, and needs no extra.
    HTJ2K_LOSSLESS: Codec(_htj2k_encode, _jpeg_2000_decode),
}
"""By Transfer Syntax UID. To encode HTJ2K takes the extra `htj2k`."""

DECODERS: dict[str, Code] = {
    **{syntax: codec.decode for syntax, codec in CODECS.items()},
    JPEG_LS_NEAR_LOSSLESS: _jpeg_ls_decode,
    **dict.fromkeys((JPEG_2000, HTJ2K_LOSSLESS_RPCL, HTJ2K), _jpeg_2000_decode),
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED), _jpeg_decode),
    **dict.fromkeys((JPEG_LOSSLESS, JPEG_LOSSLESS_SV1), _jpeg_lossless_decode),
}
"""By Transfer Syntax UID. JPEG takes the extra `jpeg`."""
