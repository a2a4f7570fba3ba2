"""The colour filter array: which colour a site has.

``c = ((y & 1) ^ (cfa >> 1)) * 2 + ((x & 1) ^ (cfa & 1))`` with ``c`` in the order R, Gr, Gb, B and the phase
``cfa`` in the order RGGB, GRBG, GBRG, BGGR. Gr is the green in a red row, Gb the green in a blue row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["COLOURS", "PHASES", "by_colour", "colours", "sum_by_colour"]

COLOURS = ("R", "Gr", "Gb", "B")
PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")


def colours(shape: Sequence[int], cfa: int) -> np.ndarray:
    """The colour of every site of a frame of ``shape [..., H, W]``: ``[H, W]`` of 0..3."""
    if cfa not in range(4):
        raise ValueError(f"cfa is {cfa}; give 0..3, the index in {', '.join(PHASES)}")
    y, x = np.arange(shape[-2])[:, None], np.arange(shape[-1])[None, :]
    return ((y & 1) ^ (cfa >> 1)) * 2 + ((x & 1) ^ (cfa & 1))


def by_colour(colour: np.ndarray, r, gr, gb, b) -> np.ndarray:
    """At each site the operand of its colour. Operands broadcast against ``colour``."""
    return np.where(colour < 2, np.where(colour == 0, r, gr), np.where(colour == 2, gb, b))


def sum_by_colour(products: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """``[..., H, W] -> [..., 4]``: exact sums over the sites of each colour."""
    out = np.zeros((*products.shape[:-2], 4), products.dtype)
    # The colour is constant on each of the four sub-grids of the 2x2 period.
    for y in range(min(2, colour.shape[0])):
        for x in range(min(2, colour.shape[1])):
            out[..., colour[y, x]] = products[..., y::2, x::2].sum((-2, -1))
    return out
