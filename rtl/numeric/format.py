"""Fixed-point formats: the notation in which every stream, parameter and cotangent is declared.

A code ``c`` in a format with ``f`` fractional bits stands for the real number ``c * 2**-f``.
The notation follows Amaranth's RFC 41: ``SQ(i, f)`` counts the sign in ``i``, ``UQ(i, f)`` has none,
and both are ``i + f`` bits wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amaranth.hdl import Shape

__all__ = ["SQ", "UQ", "Format"]


@dataclass(frozen=True)
class Format:
    """A fixed-point format: ``value = code * 2**-f`` with ``lo <= code <= hi``.

    Parameters
    ----------
    signed : bool
        Two's complement if true.
    i : int
        Integer bits, the sign among them. May be negative as long as ``i + f > 0``.
    f : int
        Fractional bits.

    Raises
    ------
    ValueError
        If the format has no bits at all.
    """

    signed: bool
    i: int
    f: int

    def __post_init__(self) -> None:
        if self.i + self.f < 1:
            raise ValueError(f"{self} has {self.i + self.f} bits; a format needs at least one")

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.i + self.f

    @property
    def lo(self) -> int:
        """Smallest code."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """Largest code."""
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1

    @property
    def lsb(self) -> float:
        """The real value of code 1."""
        return math.ldexp(1.0, -self.f)

    @property
    def shape(self) -> Shape:
        """The Amaranth shape of a code."""
        return Shape(self.width, self.signed)

    def encode(self, value: float) -> int:
        """The nearest code: ``floor(value * 2**f + 1/2)``, saturated. NaN is a ``ValueError``."""
        if math.isnan(value):
            raise ValueError(f"NaN has no code in {self}; give a number in [{self.min}, {self.max}]")
        if math.isinf(value):
            return self.hi if value > 0 else self.lo
        return min(max(math.floor(math.ldexp(value, self.f) + 0.5), self.lo), self.hi)

    def decode(self, code: int) -> float:
        """The real value of a code."""
        return math.ldexp(int(code), -self.f)

    @property
    def min(self) -> float:
        """Smallest value."""
        return self.decode(self.lo)

    @property
    def max(self) -> float:
        """Largest value."""
        return self.decode(self.hi)

    def __str__(self) -> str:
        return f"{'SQ' if self.signed else 'UQ'}({self.i}, {self.f})"


def SQ(i: int, f: int) -> Format:  # noqa: N802  (the notation of RFC 41)
    """Signed format: ``[-2**(i-1), 2**(i-1) - 2**-f]``."""
    return Format(True, i, f)


def UQ(i: int, f: int) -> Format:  # noqa: N802
    """Unsigned format: ``[0, 2**i - 2**-f]``."""
    return Format(False, i, f)
