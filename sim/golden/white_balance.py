"""White balance: ``y = cut(gain[c] x)``, c the colour of the site.

x : SQ(1, 16)   gain : 4 x UQ(4, 10)   y : SQ(2, 14)
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ, UQ

from .cfa import colours, sum_by_colour
from .stage import Frame, Parameter, Stage, Theta, channels

__all__ = ["WhiteBalance"]


class WhiteBalance(Stage):
    """``y = gain[c] x``; ``xbar = gain[c] ybar``; ``gainbar[c] = sum of x ybar`` over the sites of c."""

    name = "white_balance"
    i = channels(cfa=SQ(1, 16))
    o = channels(cfa=SQ(2, 14))
    f = 26
    cotangent_i = SQ(5, 13)
    cotangent_o = SQ(4, 14)

    def __init__(self, *, clip: str = "disconnected"):
        super().__init__(clip=clip)
        self.parameters = {"gain": Parameter(entries=4, format=UQ(4, 10), default=(1 << 10,) * 4, f=30)}

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        return theta["gain"][colours(x.shape, frame.cfa)] * x

    def pullback(self, x, theta, frame, a):
        colour = colours(x.shape, frame.cfa)
        return theta["gain"][colour] * a, {"gain": sum_by_colour((a * x)[..., 0, :, :], colour)}

    def pushforward(self, x, theta, frame, v, dtheta):
        colour = colours(x.shape, frame.cfa)
        return theta["gain"][colour] * v + dtheta["gain"][colour] * x
