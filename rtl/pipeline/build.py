"""What is fixed when a core is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..stream.ram import BlockRam
from ..stream.window import BORDERS

__all__ = ["Build"]


@dataclass(frozen=True, kw_only=True)
class Build:
    """Options of a core that cost hardware; everything else is set at run time.

    Parameters
    ----------
    lanes : int
        Pixels per clock P: 1, 2 or 4.
    max_width, max_height : int
        Largest picture.
    border : str
        How windows read beyond the edge: "mirror", "replicate" or "zero".
    clock : float
        Hertz that pipeline registers are placed for, on an ECP5 of speed grade 6. More registers, not other results.
    family : str
        Whose multipliers and block RAMs: "generic" or "ecp5".

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    lanes: int = 1
    max_width: int = 1920
    max_height: int = 1088
    border: str = "mirror"
    clock: float = 175e6
    family: str = "generic"

    def __post_init__(self) -> None:
        if self.lanes not in (1, 2, 4):
            raise ValueError(f"lanes={self.lanes}; a core takes 1, 2 or 4 pixels per clock")
        for what in ("max_width", "max_height"):
            if not 1 <= getattr(self, what) <= 16384:
                raise ValueError(f"{what}={getattr(self, what)}; give 1 to 16384 pixels")
        if self.border not in BORDERS:
            raise ValueError(f"border={self.border!r}; choose one of {', '.join(BORDERS)}")
        if self.family not in BlockRam.families:
            raise ValueError(f"family={self.family!r}; choose one of {', '.join(BlockRam.families)}")

    @property
    def max_beats(self) -> int:
        """Beats of the longest line."""
        return -(-self.max_width // self.lanes)

    @property
    def log2_pixels(self) -> int:
        """Bits that a sum over the largest group of frames grows by: 64 of the largest frames."""
        return (self.max_width * self.max_height * 64 - 1).bit_length()

    def replace(self, **changes: Any) -> Build:
        """The same build with some options changed."""
        return replace(self, **changes)
