"""What is fixed when an array is built, and the memories around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from amaranth.hdl import Shape, signed

from ..numeric.multiplier import Multiplier
from ..stream.ram import BlockRam

__all__ = ["ArrayBuild", "UnitBuild"]


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
    packed : bool
        Two columns share a multiplier: twice the products of a chip, of operands of 8 bits at most.

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
    packed: bool = False

    def __post_init__(self) -> None:
        for what in ("rows", "columns"):
            if not 1 <= getattr(self, what) <= 64:
                raise ValueError(f"{what}={getattr(self, what)}; an array has 1 to 64 {what}")
        if not 2 <= self.operand <= 18:
            raise ValueError(f"operand={self.operand}; give 2 to 18 bits")
        if self.packed and (self.columns % 2 or self.operand > 8):
            raise ValueError(
                f"packed with columns={self.columns}, operand={self.operand}; give an even number of columns and at "
                "most 8 bits"
            )
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

    @property
    def shared(self) -> int:
        """Columns of a multiplier."""
        return 2 if self.packed else 1

    @property
    def late_lag(self) -> int:
        """Clocks by which a product arrives after its operand: the register of h, the multiplier and a register in the
        fabric behind it, which makes its way from the hard block to the adder a path of its own; two more where two
        products are taken apart.
        """
        return 1 + Multiplier.latency + 1 + (2 if self.packed else 0)

    def wave(self, column: int) -> int:
        """Clocks that h takes from the first column to this one."""
        return column // self.shared

    def crossings(self, row: int) -> int:
        """Extra registers between the first row and this one."""
        return row // self.band if self.band else 0

    def replace(self, **changes: Any) -> ArrayBuild:
        """The same build with some options changed."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class UnitBuild:
    """An array with the memories around it.

    Parameters
    ----------
    array : ArrayBuild
    memory : int
        Rows of each of the three operand memories, a power of two; a row has `lanes` operands.
    sums : int
        Rows of partial sums, of C sums each.
    total : int
        Bits of a partial sum, at least those of a sum inside the mesh.
    masks : int
        Rows of C branches that an activation notes for its adjoint.
    count : int
        Bits of a loop count.
    programme : int
        Words of 32 bits for descriptors.
    ram : str
        Family of the block RAM.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    array: ArrayBuild = ArrayBuild()
    memory: int = 2048
    sums: int = 512
    total: int = 32
    masks: int = 1024
    count: int = 12
    programme: int = 512
    ram: str = "generic"

    def __post_init__(self) -> None:
        for what, least in (("memory", 2), ("sums", 1), ("masks", 1), ("programme", 32)):
            value = getattr(self, what)
            if not least <= value <= 1 << 20:
                raise ValueError(f"{what}={value}; give {least} to {1 << 20} rows")
        if self.memory & (self.memory - 1):
            raise ValueError(f"memory={self.memory} rows; give a power of two")
        if not self.array.accumulator <= self.total <= 48:
            raise ValueError(
                f"total={self.total}; give {self.array.accumulator} (a sum of the mesh) to 48 bits"
            )
        if not 4 <= self.count <= 16:
            raise ValueError(f"count={self.count}; give 4 to 16 bits")
        if self.ram not in BlockRam.families:
            raise ValueError(f"ram={self.ram!r}; choose one of {', '.join(BlockRam.families)}")

    @property
    def lanes(self) -> int:
        """Operands in a row of memory: the power of two that holds a row and a column of the array."""
        return 1 << (max(self.array.rows, self.array.columns, 2) - 1).bit_length()

    @property
    def elements(self) -> int:
        """Operands in a memory."""
        return self.memory * self.lanes

    @property
    def lead(self) -> dict[str, int]:
        """Clocks by which the stationary operands of a tile come before its first row.

        As many as there are rows of them, and five at least: a partial sum is read five clocks after the tile before
        has written it.
        """
        return {"y": max(self.array.rows, 5), "dx": max(self.array.columns, 5), "dw": 1}

    def replace(self, **changes: Any) -> UnitBuild:
        """The same build with some options changed."""
        return replace(self, **changes)
