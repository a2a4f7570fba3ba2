"""Convolutions of pictures and their adjoints, over the integers.

With stride s, padding p and dilation d, i and j the taps of a kernel of h x w:

    Y[b, y, x, o]  = sum_{i, j, c} X[b, s y + d i - p, s x + d j - p, c] W[i, j, c, o]
    dX[b, u, v, c] = sum of dY[b, y, x, o] W[i, j, c, o] over all y, x, i, j, o with s y + d i - p = u and so for v
    dW[i, j, c, o] = sum_{b, y, x} X[b, s y + d i - p, s x + d j - p, c] dY[b, y, x, o]

X is 0 outside of the picture. A depthwise one has W[i, j, c], and o = c. Pictures are [number, height, width,
channels], int64, exact as long as the sums fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Convolution"]

Picture = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Where the taps of a kernel lie.

    Attributes
    ----------
    stride, padding, dilation : int
        The same for both directions.
    """

    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def size(self, length: int, kernel: int) -> int:
        """Length of the result."""
        return (length + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1

    def _taps(
        self, x: tuple[int, ...], kernel: tuple[int, ...]
    ) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Every tap, and where it lies in the padded picture for all results."""
        high, wide = self.size(x[1], kernel[0]), self.size(x[2], kernel[1])
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                top, left = self.dilation * i, self.dilation * j
                yield (
                    i,
                    j,
                    (
                        slice(top, top + self.stride * (high - 1) + 1, self.stride),
                        slice(left, left + self.stride * (wide - 1) + 1, self.stride),
                    ),
                )

    def _padded(self, x: Picture) -> Picture:
        p = self.padding
        return np.pad(x.astype(np.int64), ((0, 0), (p, p), (p, p), (0, 0)))

    def y(self, x: Picture, w: Picture) -> Picture:
        """[number, height, width, outputs] of W [h, w, channels, outputs], or depthwise of [h, w, channels]."""
        padded = self._padded(x)
        total = np.int64(0)
        for i, j, (rows, columns) in self._taps(x.shape, w.shape):
            patch = padded[:, rows, columns]
            total = total + (patch * w[i, j] if w.ndim == 3 else np.einsum("byxc,co->byxo", patch, w[i, j]))
        return np.asarray(total)

    def dx(self, dy: Picture, w: Picture, shape: tuple[int, ...]) -> Picture:
        """Of X with ``shape``."""
        padded = self._padded(np.zeros(shape, np.int64))
        for i, j, (rows, columns) in self._taps(shape, w.shape):
            padded[:, rows, columns] += (
                dy * w[i, j] if w.ndim == 3 else np.einsum("byxo,co->byxc", dy, w[i, j])
            )
        p = self.padding
        return padded[:, p : p + shape[1], p : p + shape[2]]

    def dw(self, x: Picture, dy: Picture, kernel: tuple[int, int], *, depthwise: bool = False) -> Picture:
        """[h, w, channels, outputs], or depthwise [h, w, channels]."""
        padded = self._padded(x)
        of = "byxc,byxc->c" if depthwise else "byxc,byxo->co"
        taps = [
            np.einsum(of, padded[:, rows, columns], dy.astype(np.int64))
            for _, _, (rows, columns) in self._taps(x.shape, kernel)
        ]
        return np.stack(taps).reshape(*kernel, *taps[0].shape)
