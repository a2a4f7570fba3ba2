"""Colour correction: camera colours to display colours."""

from __future__ import annotations

from ..kernel import Node, Parameter, Site, Taps, Theta, total
from ..numeric import SQ
from ..pipeline.stage import Stage
from .channels import LINEAR, RGB

__all__ = ["CCM"]


class CCM(Stage):
    """``y_i = sum_j matrix[i, j] x_j + offset[i]``, full growth, one rounding.

    i : 3 x SQ(2, 14)   o : 3 x UQ(0, 16)   9 multipliers
    """

    i, o = RGB, LINEAR
    cotangent = SQ(4, 14)
    parameters = {  # noqa: RUF012
        "matrix": Parameter(
            9, SQ(4, 10), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), "row-major: output i, input j at 3 i + j"
        ),
        "offset": Parameter(3, SQ(2, 14), (0.0,), "added to r, g, b"),
    }

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        channels = self.i.names
        return {
            out: total([x[c] * theta["matrix", 3 * i + j] for j, c in enumerate(channels)])
            + theta["offset", i]
            for i, out in enumerate(channels)
        }
