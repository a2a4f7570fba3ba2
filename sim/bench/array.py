"""Tiles for an array: when their rows enter and their results leave, and what has to come out.

Times are those of the docstrings of `Skew` and `SystolicArray`, values those of the golden products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pullback.rtl.systolic.build import ArrayBuild
from pullback.sim.bench.waves import pack
from pullback.sim.golden.matmul import PRODUCTS

__all__ = ["Tile", "Waves", "distance", "random_tile", "schedule"]


@dataclass(frozen=True)
class Tile:
    """A product of one tile.

    Attributes
    ----------
    product : str
        ``"y"``, ``"dx"`` or ``"dw"``.
    a : [M, R] int
        X or dY, whose rows move east.
    b : [R, C], [C, R] or [M, C] int
        W of ``"y"``; W of ``"dx"``, whose transpose is held; dY of ``"dw"``.
    """

    product: str
    a: np.ndarray
    b: np.ndarray

    @property
    def result(self) -> np.ndarray:
        """[M, C], of ``"dw"`` [R, C]."""
        return PRODUCTS[self.product](self.a, self.b)


def random_tile(
    rng: np.random.Generator, build: ArrayBuild, product: str, rows: int, *, extreme: bool = False
) -> Tile:
    """A tile with operands over the whole range, or of the largest magnitude only.

    W of ``dx`` is [C, R]: C rows of the matrix whose transpose is held. Fewer than R - 1 rows of ``dw`` are filled up
    with rows of zeros in ``a`` and of anything in ``b``.
    """
    padding = max(build.rows - 1 - rows, 0) if product == "dw" else 0
    lo, hi = -(1 << (build.operand - 1)), (1 << (build.operand - 1)) - 1
    shape = {
        "y": (build.rows, build.columns),
        "dx": (build.columns, build.rows),
        "dw": (rows + padding, build.columns),
    }[product]

    def values(size: tuple[int, ...]) -> np.ndarray:
        return rng.choice([lo, hi], size) if extreme else rng.integers(lo, hi, size, endpoint=True)

    a = np.concatenate([values((rows, build.rows)), np.zeros((padding, build.rows), int)])
    return Tile(product, a, values(shape))


def distance(build: ArrayBuild, before: Tile, after: Tile) -> int:
    """Clocks between the first rows of two tiles that follow each other as closely as they may."""
    if before.product == "dw":
        if after.product == "dw":
            return len(before.a) + 1
        wait = build.rows + (max(build.columns - 2, 0) if after.product == "dx" else 0)
        return len(before.a) + wait
    if after.product == "dw":
        return len(before.a) + 1
    return max(len(before.a), build.rows if after.product == "y" else build.columns)


@dataclass
class Waves:
    """Inputs of an array clock by clock, and rows of results by clock."""

    build: ArrayBuild
    slots: dict[int, dict[str, int]] = field(default_factory=dict)
    operands: dict[str, dict[int, np.ndarray]] = field(
        default_factory=lambda: {"h": {}, "west": {}, "north": {}}
    )
    results: dict[int, np.ndarray] = field(default_factory=dict)
    first: int = 0
    """Clock of the first row of h."""

    def _tell(self, clock: int, **bits: int) -> None:
        self.slots.setdefault(clock, {}).update(bits)

    def _put(self, side: str, clock: int, row: np.ndarray) -> None:
        assert clock >= 0 and clock not in self.operands[side], f"two rows at {side} in clock {clock}"
        self.operands[side][clock] = row

    def add(self, tile: Tile, start: int, latency: int, *, clear: bool) -> None:
        """A tile whose first row enters in clock ``start``; ``clear``: sums start from zero the clock before."""
        for k, row in enumerate(tile.a):
            self._put("h", start + k, row)
        if tile.product == "dw":
            if clear:
                self._tell(start - 1, drain=1)
            for k, row in enumerate(tile.b):
                self._put("north", start + k - 1, row)
                self._tell(start + k, load=1, keep=1)
            self._tell(start + len(tile.a), drain=1)
            first = start + len(tile.a) + latency
        else:
            self._tell(start, load=1)
            for k, row in enumerate(tile.b):
                self._put("north" if tile.product == "y" else "west", start - 1 - k, row)
            if tile.product == "dx":
                for clock in range(start - self.build.columns, start):
                    self._tell(clock, west=1)
            first = start + latency
        for k, row in enumerate(tile.result):
            self.results[first + k] = row

    @property
    def clocks(self) -> int:
        return max(self.results) + 1

    @property
    def cycles(self) -> int:
        """From the first operand of h in to the last result out, both counted."""
        return self.clocks - self.first

    def inputs(self, rng: np.random.Generator) -> dict[str, list[int]]:
        """Ports of the array; rows that nothing is said about are random."""
        word = self.build.operand
        lengths = {"h": self.build.rows, "west": self.build.rows, "north": self.build.columns}

        given: dict[str, list[int]] = {}
        for side, length in lengths.items():
            junk = rng.integers(0, 1 << word, (self.clocks, length))
            rows = {**dict(enumerate(junk)), **self.operands[side]}
            given[side] = [pack(rows[k], word) for k in range(self.clocks)]
        bits = ("load", "keep", "drain", "west")
        told = [self.slots.get(clock, {}) for clock in range(self.clocks)]
        given["slot"] = [sum(slot.get(bit, 0) << k for k, bit in enumerate(bits)) for slot in told]
        return given


def schedule(build: ArrayBuild, tiles: Sequence[Tile], latency: int, *, gaps: Sequence[int] = ()) -> Waves:
    """Tiles as closely one after the other as they may, or with more clocks between them."""
    waves = Waves(build)
    start = max(build.rows, build.columns) + 1
    waves.first = start
    for k, each in enumerate(tiles):
        if k > 0:
            start += distance(build, tiles[k - 1], each) + (gaps[k - 1] if gaps else 0)
        waves.add(each, start, latency, clear=k == 0 or tiles[k - 1].product != "dw" or bool(gaps))
    return waves
