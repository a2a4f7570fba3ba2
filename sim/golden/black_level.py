"""Black level: ``y = x - black[c]``, c the colour of the site.

x : UQ(0, 16)   black : 4 x UQ(0, 16)   y : SQ(1, 16), which never clips: values below black stay negative, so
that noise around black keeps its mean and its gradient.
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ, UQ

from .cfa import colours, sum_by_colour
from .stage import Frame, Parameter, Stage, Theta, channels

__all__ = ["BlackLevel"]


class BlackLevel(Stage):
    """``y = x - black[c]``; ``xbar = ybar``; ``blackbar[c] = -sum of ybar over the sites of colour c``."""

    name = "black_level"
    i = channels(cfa=UQ(0, 16))
    o = channels(cfa=SQ(1, 16))
    f = 16
    cotangent_i = SQ(5, 13)
    cotangent_o = SQ(5, 13)

    def __init__(self, *, clip: str = "disconnected"):
        super().__init__(clip=clip)
        self.parameters = {"black": Parameter(entries=4, format=UQ(0, 16), default=(0,) * 4, f=13)}

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        return x - theta["black"][colours(x.shape, frame.cfa)]

    def pullback(self, x, theta, frame, a):
        colour = colours(x.shape, frame.cfa)
        return a, {"black": -sum_by_colour(a[..., 0, :, :], colour)}

    def pushforward(self, x, theta, frame, v, dtheta):
        return v - dtheta["black"][colours(x.shape, frame.cfa)]
