"""Sums to codes, with an activation, and the adjoint of both: one rounding and one saturation each way.

With s a sum, h = 2**-shift and a = 2**-leak:

    z    = h s                 where s > 0
           0                   where s <= 0 and the activation is ReLU
           a h s               where s <= 0 otherwise (leak = 0: no activation)
    y    = min(max(floor(z + 1/2), lo), top)

The derivative is that of the branch taken, and 0 where y clips. Backwards, s is a sum of products of cotangents and
weights, and the branch is the one that the forward noted in its mask:

    sbar = min(max(floor(d s h + 1/2), lo), hi),   d = 1, a or 0

At s = 0 the branch is the lower one, as PyTorch's ReLU and leaky ReLU have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Requantisation", "requantise", "requantise_vjp"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Requantisation:
    """How sums, up to 2**61, become codes.

    Attributes
    ----------
    bits : int
        Width of a code, signed.
    shift : int
        Fractional bits of a sum that a code has no longer.
    relu : bool
        Sums that are not positive give 0.
    leak : int
        Sums that are not positive lose this many bits more.
    top : int
        Largest code; smaller than the largest of the width for a clipped ReLU.
    """

    bits: int = 8
    shift: int = 0
    relu: bool = False
    leak: int = 0
    top: int = 127

    @property
    def lo(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def hi(self) -> int:
        """Largest code of the width."""
        return (1 << (self.bits - 1)) - 1


def _rounded(s: Codes, shift: int | Codes) -> Codes:
    """floor(s 2**-shift + 1/2), of sums up to 2**61: shifted by 62 or more, nothing is left of one."""
    shift = np.minimum(shift, 62).astype(np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return (s + half) >> shift


def requantise(s: Codes, how: Requantisation) -> tuple[Codes, Codes]:
    """Codes and masks: 0 where the derivative is zero, 1 on the lower branch, 3 on the upper one."""
    s = s.astype(np.int64)
    upper = s > 0
    z = np.where(upper, _rounded(s, how.shift), _rounded(s, how.shift + how.leak))
    z = np.where(~upper & how.relu, 0, z)
    passes = (z >= how.lo) & (z <= how.top) & (upper | (not how.relu))
    return np.clip(z, how.lo, how.top), np.where(passes, np.where(upper, 3, 1), 0)


def requantise_vjp(s: Codes, mask: Codes, how: Requantisation) -> Codes:
    """Cotangent codes of sums whose forward noted ``mask``."""
    shift = np.where(mask & 2, how.shift, how.shift + how.leak)
    return np.where(mask & 1, np.clip(_rounded(s.astype(np.int64), shift), how.lo, how.hi), 0)
