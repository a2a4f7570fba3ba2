"""Windows at the border of a frame: which site a tap outside the frame reads, and the exact transpose.

For an axis of ``n`` sites, tap position ``p`` outside ``0..n-1`` reads

* ``mirror``: the reflection that does not repeat the edge, period ``2(n - 1)``; site 0 if ``n == 1``;
* ``replicate``: the nearest site, ``min(max(p, 0), n - 1)``;
* ``zero``: nothing; the tap is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["BORDERS", "Scatter", "Window", "indices"]

BORDERS = ("mirror", "replicate", "zero")


def indices(n: int, radius: int, border: str) -> tuple[np.ndarray, np.ndarray]:
    """Site read by positions ``-radius .. n - 1 + radius``, and whether it is read at all (else 0)."""
    position = np.arange(-radius, n + radius)
    nearest = position.clip(0, n - 1)
    if border == "mirror":
        folded = position % max(1, 2 * (n - 1))
        return np.minimum(folded, 2 * (n - 1) - folded) if n > 1 else nearest, np.ones(len(position), bool)
    if border == "replicate":
        return nearest, np.ones(len(position), bool)
    if border == "zero":
        return nearest, position == nearest
    raise ValueError(f"border {border!r} is unknown; give one of {', '.join(BORDERS)}")


class Window:
    """The taps around every site: ``window(dy, dx)[..., y, x] = x[..., y + dy, x + dx]``, border included.

    Parameters
    ----------
    x : [..., H, W]
    radius : int
        ``|dy|, |dx| <= radius``.
    border : str
        One of ``BORDERS``.
    """

    def __init__(self, x: np.ndarray, radius: int, border: str):
        self._radius, (self._height, self._width) = radius, x.shape[-2:]
        rows, rows_read = indices(self._height, radius, border)
        columns, columns_read = indices(self._width, radius, border)
        self._padded = x[..., rows, :][..., columns]
        if border == "zero":
            self._padded = np.where(rows_read[:, None] & columns_read, self._padded, 0)

    def __call__(self, dy: int, dx: int) -> np.ndarray:
        y, x = self._radius + dy, self._radius + dx
        return self._padded[..., y : y + self._height, x : x + self._width]

    def sum(self, taps: Sequence[tuple[int, int]]) -> np.ndarray:
        """The sum of several taps ``(dy, dx)``."""
        first, *rest = taps
        out = self(*first)
        for tap in rest:
            out = out + self(*tap)
        return out


class Scatter:
    """The transpose of ``Window``: ``add`` the cotangent of each tap; ``total`` is that of the sites.

    ``<Window(v)(dy, dx), a> == <v, total>`` exactly, summed over all taps added.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, radius: int, border: str):
        *lead, self._height, self._width = shape
        self._radius, self._border = radius, border
        self._padded = np.zeros((*lead, self._height + 2 * radius, self._width + 2 * radius), dtype)

    def add(self, dy: int, dx: int, a: np.ndarray) -> None:
        """Add ``a[..., y, x]`` to the site that ``Window(dy, dx)`` reads at ``y, x``."""
        y, x = self._radius + dy, self._radius + dx
        self._padded[..., y : y + self._height, x : x + self._width] += a

    def total(self) -> np.ndarray:
        """The sum per site, ``[..., H, W]``: positions outside the frame fold onto the sites they read."""
        rows = self._fold(self._padded.swapaxes(-1, -2), self._height).swapaxes(-1, -2)
        return self._fold(rows, self._width)

    def _fold(self, padded: np.ndarray, n: int) -> np.ndarray:
        radius = self._radius
        index, read = indices(n, radius, self._border)
        out = padded[..., radius : radius + n].copy()
        for k in (*range(radius), *range(radius + n, n + 2 * radius)):
            if read[k]:
                out[..., index[k]] += padded[..., k]
        return out
