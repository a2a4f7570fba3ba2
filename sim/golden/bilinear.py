"""Bilinear demosaicking: a missing colour is the mean of its nearest sites.

x : SQ(2, 14), channel cfa   y : SQ(2, 14), channels r, g, b; one cut of an exact sum of quarters

======  ==================  ==================  ==================
site    r                   g                   b
======  ==================  ==================  ==================
R       x                   (N + S + W + E)/4   (NW + NE + SW + SE)/4
Gr      (W + E)/2           x                   (N + S)/2
Gb      (N + S)/2           x                   (W + E)/2
B       (NW+NE+SW+SE)/4     (N + S + W + E)/4   x
======  ==================  ==================  ==================
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ

from .border import Scatter, Window
from .cfa import by_colour, colours
from .stage import Frame, Stage, Theta, channels

__all__ = ["Bilinear"]

ROW = ((0, -1), (0, 1))
COLUMN = ((-1, 0), (1, 0))
CROSS = ROW + COLUMN
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))


class Bilinear(Stage):
    """See the module. Linear without parameters, so the tangent map is the map itself."""

    name = "bilinear"
    i = channels(cfa=SQ(2, 14))
    o = channels(r=SQ(2, 14), g=SQ(2, 14), b=SQ(2, 14))
    f = 16
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(4, 14)

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        colour = colours(x.shape, frame.cfa)
        window = Window(x[..., 0, :, :], 1, frame.border)
        own = 4 * window(0, 0)
        row, column, diagonal = (window.sum(taps) for taps in (ROW, COLUMN, DIAGONAL))
        cross = row + column
        return np.stack(
            [
                by_colour(colour, own, 2 * row, 2 * column, diagonal),
                by_colour(colour, cross, own, own, cross),
                by_colour(colour, diagonal, 2 * column, 2 * row, own),
            ],
            -3,
        )

    def pullback(self, x, theta, frame, a):
        colour = colours(x.shape, frame.cfa)
        r, g, b = (a[..., k, :, :] for k in range(3))
        # Which channel's cotangent each mean receives, by the colour of the site that made the output.
        means = (
            (((0, 0),), 4 * by_colour(colour, r, g, g, b)),
            (ROW, 2 * by_colour(colour, 0, r, b, 0)),
            (COLUMN, 2 * by_colour(colour, 0, b, r, 0)),
            (CROSS, by_colour(colour, g, 0, 0, g)),
            (DIAGONAL, by_colour(colour, b, 0, 0, r)),
        )
        scatter = Scatter(r.shape, a.dtype, 1, frame.border)
        for taps, cotangent in means:
            for tap in taps:
                scatter.add(*tap, cotangent)
        return scatter.total()[..., None, :, :], {}

    def pushforward(self, x, theta, frame, v, dtheta):
        return self.value(v, theta, frame)

    def through(self, x: np.ndarray) -> np.ndarray:
        """Bypassed: ``r = g = b = cfa``."""
        return np.repeat(x << 2, 3, -3)

    def through_transpose(self, a: np.ndarray) -> np.ndarray:
        return a.sum(-3, keepdims=True) << 2
