"""White balance: one gain per CFA colour."""

from __future__ import annotations

from ..kernel import Node, Parameter, Site, Taps, Theta, select
from ..numeric import SQ, UQ
from ..pipeline.stage import Stage
from .channels import MOSAIC, OFFSET_FREE

__all__ = ["WhiteBalance"]


class WhiteBalance(Stage):
    """``y = gain[c] x``, c the CFA colour of the site.

    i : SQ(1, 16)   o : SQ(2, 14)   one multiplier
    """

    i, o = OFFSET_FREE, MOSAIC
    cotangent = SQ(5, 13)
    parameters = {  # noqa: RUF012
        "gain": Parameter(4, UQ(4, 10), (1.0,), "gain per CFA colour R, Gr, Gb, B"),
    }

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        gain = select(site.colour, [theta["gain", colour] for colour in range(4)])
        return {"cfa": x.cfa * gain}
