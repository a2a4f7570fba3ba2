"""Pixels that the ISP's stages pass on."""

from __future__ import annotations

from ..numeric import SQ, UQ
from ..stream.pixel import Pixel

__all__ = ["LINEAR", "MOSAIC", "OFFSET_FREE", "PICTURE", "RAW", "RGB"]

RAW = Pixel((("cfa", UQ(0, 16)),))
"""Sensor codes, left-aligned: full scale is 1."""

OFFSET_FREE = Pixel((("cfa", SQ(1, 16)),))
"""After the black level: signed, because noise below black carries gradient and has mean zero."""

MOSAIC = Pixel((("cfa", SQ(2, 14)),))
"""White-balanced mosaic: headroom of 2; four taps add up to 18 bits, one multiplier operand."""

RGB = Pixel((("r", SQ(2, 14)), ("g", SQ(2, 14)), ("b", SQ(2, 14))))
"""Demosaicked, camera colours."""

LINEAR = Pixel((("r", UQ(0, 16)), ("g", UQ(0, 16)), ("b", UQ(0, 16))))
"""Display colours, linear."""

PICTURE = Pixel((("r", UQ(0, 12)), ("g", UQ(0, 12)), ("b", UQ(0, 12))))
"""What is shown."""
