"""What is fixed when an array is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from amaranth.hdl import Shape, signed

from ..numeric.multiplier import Multiplier

__all__ = ["ArrayBuild"]


@dataclass(frozen=True, kw_only=True)
class ArrayBuild:
    """Size and widths of an array.

    Parameters
    ----------
    rows, columns : int
        Processing elements R x C, 1 to 64 each.
    operand : int
        Bits of an operand, signed, 2 to 18.
    accumulator : int
        Bits of a sum inside the mesh, signed. A stationary product adds R products, an output-stationary one as many
        as `depth` says.
    band : int
        Rows between two of which no register is inserted; 0: nowhere. DSP blocks lie in rows of the chip far apart,
        and what goes from one to the next takes a clock more.
    family : str
        Whose multipliers: see :class:`~pullback.rtl.numeric.multiplier.Multiplier`.

    Raises
    ------
    ValueError
        If a value is out of its range, or the accumulator cannot hold the sum of R products.
    """

    rows: int = 12
    columns: int = 13
    operand: int = 8
    accumulator: int = 24
    band: int = 0
    family: str = "generic"

    def __post_init__(self) -> None:
        for what in ("rows", "columns"):
            if not 1 <= getattr(self, what) <= 64:
                raise ValueError(f"{what}={getattr(self, what)}; an array has 1 to 64 {what}")
        if not 2 <= self.operand <= 18:
            raise ValueError(f"operand={self.operand}; give 2 to 18 bits")
        if not 0 <= self.band <= self.rows:
            raise ValueError(f"band={self.band}; give 0 to {self.rows}, the rows of a band")
        if self.family not in Multiplier.families:
            raise ValueError(f"family={self.family!r}; choose one of {', '.join(Multiplier.families)}")
        if self.accumulator > 48:
            raise ValueError(f"accumulator={self.accumulator}; give at most 48 bits")
        if self.depth < self.rows:
            least = 2 * self.operand - 1 + self.rows.bit_length()
            raise ValueError(
                f"accumulator={self.accumulator} bits hold {max(self.depth, 0)} products of {self.operand}-bit "
                f"operands, and a column adds {self.rows}; give at least {least} bits"
            )

    @property
    def depth(self) -> int:
        """Most products that one accumulator can add without overflow, whatever they are.

        The largest product is ``(-2**(w-1))**2 = 2**(2w-2)``, and the accumulator's largest code is ``2**(a-1) - 1``.
        """
        return ((1 << (self.accumulator - 1)) - 1) >> (2 * self.operand - 2) if self.accumulator > 0 else 0

    @property
    def word(self) -> Shape:
        """Shape of an operand."""
        return signed(self.operand)

    @property
    def sum(self) -> Shape:
        """Shape of an accumulator."""
        return signed(self.accumulator)

    def crossings(self, row: int) -> int:
        """Extra registers between the first row and this one."""
        return row // self.band if self.band else 0

    def replace(self, **changes: Any) -> ArrayBuild:
        """The same build with some options changed."""
        return replace(self, **changes)
