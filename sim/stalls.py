"""Stall patterns of a stream: in bursts, the producer offers nothing or the consumer takes nothing.

The same patterns drive the compiled frame loop (``pullback.sim.model``) and the cocotb benches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["ALTERNATING", "BURSTS", "LONG", "NONE", "PATTERNS", "Stall"]


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Runs for ``on`` cycles, stalls for ``off`` cycles, and so on.

    Parameters
    ----------
    on, off : float
        Lengths of the bursts in cycles; ``off = 0`` never stalls.
    random : bool
        True: the lengths are geometrically distributed with these means. False: exactly these lengths.

    Raises
    ------
    ValueError
        If a burst that has to occur is shorter than one cycle.
    """

    on: float = 1
    off: float = 0
    random: bool = True

    def __post_init__(self) -> None:
        if self.off < 0 or 0 < self.off < 1:
            raise ValueError(f"off is {self.off}: a stall lasts at least one cycle; 0 means no stalls")
        if self.on < 1:
            raise ValueError(f"on is {self.on}: between two stalls lies at least one cycle")

    def cycles(self, seed: int) -> Iterator[bool]:
        """True for each cycle in which the stream may move."""
        rng = random.Random(seed)

        def length(mean: float) -> int:
            n = 1
            while self.random and rng.random() * mean >= 1:
                n += 1
            return n if self.random else int(mean)

        while True:
            yield from (True for _ in range(length(self.on)))
            if self.off:
                yield from (False for _ in range(length(self.off)))


NONE = Stall()
BURSTS = Stall(on=3, off=3)
ALTERNATING = Stall(on=1, off=1, random=False)
LONG = Stall(on=40, off=90, random=False)
PATTERNS = {"none": NONE, "bursts": BURSTS, "alternating": ALTERNATING, "long": LONG}
