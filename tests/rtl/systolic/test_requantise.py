# amaranth: UnusedElaboratable=no
"""Requantise: one rounding and one saturation each way, equal to the golden bit for bit, every bin hit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest

from pullback.rtl.systolic.requantise import Requantise, chosen, settings
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.bench.waves import pack, play, unpack
from pullback.sim.generated import generated
from pullback.sim.golden.requantise import Requantisation, requantise, requantise_vjp

LANES = 3
WIDTHS = [(24, 8), (32, 8), (40, 18), (9, 8)]


def stimulus(rng: np.random.Generator, total: int, how: Requantisation, rows: int) -> np.ndarray:
    """Sums of all magnitudes, those beside every tie and every limit, and the largest."""
    lo, hi = -(1 << (total - 1)), (1 << (total - 1)) - 1
    random = rng.integers(lo, hi, rows * LANES, endpoint=True) >> rng.integers(0, total, rows * LANES)
    near = []
    for code in (how.lo, how.lo - 1, how.top, how.top + 1, how.hi, how.hi + 1, 0, 1, -1):
        for shift in (how.shift, how.shift + how.leak):
            tie = (code << shift) + (1 << shift >> 1)
            near += [tie - 1, tie, tie + 1]
    corners = np.clip(np.array([lo, lo + 1, hi, hi - 1, 0, 1, -1, *near]), lo, hi)
    random[: len(corners)] = corners
    return random.reshape(rows, LANES)


def cases(total: int, code: int) -> list[Requantisation]:
    hi = (1 << (code - 1)) - 1
    shifts = sorted({0, 1, 3, 7, 8, total - code, total - 1})
    found = [Requantisation(bits=code, shift=s, top=hi) for s in shifts]
    found += [
        Requantisation(bits=code, shift=s, top=t, relu=True) for s, t in product((0, 5), (hi, hi // 2, 0))
    ]
    found += [
        Requantisation(bits=code, shift=s, top=hi, leak=k)
        for s, k in product((0, 6, total - 2), (1, 3, total - 1))
    ]
    return found


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize(("total", "code"), WIDTHS)
def test_equals_golden(total, code, simulator):
    rng = np.random.default_rng(total)
    rows = 40
    bins: dict[str, int] = dict.fromkeys(("low", "high", "clipped at top", "tie", "relu zero", "leaky"), 0)
    words: dict[str, list[int]] = {name: [] for name in ("how", "adjoint", "sums", "negative", "branch_i")}
    codes, masks, clipped = [], [], []
    for how, adjoint in product(cases(total, code), (0, 1)):
        s = stimulus(rng, total, how, rows)
        given = rng.choice([0, 1, 3], s.shape)
        fields = chosen(total, shift=how.shift, leak=how.leak, relu=how.relu, top=how.top)
        word = settings(total, code).const(fields).as_value().value
        words["how"] += [word] * rows
        words["adjoint"] += [adjoint] * rows
        words["sums"] += [pack(row, total) for row in s]
        words["negative"] += [pack(row < 0, 1) for row in s]
        words["branch_i"] += [pack(row, 2) for row in given]
        wide = replace(how, bits=62, top=1 << 60)
        if adjoint:
            y, mask = requantise_vjp(s, given, how), None
            clipped += [pack(row, 1) for row in y != requantise_vjp(s, given, wide)]
        else:
            y, mask = requantise(s, how)
            clipped += [pack(row, 1) for row in y != requantise(s, wide)[0]]
            real = s / 2.0**how.shift
            bins["low"] += int(((y == how.lo) & (mask == 0) & (not how.relu)).sum())
            bins["high"] += int((real > how.hi + 1).sum())
            bins["clipped at top"] += int(((y == how.top) & (mask == 0) & (how.top < how.hi)).sum())
            bins["tie"] += int((2 * real == np.floor(2 * real)).sum() - (real == np.floor(real)).sum())
            bins["relu zero"] += int((how.relu & (s <= 0)).sum())
            bins["leaky"] += int(((how.leak > 0) & (mask == 1)).sum())
        codes.append(y)
        masks.append(mask)
    assert all(bins.values()), bins
    tail = Requantise.lead + Requantise.latency
    lates = {
        "sums": Requantise.lead,
        "negative": Requantise.lead,
        "branch_i": Requantise.lead - Requantise.branch_lead,
    }
    for name, values in words.items():
        late = lates.get(name, 0)
        words[name] = [values[0]] * late + values + [values[-1]] * (tail - late)
    sources, _ = generated(f"requantise {LANES} {total} {code}", lambda: Requantise(LANES, total, code))
    shown = play(sources, words, ["codes", "branch_o", "clipped"], simulator)
    got = [unpack(bits, LANES, code) for bits in shown["codes"][tail:]]
    assert np.array_equal(got, np.concatenate(codes))
    noted = [unpack(bits, LANES, 2, signed=False) for bits in shown["branch_o"][tail:]]
    for k, mask in enumerate(masks):
        if mask is not None:
            assert np.array_equal(noted[k * rows : (k + 1) * rows], mask), k
    assert shown["clipped"][tail:] == clipped


def test_golden_is_the_derivative():
    """Against the equation: y by exact fractions, and where it does not round the mask is its slope."""
    for how in cases(16, 8):
        s = np.arange(-(1 << 11), 1 << 11)
        y, mask = requantise(s, how)
        for value, code, noted in zip(s.tolist(), y.tolist(), mask.tolist(), strict=True):
            slope = (
                Fraction(1, 1 << how.shift)
                if value > 0
                else Fraction(not how.relu, 1 << (how.shift + how.leak))
            )
            z = floor(slope * value + Fraction(1, 2))
            assert code == min(max(z, how.lo), how.top)
            inside = how.lo <= z <= how.top and slope != 0
            assert noted == (0 if not inside else 3 if value > 0 else 1)


@pytest.mark.parametrize(
    ("lanes", "total", "code", "message"),
    [(0, 24, 8, "lanes=0"), (1, 8, 8, "code=8 bits of a sum of 8; give 2 to 7"), (1, 24, 1, "code=1 bits")],
)
def test_bad_parameters(lanes, total, code, message):
    with pytest.raises(ValueError, match=message):
        Requantise(lanes, total, code)
