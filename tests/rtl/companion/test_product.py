# amaranth: UnusedElaboratable=no
"""Products of wide operands: exact, at the clock that is stated, whichever of the two is wide."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Shape, signed, unsigned

from pullback.rtl.companion.product import Product
from pullback.rtl.numeric.multiplier import Multiplier

from ..numeric.products import products

SHAPES = {
    (signed(18), unsigned(17)): 0,
    (signed(19), unsigned(17)): 1,
    (unsigned(18), signed(5)): 1,
    (signed(8), signed(36)): 2,
    (signed(20), signed(20)): 2,
    (unsigned(27), unsigned(13)): 1,
    (unsigned(40), signed(25)): 3,
}
"""Operands -> sums behind the multipliers."""


def values(shape: Shape, rng: random.Random) -> list[int]:
    lo = -(1 << (shape.width - 1)) if shape.signed else 0
    hi = lo + (1 << shape.width) - 1
    low = 1 << 17  # where the halves meet
    corners = {lo, lo + 1, hi - 1, hi, 0, 1, -1, low - 1, low, -low, -low - 1}
    return [*sorted(x for x in corners if lo <= x <= hi), *(rng.randint(lo, hi) for _ in range(8))]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_exact(a, b):
    dut = Product(a, b)
    assert dut.latency == Multiplier.latency + SHAPES[a, b]
    rng = random.Random(f"{a}{b}")
    pairs = [(x, y) for x in values(a, rng) for y in values(b, rng)]
    assert products(dut, pairs) == [x * y for x, y in pairs]
