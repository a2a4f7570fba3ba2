"""What a companion is built for."""

from __future__ import annotations

from dataclasses import dataclass

from ..numeric.multiplier import Multiplier
from ..stream.ram import BlockRam

__all__ = ["RowBuild"]

_FAMILIES = tuple(family for family in Multiplier.families if family != "ice40")  # its operands have 16 bits


@dataclass(frozen=True, kw_only=True)
class RowBuild:
    """Rows and target of a companion.

    Attributes
    ----------
    longest : int
        Most elements of a row: 1 to 4096, of a softmax to 1024.
    epsilon : int
        Of a layer normalisation: ``2**-epsilon`` squared codes are added to the variance; even, 0 to 12.
    family : str
        Of the multipliers, see :class:`~pullback.rtl.numeric.multiplier.Multiplier`; not ``"ice40"``, as operands have
        up to 18 bits.
    ram : str
        Of the buffers' block RAM, see :class:`~pullback.rtl.stream.ram.BlockRam`. Tables are left to synthesis.

    Raises
    ------
    ValueError
        If a value is out of its range, or a family is unknown.
    """

    longest: int
    epsilon: int = 8
    family: str = "generic"
    ram: str = "generic"

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= 4096:
            raise ValueError(f"longest={self.longest}; give 1 to 4096 elements")
        if not 0 <= self.epsilon <= 12 or self.epsilon % 2:
            raise ValueError(f"epsilon={self.epsilon}; give an even number, 0 to 12")
        if self.family not in _FAMILIES:
            raise ValueError(f"family={self.family!r}; choose one of {', '.join(_FAMILIES)}")
        if self.ram not in BlockRam.families:
            raise ValueError(f"ram={self.ram!r}; choose one of {', '.join(BlockRam.families)}")

    @property
    def bits(self) -> int:
        """Bits by which a sum over a row is wider than what it adds."""
        return (self.longest - 1).bit_length()
