"""Black level: the sensor's offset, one per CFA colour."""

from __future__ import annotations

from ..kernel import Node, Parameter, Site, Taps, Theta, select
from ..numeric import SQ, UQ
from ..pipeline.stage import Stage
from .channels import OFFSET_FREE, RAW

__all__ = ["BlackLevel"]


class BlackLevel(Stage):
    """``y = x - black[c]``, c the CFA colour of the site; values below black stay, negative.

    i : UQ(0, 16)   o : SQ(1, 16), never clips   no multiplier
    """

    i, o = RAW, OFFSET_FREE
    cotangent = SQ(5, 13)
    parameters = {  # noqa: RUF012  (read-only by contract of Stage)
        "black": Parameter(4, UQ(0, 16), (0.0,), "offset per CFA colour R, Gr, Gb, B; full scale is 1"),
    }

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        black = select(site.colour, [theta["black", colour] for colour in range(4)])
        return {"cfa": x.cfa - black}
