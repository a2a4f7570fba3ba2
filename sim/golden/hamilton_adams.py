"""Hamilton-Adams demosaicking in two stages: green along the smoother direction, then red and blue through
colour differences.

Source: J. E. Adams and J. F. Hamilton, US 5,652,621 (1997, expired); the plain difference form.
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ

from .bilinear import COLUMN, DIAGONAL, ROW
from .border import Scatter, Window
from .cfa import by_colour, colours
from .stage import Frame, Stage, Theta, channels

__all__ = ["HamiltonAdamsChroma", "HamiltonAdamsGreen"]


class HamiltonAdamsGreen(Stage):
    """Green at every site. x : SQ(2, 14), channel cfa   y : SQ(2, 14), channels cfa (unchanged) and g.

    At R and B sites, with C the site and N, NN, S, SS, W, WW, E, EE its neighbours at distance 1 and 2:

    ``dh = |W - E| + |2C - WW - EE|``, ``dv = |N - S| + |2C - NN - SS|``,
    ``gh = (W + E)/2 + (2C - WW - EE)/4``, ``gv = (N + S)/2 + (2C - NN - SS)/4``,
    ``g = gh if dh < dv, gv if dv < dh, (gh + gv)/2 at a tie``. At green sites ``g = C``.

    The choice has the derivative of the branch taken; dh and dv only choose.
    """

    name = "hamilton_adams_green"
    i = channels(cfa=SQ(2, 14))
    o = channels(cfa=SQ(2, 14), g=SQ(2, 14))
    f = 17
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(4, 14)

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        return self._blend(x, self._weights(x, frame), frame)

    def pullback(self, x, theta, frame, a):
        own, row, column = self._weights(x, frame)
        g = a[..., 1, :, :]
        h, v = row * g, column * g
        scatter = Scatter(g.shape, a.dtype, 2, frame.border)
        scatter.add(0, 0, 8 * a[..., 0, :, :] + own * g + 2 * h + 2 * v)
        for sign in (-1, 1):
            scatter.add(0, sign, 2 * h)
            scatter.add(0, 2 * sign, -h)
            scatter.add(sign, 0, 2 * v)
            scatter.add(2 * sign, 0, -v)
        return scatter.total()[..., None, :, :], {}

    def pushforward(self, x, theta, frame, v, dtheta):
        return self._blend(v, self._weights(x, frame), frame)

    def through(self, x: np.ndarray) -> np.ndarray:
        """Bypassed: ``g = cfa``."""
        return np.repeat(x << 3, 2, -3)

    def through_transpose(self, a: np.ndarray) -> np.ndarray:
        return a.sum(-3, keepdims=True) << 3

    def _weights(self, x, frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eighths of ``C``, halves of ``gh`` and of ``gv`` in green: (8, 0, 0) at green sites, elsewhere
        (0, 2, 0), (0, 0, 2) or, at a tie, (0, 1, 1)."""
        colour = colours(x.shape, frame.cfa)
        tap = Window(x[..., 0, :, :], 2, frame.border)
        dh = abs(tap(0, -1) - tap(0, 1)) + abs(2 * tap(0, 0) - tap(0, -2) - tap(0, 2))
        dv = abs(tap(-1, 0) - tap(1, 0)) + abs(2 * tap(0, 0) - tap(-2, 0) - tap(2, 0))
        green = (colour == 1) | (colour == 2)
        row = np.where(green, 0, np.where(dh < dv, 2, np.where(dv < dh, 0, 1)))
        return np.where(green, 8, 0), row, np.where(green, 0, 2 - row)

    def _blend(self, x, weights, frame) -> np.ndarray:
        """The value for given weights: linear in x."""
        own, row, column = weights
        tap = Window(x[..., 0, :, :], 2, frame.border)
        gh_quarters = 2 * (tap(0, -1) + tap(0, 1)) + 2 * tap(0, 0) - tap(0, -2) - tap(0, 2)
        gv_quarters = 2 * (tap(-1, 0) + tap(1, 0)) + 2 * tap(0, 0) - tap(-2, 0) - tap(2, 0)
        return np.stack([8 * tap(0, 0), own * tap(0, 0) + row * gh_quarters + column * gv_quarters], -3)


class HamiltonAdamsChroma(Stage):
    """Red and blue from colour differences. x : SQ(2, 14), channels cfa, g   y : SQ(2, 14), channels r, g, b.

    With ``d = cfa - g`` at every tap:

    ====  ===========================  =====  ===========================
    site  r                            g      b
    ====  ===========================  =====  ===========================
    R     cfa                          g      g + (dNW+dNE+dSW+dSE)/4
    Gr    g + (dW + dE)/2              g      g + (dN + dS)/2
    Gb    g + (dN + dS)/2              g      g + (dW + dE)/2
    B     g + (dNW+dNE+dSW+dSE)/4      g      cfa
    ====  ===========================  =====  ===========================

    Linear without parameters, so the tangent map is the map itself.
    """

    name = "hamilton_adams_chroma"
    i = channels(cfa=SQ(2, 14), g=SQ(2, 14))
    o = channels(r=SQ(2, 14), g=SQ(2, 14), b=SQ(2, 14))
    f = 16
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(4, 14)

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        colour = colours(x.shape, frame.cfa)
        cfa, g = x[..., 0, :, :], x[..., 1, :, :]
        d = Window(cfa - g, 1, frame.border)
        row, column, diagonal = (
            4 * g + weight * d.sum(taps) for weight, taps in ((2, ROW), (2, COLUMN), (1, DIAGONAL))
        )
        return np.stack(
            [
                by_colour(colour, 4 * cfa, row, column, diagonal),
                4 * g,
                by_colour(colour, diagonal, column, row, 4 * cfa),
            ],
            -3,
        )

    def pullback(self, x, theta, frame, a):
        colour = colours(x.shape, frame.cfa)
        r, g, b = (a[..., k, :, :] for k in range(3))
        differences = Scatter(g.shape, a.dtype, 1, frame.border)
        for taps, cotangent in (
            (ROW, 2 * by_colour(colour, 0, r, b, 0)),
            (COLUMN, 2 * by_colour(colour, 0, b, r, 0)),
            (DIAGONAL, by_colour(colour, b, 0, 0, r)),
        ):
            for tap in taps:
                differences.add(*tap, cotangent)
        d = differences.total()
        own = by_colour(colour, r, 0, 0, b)
        # g enters directly wherever a channel is not the site's own, and with -1 through d.
        return np.stack([4 * own + d, 4 * (r + g + b - own) - d], -3), {}

    def pushforward(self, x, theta, frame, v, dtheta):
        return self.value(v, theta, frame)

    def through(self, x: np.ndarray) -> np.ndarray:
        """Bypassed: ``r = g = b = cfa``."""
        return np.repeat(x[..., :1, :, :] << 2, 3, -3)

    def through_transpose(self, a: np.ndarray) -> np.ndarray:
        cfa = a.sum(-3, keepdims=True) << 2
        return np.concatenate([cfa, np.zeros_like(cfa)], -3)
