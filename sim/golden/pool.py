"""Largest codes of windows, and cotangents sent back to where they stood.

With stride s, padding p and dilation d, i and j the taps of a window of h x w:

    Y[b, y, x, c] = max over i, j of X[b, s y + d i - p, s x + d j - p, c]
    T[b, y, x, c] = the smallest i w + j for which it is
    dX[b, u, v, c] = sum of dY[b, y, x, c] over all y, x of which tap T[b, y, x, c] stands at u, v

Taps outside of the picture do not count. Pictures are [number, height, width, channels], int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MaxPool"]

Picture = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Where the taps of a window lie.

    Attributes
    ----------
    height, width : int
        Of the window.
    stride, padding, dilation : int
        The same for both directions.
    """

    height: int
    width: int
    stride: int
    padding: int = 0
    dilation: int = 1

    def size(self, length: int, window: int) -> int:
        """Windows along a length."""
        return (length + 2 * self.padding - self.dilation * (window - 1) - 1) // self.stride + 1

    def _at(self, high: int, wide: int, i: int, j: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Lines and columns of tap i, j in the windows of a result of high x wide."""
        lines = np.arange(high) * self.stride + self.dilation * i - self.padding
        columns = np.arange(wide) * self.stride + self.dilation * j - self.padding
        return lines, columns

    def y(self, x: Picture) -> tuple[Picture, Picture]:
        """Y and T. A window without any tap in the picture has the least of int64, and T = -1."""
        number, height, width, channels = x.shape
        high, wide = self.size(height, self.height), self.size(width, self.width)
        y = np.full((number, high, wide, channels), np.iinfo(np.int64).min)
        t = np.full(y.shape, -1, np.int64)
        for i in range(self.height):
            for j in range(self.width):
                lines, columns = self._at(high, wide, i, j)
                v, h = (lines >= 0) & (lines < height), (columns >= 0) & (columns < width)
                seen = x[:, lines[v]][:, :, columns[h]]
                here = np.full(y.shape, np.iinfo(np.int64).min)
                here[:, np.flatnonzero(v)[:, None], np.flatnonzero(h)] = seen
                larger = here > y
                y, t = np.where(larger, here, y), np.where(larger, i * self.width + j, t)
        return y, t

    def dx(self, dy: Picture, t: Picture, shape: tuple[int, ...]) -> Picture:
        """Of X with ``shape``."""
        dx = np.zeros(shape, np.int64)
        for b, y, x, c in np.ndindex(*dy.shape):
            i, j = divmod(int(t[b, y, x, c]), self.width)
            lines, columns = self._at(y + 1, x + 1, i, j)
            dx[b, lines[-1], columns[-1], c] += dy[b, y, x, c]
        return dx
