"""Layer normalisation of codes, and the integer functions that it shares with softmax.

Along a row x of n codes, with epsilon = 2**-q squared codes (q even):

    a    = sum x,   b = sum x^2
    v    = (n b - a^2) 2**q + n^2                            = n^2 (var x + epsilon) 2**q
    v    = m 4**k, m in [1, 4)
    r    = 1 / sqrt(m)                                       by a table, 16 fractional bits
    xhat = (n x - a) r 2**(q/2 - k)                          = (x - mean x) / sqrt(var x + epsilon)

and xhat is cut to a code of ``fraction`` fractional bits and to 10 of them. With g the cotangent of the code, 0 where
the code clipped, and xhat of 10 fractional bits:

    xbar = r 2**(q/2 - k) (n g - sum g - xhat sum g xhat)

where ``sum g xhat`` and the bracket are cut to 18 bits on the way, and xbar to a code with ``scale`` fractional bits
more than g. All of it is exact but for the cuts and the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pullback.rtl.companion.function_table import knots
from pullback.rtl.numeric import SQ, Format

__all__ = [
    "Narrowed",
    "Normalised",
    "interpolated",
    "jacobian",
    "layer_norm",
    "layer_norm_vjp",
    "mantissa",
    "narrowed",
    "projected",
]

Codes = npt.NDArray[np.int64]

_CODE = SQ(8, 0)
_NORMALISED = SQ(7, 10)  # of up to 4096 elements none is above sqrt(4095)


@dataclass(frozen=True)
class Narrowed:
    """``code = min(max(floor(value 2**-shift + 1/2), lo), hi)``.

    Attributes
    ----------
    code : integer array
    clipped : bool array
        Where the rounded value lay outside.
    remainder : integer array
        ``code 2**shift - value``.
    """

    code: Codes
    clipped: npt.NDArray[np.bool_]
    remainder: Codes


def narrowed(value: Codes, shift: Codes | int, to: Format) -> Narrowed:
    """Cuts by an amount of bits that may differ from row to row, at most 61; ``to.f`` is the caller's affair."""
    shift = np.asarray(shift, np.int64)
    rounded = (value + ((np.int64(1) << shift) >> 1)) >> shift
    code = np.clip(rounded, to.lo, to.hi)
    return Narrowed(code, code != rounded, (code << shift) - value)


def interpolated(function: str, w: Codes) -> Codes:
    """``floor(K[s] + (K[s+1] - K[s]) t / 256 + 1/2)``, K the table's knots, w = 256 s + t of 16 fractional bits."""
    knot = np.array(knots(function), np.int64)
    s, t = w >> 8, w & 255
    return (knot[s] * (256 - t) + knot[s + 1] * t + 128) >> 8


def mantissa(v: Codes) -> tuple[Codes, Codes]:
    """``v = m 2**e``, m in [1, 2): e, and m - 1 cut to 16 fractional bits without a whole one."""
    e = np.array([int(value).bit_length() - 1 for value in v.ravel()], np.int64).reshape(v.shape)
    rest = v - (np.int64(1) << e)
    fine = np.maximum(e - 16, 0)
    rounded = (rest + ((np.int64(1) << fine) >> 1)) >> fine
    return e, np.minimum(rounded << np.maximum(16 - e, 0), 0xFFFF)


@dataclass(frozen=True)
class Normalised:
    """A layer normalisation of rows ``[..., n]``.

    Attributes
    ----------
    code, clipped : [..., n]
        What the next layer reads; where it saturated.
    normalised : [..., n]
        xhat with 10 fractional bits.
    factor, exponent : [..., 1]
        r and k.
    """

    code: Codes
    clipped: npt.NDArray[np.bool_]
    normalised: Codes
    factor: Codes
    exponent: Codes


def layer_norm(x: Codes, fraction: int, *, epsilon: int = 8) -> Normalised:
    """The rows of ``x [..., n]``."""
    x = x.astype(np.int64)
    n = x.shape[-1]
    a, b = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
    e, m = mantissa(((n * b - a * a) << epsilon) + n * n)
    k, octave = e >> 1, e & 1
    r = interpolated("reciprocal_root", (octave << 16) + m)
    product = (n * x - a) * r
    below = 16 + k - epsilon // 2
    code = narrowed(product, below - fraction, _CODE)
    return Normalised(code.code, code.clipped, narrowed(product, below - 10, _NORMALISED).code, r, k)


def projected(g: Codes, normalised: Codes) -> Codes:
    """``n g - sum g - xhat sum g xhat`` with 20 fractional bits, nothing cut; any integer type."""
    n = g.shape[-1]
    g_sum = g.sum(-1, keepdims=True)
    h = (g * normalised).sum(-1, keepdims=True)
    return (n * g - g_sum) * (1 << 20) - normalised * h


def layer_norm_vjp(
    g: Codes,
    normalised: Codes,
    clipped: npt.NDArray[np.bool_],
    factor: Codes,
    exponent: Codes,
    scale: int,
    *,
    longest: int,
    epsilon: int = 8,
) -> tuple[Narrowed, Narrowed, Narrowed]:
    """Cuts of xbar, of the bracket and of ``sum g xhat``; those of the latter two follow ``longest``, as builds do."""
    n = g.shape[-1]
    bits = (longest - 1).bit_length()
    to = SQ(9 + bits, 9 - bits)
    g = np.where(clipped, 0, g.astype(np.int64))
    h = narrowed((g * normalised).sum(-1, keepdims=True), 10 - to.f, to)
    bracket = (n * g - g.sum(-1, keepdims=True)) * (1 << (10 + to.f)) - normalised * h.code
    z = narrowed(bracket, 10, to)
    below = to.f + 16 + exponent - epsilon // 2 - scale
    return narrowed(z.code * factor, below, _CODE), z, h


def jacobian(normalised: Codes) -> npt.NDArray[np.object_]:
    """``d xhat_i / d x_j`` of a row ``[n]``, in Python's integers, over ``r 2**(q/2 - k)`` and with 20 fractional bits.

    By the product rule from xhat = (n x - a) v**(-1/2): the bracket's own derivative is ``n [i = j] - 1``; that of v is
    ``2 (n x_j - a)`` (over 2**q), so the root adds ``-xhat_i xhat_j``.
    """
    n = len(normalised)
    table = np.empty((n, n), object)
    for i in range(n):
        for j in range(n):
            bracket = n * (i == j) - 1
            table[i, j] = (bracket << 20) - int(normalised[i]) * int(normalised[j])
    return table
