"""Gradient descent with momentum on integers.

With R(s, n) = floor(s 2**-n + 1/2), w the weights' masters, v their momentum, g the gradient:

    v' = v - R(v, damping) + R(g, gain)
    w' = w - R(v', rate)

So the momentum is 1 - 2**-damping, and the learning rate 2**-rate in units of the masters. All int64, exact as long as
the sums fit.

Source: Polyak, Some methods of speeding up the convergence of iteration methods, 1964, in the form of PyTorch's SGD.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["rounded", "step"]

Sums = npt.NDArray[np.int64]


def rounded(s: Sums, shift: int) -> Sums:
    """R(s, shift)."""
    half = np.int64(1) << (shift - 1) if shift else np.int64(0)
    return (s.astype(np.int64) + half) >> shift


def step(w: Sums, v: Sums, g: Sums, *, damping: int, gain: int, rate: int) -> tuple[Sums, Sums]:
    """w' and v'."""
    v = v - rounded(v, damping)
    v = v + rounded(g, gain)
    return w - rounded(v, rate), v
