"""Softmax of codes, one rounding a step.

Along a row x of codes with f fractional bits, L = log2(e) with 16 fractional bits:

    d = max x - x
    t = cut(d L 2**-f)                                       UQ(5, 16)
    e = cut(2**-(t - floor t) 2**-floor(t))                  UQ(1, 16), the first factor by a table
    s = sum e = m 2**k
    r = 1 / m                                                UQ(1, 16), by a table, m - 1 cut to 16 fractional bits
    p = e r 2**-k                                            cut to SQ(1, 7) and, for the tape, to UQ(0, 16)

With g the cotangent of the code and p off the tape:

    xbar = p (g - sum p g)

where ``sum p g`` is cut to SQ(8, 9) and xbar to a code with ``scale`` fractional bits more than g. The forward's
saturation has derivative 1 (``identity``), and so have its roundings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pullback.rtl.companion.function_table import LOG2_E
from pullback.rtl.numeric import SQ, UQ

from .normalise import Narrowed, interpolated, mantissa, narrowed

__all__ = ["centred", "jacobian", "softmax", "softmax_vjp"]

Codes = npt.NDArray[np.int64]


def softmax(x: Codes, fraction: int) -> tuple[Codes, Codes]:
    """Codes of 7 fractional bits and probabilities of 16, of the rows of ``x [..., n]``."""
    x = x.astype(np.int64)
    d = x.max(-1, keepdims=True) - x
    t = narrowed(d * LOG2_E, fraction, UQ(5, 16)).code
    whole, rest = t >> 16, t & 0xFFFF
    e = narrowed(interpolated("power", rest), whole, UQ(1, 16)).code
    octave, m = mantissa(e.sum(-1, keepdims=True))
    k, r = octave - 16, interpolated("reciprocal", m)
    product = e * r  # 32 + k fractional bits
    return narrowed(product, 32 + k - 7, SQ(1, 7)).code, narrowed(product, 32 + k - 16, UQ(0, 16)).code


def centred(g: Codes, p: Codes) -> Codes:
    """``p (g - sum p g)`` with 32 fractional bits, nothing cut; any integer type."""
    mean = (p * g).sum(-1, keepdims=True)
    return p * (g * (1 << 16) - mean)


def softmax_vjp(g: Codes, p: Codes, scale: int) -> tuple[Narrowed, Narrowed]:
    """Cuts of xbar and of ``sum p g``."""
    g, p = g.astype(np.int64), p.astype(np.int64)
    mean = narrowed((p * g).sum(-1, keepdims=True), 16 - 9, SQ(8, 9))
    return narrowed(p * ((g << 9) - mean.code), 16 + 9 - scale, SQ(8, 0)), mean


def jacobian(p: Codes) -> npt.NDArray[np.object_]:
    """``d y_i / d x_j`` of a row ``[n]``, in Python's integers, with 32 fractional bits.

    By the quotient rule from y = e / s: ``d e_i / d x_j = [i = j] e_i`` and ``d s / d x_j = e_j``, so
    ``[i = j] y_i - y_i y_j``.
    """
    n = len(p)
    table = np.empty((n, n), object)
    for i in range(n):
        for j in range(n):
            table[i, j] = ((int(p[i]) << 16) if i == j else 0) - int(p[i]) * int(p[j])
    return table
