"""Where the multipliers of an array lie on an ECP5: the array's shape is that of the chip's DSP blocks."""

from __future__ import annotations

from collections.abc import Callable

from .build import ArrayBuild

__all__ = ["PARTS", "largest", "sites"]

# Rows of DSP blocks and the column in which each block of four multipliers begins.
_BLOCKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "25k": ((13,), (4, 13, 22, 33, 42, 51, 60)),
    "45k": ((22, 46), (4, 13, 22, 31, 42, 51, 60, 69, 78)),
    "85k": ((10, 34, 58), (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)),
}
_OF_A_BLOCK = ((0, "MULT18_0"), (1, "MULT18_1"), (4, "MULT18_4"), (5, "MULT18_5"))

PARTS = tuple(_BLOCKS)
"""Sizes of the LFE5U that a table is there for."""


def largest(part: str, *, packed: bool = False) -> ArrayBuild:
    """The array that takes every multiplier of a part: four rows a row of blocks, one column of them, or of pairs of
    columns if it is packed, a block.
    """
    rows, columns = _BLOCKS[_known(part)]
    return ArrayBuild(
        rows=len(_OF_A_BLOCK) * len(rows),
        columns=len(columns) * (2 if packed else 1),
        band=len(_OF_A_BLOCK),
        family="ecp5",
        packed=packed,
    )


def sites(part: str, build: ArrayBuild) -> Callable[[int, int], str]:
    """``site(r, c)``: nextpnr's name of the place of an element's multiplier, for a mesh of this build; c counts them.

    Four rows of elements take a row of DSP blocks, a column of elements one block in each; what goes south from one row
    of blocks to the next crosses the chip, so the build has bands of four rows.

    Raises
    ------
    ValueError
        If the part is unknown, the array is larger than it, or the build's bands are not of four rows.

    Source: places of MULT18X18D in the database of nextpnr 0.11.1 (Project Trellis).
    """
    most = largest(part, packed=build.packed)
    if build.rows > most.rows or build.columns > most.columns:
        raise ValueError(
            f"an array of {build.rows} x {build.columns} is larger than the {most.rows} x {most.columns} "
            f"multipliers of an LFE5U-{part[:-1]}F"
        )
    if build.rows > most.band and build.band != most.band:
        raise ValueError(f"band={build.band}; rows of DSP blocks lie apart, so give band={most.band}")
    rows, columns = _BLOCKS[part]

    def site(r: int, c: int) -> str:
        block, inside = divmod(r, len(_OF_A_BLOCK))
        offset, name = _OF_A_BLOCK[inside]
        return f"X{columns[c] + offset}/Y{rows[block]}/{name}"

    return site


def _known(part: str) -> str:
    if part not in _BLOCKS:
        raise ValueError(f"ECP5 size {part!r} is unknown; give {', '.join(PARTS)}")
    return part
