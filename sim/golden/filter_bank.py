"""Filter-bank demosaicking: eight 5x5 filters whose coefficients are parameters.

x : SQ(2, 14), channel cfa   coefficient : 72 x SQ(2, 12)   y : SQ(2, 14), channels r, g, b

The site's own colour passes. Missing channel m (0, 1, in the order r, g, b) at a site of colour c is

    ``y = cut( sum_k coefficient[(2c + m) 9 + k] fold_k )``, ``k = 3 |dy| + |dx|``,

with ``fold_k`` the sum of the 1, 2 or 4 taps at ``(+-dy, +-dx)``: each filter is four-fold symmetric.
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ

from .border import Scatter, Window
from .cfa import by_colour, colours, sum_by_colour
from .stage import Frame, Parameter, Stage, Theta, channels

__all__ = ["FOLDS", "FilterBank"]

FOLDS = tuple(
    tuple((y, x) for y in sorted({-dy, dy}) for x in sorted({-dx, dx})) for dy in range(3) for dx in range(3)
)
"""The taps of each fold, k = 3 |dy| + |dx|."""


def _bilinear() -> tuple[int, ...]:
    """Coefficients (f = 12) for which the bank is bilinear interpolation."""
    row, column, cross, diagonal = {1: 2048}, {3: 2048}, {1: 1024, 3: 1024}, {4: 1024}
    filters = (cross, diagonal, row, column, column, row, diagonal, cross)
    return tuple(taps.get(k, 0) for taps in filters for k in range(9))


class FilterBank(Stage):
    """See the module. Bilinear in (coefficient, x): the cotangent carries the coefficient of *its own* site
    back to the taps, and ``coefficientbar = sum of ybar fold_k over the sites of colour c``."""

    name = "filter_bank"
    i = channels(cfa=SQ(2, 14))
    o = channels(r=SQ(2, 14), g=SQ(2, 14), b=SQ(2, 14))
    f = 26
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(4, 14)

    def __init__(self, *, clip: str = "disconnected"):
        super().__init__(clip=clip)
        self.parameters = {"coefficient": Parameter(entries=72, format=SQ(2, 12), default=_bilinear(), f=28)}

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        first, second = self._filter(x, theta["coefficient"], frame)
        return self._arrange(x[..., 0, :, :] << 12, first, second, frame)

    def pullback(self, x, theta, frame, a):
        colour = colours(x.shape, frame.cfa)
        r, g, b = (a[..., k, :, :] for k in range(3))
        # The inverse of _arrange: the cotangents of the site's own channel and of its two missing ones.
        own = by_colour(colour, r, g, g, b)
        missing = by_colour(colour, g, r, r, r), by_colour(colour, b, b, b, g)
        bank = self._sites(theta["coefficient"], colour)
        window = Window(x[..., 0, :, :], 2, frame.border)
        scatter = Scatter(g.shape, a.dtype, 2, frame.border)
        scatter.add(0, 0, own << 12)
        coefficientbar = np.zeros((*a.shape[:-3], 4, 2, 9), a.dtype)
        for k, taps in enumerate(FOLDS):
            fold = window.sum(taps)
            foldbar = bank[0, k] * missing[0] + bank[1, k] * missing[1]
            for tap in taps:
                scatter.add(*tap, foldbar)
            for m in range(2):
                coefficientbar[..., m, k] = sum_by_colour(missing[m] * fold, colour)
        return scatter.total()[..., None, :, :], {
            "coefficient": coefficientbar.reshape(*coefficientbar.shape[:-3], 72)
        }

    def pushforward(self, x, theta, frame, v, dtheta):
        through_x = self._filter(v, theta["coefficient"], frame)
        through_theta = self._filter(x, dtheta["coefficient"], frame)
        first, second = (p + q for p, q in zip(through_x, through_theta, strict=True))
        return self._arrange(v[..., 0, :, :] << 12, first, second, frame)

    def through(self, x: np.ndarray) -> np.ndarray:
        """Bypassed: ``r = g = b = cfa``."""
        return np.repeat(x << 12, 3, -3)

    def through_transpose(self, a: np.ndarray) -> np.ndarray:
        return a.sum(-3, keepdims=True) << 12

    @staticmethod
    def _sites(coefficient: np.ndarray, colour: np.ndarray) -> np.ndarray:
        """``[2, 9, H, W]``: the coefficients that hold at each site."""
        return np.moveaxis(coefficient.reshape(4, 2, 9)[colour], (-2, -1), (0, 1))

    def _filter(self, x: np.ndarray, coefficient: np.ndarray, frame: Frame) -> list[np.ndarray]:
        """Both missing channels at every site."""
        bank = self._sites(coefficient, colours(x.shape, frame.cfa))
        window = Window(x[..., 0, :, :], 2, frame.border)
        out = [np.zeros((), x.dtype)] * 2
        for k, taps in enumerate(FOLDS):
            fold = window.sum(taps)
            out = [out[m] + bank[m, k] * fold for m in range(2)]
        return out

    def _arrange(self, own: np.ndarray, first: np.ndarray, second: np.ndarray, frame: Frame) -> np.ndarray:
        """Own, first and second missing channel -> r, g, b."""
        colour = colours(own.shape, frame.cfa)
        return np.stack(
            [
                by_colour(colour, own, first, first, first),
                by_colour(colour, first, own, own, second),
                by_colour(colour, second, second, second, own),
            ],
            -3,
        )
