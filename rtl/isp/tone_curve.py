"""Tone curve: a piecewise linear curve of 65 knots in RAM, one for all channels or one each."""

from __future__ import annotations

from collections.abc import Mapping

from ..kernel import Node, Parameter, Site, Taps, Theta, segment
from ..numeric import SQ, UQ
from ..pipeline.stage import Stage
from .channels import LINEAR, PICTURE

__all__ = ["SEGMENTS", "ToneCurve"]

SEGMENTS = 64
"""Segments of the curve; it has one knot more."""


class ToneCurve(Stage):
    """``y = K[s] + (K[s+1] - K[s]) t`` with ``64 x = s + t``, s whole and t in [0, 1).

    Parameters
    ----------
    per_channel : bool
        A curve for each of r, g, b instead of one for all.

    i : 3 x UQ(0, 16)   o : 3 x UQ(0, 12)   3 multipliers, 6 RAMs
    """

    i, o = LINEAR, PICTURE
    cotangent = SQ(4, 14)

    def __init__(self, *, per_channel: bool = False) -> None:
        self.per_channel = per_channel
        curves = 3 if per_channel else 1
        identity = tuple(k / SEGMENTS for k in range(SEGMENTS + 1))
        self.parameters: Mapping[str, Parameter] = {
            "knots": Parameter(
                curves * (SEGMENTS + 1),
                UQ(1, 15),
                identity * curves,
                "value of the curve at k/64" + (", channel by channel" if per_channel else ""),
                table=SEGMENTS + 1,
            ),
        }

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        out = {}
        for k, channel in enumerate(self.i.names):
            s, t = segment(x[channel], SEGMENTS)
            low, high = theta.knots("knots", k if self.per_channel else 0, s)
            out[channel] = low + (high - low) * t
        return out
