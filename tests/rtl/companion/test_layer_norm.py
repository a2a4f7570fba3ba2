# amaranth: UnusedElaboratable=no
"""Layer normalisation and its adjoint: equal to the golden bit for bit, rows of every length, stalls, cycles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pullback.rtl.companion import layer_norm as unit
from pullback.rtl.companion.build import RowBuild
from pullback.rtl.companion.layer_norm import LayerNorm, LayerNormAdjoint
from pullback.sim.bench.coverage import Coverage
from pullback.sim.golden.normalise import layer_norm, layer_norm_vjp

SIMULATIONS = [
    (37, 8, "icarus"),
    pytest.param(1, 8, "icarus", marks=pytest.mark.slow),
    pytest.param(37, 8, "verilator", marks=pytest.mark.slow),
    pytest.param(2, 0, "icarus", marks=pytest.mark.slow),
    pytest.param(64, 12, "icarus", marks=pytest.mark.slow),
    pytest.param(512, 8, "verilator", marks=pytest.mark.slow),
    pytest.param(512, 12, "icarus", marks=pytest.mark.slow),
    pytest.param(512, 0, "icarus", marks=pytest.mark.slow),
    pytest.param(1100, 8, "verilator", marks=pytest.mark.slow),
    pytest.param(1024, 8, "icarus", marks=pytest.mark.slow),
    pytest.param(4096, 0, "verilator", marks=pytest.mark.slow),
    pytest.param(4096, 12, "verilator", marks=pytest.mark.slow),
]

SHORT = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)]


def lengths(rng: np.random.Generator, longest: int, count: int) -> list[int]:
    """One element, two, odd and even ones, the longest; short ones in succession."""
    found = [1, 1, 1, longest, longest, 1, min(2, longest), max(longest - 1, 1)]
    return found + rng.integers(1, longest + 1, count).tolist()


def sides(code: np.ndarray, clipped: np.ndarray) -> list[str]:
    return [
        *(["low"] if (clipped & (code == -128)).any() else []),
        *(["high"] if (clipped & (code == 127)).any() else []),
        *(["within"] if (~clipped).any() else []),
    ]


def forward_rows(
    rng: np.random.Generator, longest: int, epsilon: int, count: int
) -> tuple[list[dict], Coverage]:
    several = longest > 2
    bins = Coverage(
        {
            "length": ["1", *(["odd", "even", "longest"] if several else [])],
            "fraction": range(8),
            "code": ["within", *(["high"] if longest > 1 else []), *(["low"] if several else [])],
            "variance": ["none", *(["some", "largest"] if longest > 1 else [])],
            "octave": ["even", *(["odd"] if longest > 1 else [])],
        }
    )
    rows = []
    for k, n in enumerate(lengths(rng, longest, count)):
        fraction = k % 8
        kind = k % 6
        x = {
            0: rng.integers(-128, 128, n),
            1: np.full(n, rng.choice([-128, 127, 0, 5])),
            2: np.where(rng.permutation(n) == 0, 127, -128),
            3: np.where(rng.permutation(n) == 0, -128, 127),
            4: rng.integers(-128, 128, n) >> rng.integers(0, 8),
            5: np.where(rng.permutation(n) < n // 2, -128, 127),
        }[kind]
        rows.append({"x": x, "fraction": fraction})
        found = layer_norm(x, fraction, epsilon=epsilon)
        bins.hit("fraction", fraction)
        if n == 1:
            bins.hit("length", "1")
        elif several:
            bins.hit("length", "odd" if n % 2 else "even")
            if n == longest:
                bins.hit("length", "longest")
        for side in sides(found.code, found.clipped):
            bins.hit("code", side)
        variance = np.var(x)
        if variance == 0:
            bins.hit("variance", "none")
        elif longest > 1:
            bins.hit("variance", "largest" if variance == 127.5**2 else "some")
        total = (n * int((x * x).sum()) - int(x.sum()) ** 2 << epsilon) + n * n
        if longest > 1 or total.bit_length() % 2:
            bins.hit("octave", "even" if total.bit_length() % 2 else "odd")
    return rows, bins


def check_forward(shown, rows, epsilon: int) -> None:
    assert len(shown.rows) == len(rows)
    for found, row in zip(shown.rows, rows, strict=True):
        wanted = layer_norm(row["x"], row["fraction"], epsilon=epsilon)
        np.testing.assert_array_equal(found["code"], wanted.code)
        np.testing.assert_array_equal(found["clipped"], wanted.clipped)
        np.testing.assert_array_equal(found["normalised"], wanted.normalised)
        assert (found["factor"] == wanted.factor).all() and (found["exponent"] == wanted.exponent).all()


@pytest.mark.parametrize(("longest", "epsilon", "simulator"), SIMULATIONS)
def test_forward_equals_golden(rows, longest, epsilon, simulator):
    build = RowBuild(longest=longest, epsilon=epsilon)
    for seed in (None, 1):
        given, bins = forward_rows(
            np.random.default_rng(longest), longest, epsilon, 40 if longest < 500 else 16
        )
        shown = rows.run(lambda: LayerNorm(build), given, name=str(build), simulator=simulator, seed=seed)
        check_forward(shown, given, epsilon)
        if seed is None:
            assert shown.stalled == 0
            long = [np.size(row["x"]) for row in given]
            ends = [shown.taken[k - 1] for k in np.cumsum(long)]
            dut = LayerNorm(build)
            ends = rows.leaves(ends, long, dut._codes.latency)
            rest = dut._behind + dut._out.latency
            assert [shown.offered[k - 1] for k in np.cumsum(long)] == [k + rest for k in ends]
    print(bins.report())
    bins.require_full()


def adjoint_rows(
    rng: np.random.Generator, longest: int, epsilon: int, count: int
) -> tuple[list[dict], Coverage]:
    """Rows off a forward, and some that no forward gives, on which each of the three cuts saturates on both sides."""
    every = ["low", "high", "within"]
    bins = Coverage(
        {
            "scale": range(8),
            "cotangent": every,
            "bracket": every,
            "correlation": every,
            "masked": ["yes", "no"],
        }
    )
    form, to = (
        find((longest - 1).bit_length()) for find in (unit.normalised_format, unit.correlation_format)
    )
    rows = []
    for k, n in enumerate(lengths(rng, longest, count)):
        scale, kind = k % 8, k % 5
        x = rng.integers(-128, 128, n) >> rng.integers(0, 8)
        saved = layer_norm(x, int(rng.integers(3, 8)), epsilon=epsilon)
        row = {
            "normalised": saved.normalised,
            "clipped": saved.clipped.astype(int),
            "cotangent": rng.integers(-128, 128, n),
            "factor": int(saved.factor[0]),
            "exponent": int(saved.exponent[0]),
            "scale": scale,
        }
        if kind == 3:
            # Of one sign, and larger than a row's own can be; each pair of signs in turn.
            row["normalised"] = np.full(n, form.hi if k // 5 % 2 else form.lo)
            row["cotangent"] = np.full(n, 127 if k // 10 % 2 else -128)
            row["exponent"] = int(rng.integers(0, (longest - 1).bit_length() + 7 + epsilon // 2))
        elif kind == 4:
            row["cotangent"] = rng.choice([-128, 127, 0], n)
            row["clipped"] = rng.integers(0, 2, n)
        rows.append(row)
        xbar, z, h = pulled(row, longest, epsilon)
        bins.hit("scale", scale)
        for name, part, its in (("cotangent", xbar, None), ("bracket", z, to), ("correlation", h, to)):
            lo, hi = (its.lo, its.hi) if its else (-128, 127)
            code = np.where(part.code == lo, -128, np.where(part.code == hi, 127, 0))
            for side in sides(code, part.clipped):
                bins.hit(name, side)
        bins.hit("masked", "yes" if row["clipped"].any() else "no")
    return rows, bins


def pulled(row: dict, longest: int, epsilon: int):
    return layer_norm_vjp(
        row["cotangent"], row["normalised"], row["clipped"].astype(bool), np.array([row["factor"]]),
        np.array([row["exponent"]]), row["scale"], longest=longest, epsilon=epsilon,
    )  # fmt: skip


def check_adjoint(shown, rows, longest: int, epsilon: int) -> None:
    assert len(shown.rows) == len(rows)
    for found, row in zip(shown.rows, rows, strict=True):
        xbar, z, h = pulled(row, longest, epsilon)
        np.testing.assert_array_equal(found["cotangent"], xbar.code)
        np.testing.assert_array_equal(found["clipped"], xbar.clipped | z.clipped | h.clipped)


@pytest.mark.parametrize(("longest", "epsilon", "simulator"), SIMULATIONS)
def test_adjoint_equals_golden(rows, longest, epsilon, simulator):
    build = RowBuild(longest=longest, epsilon=epsilon)
    for seed in (None, 1):
        given, bins = adjoint_rows(
            np.random.default_rng(longest), longest, epsilon, 60 if longest < 500 else 24
        )
        shown = rows.run(
            lambda: LayerNormAdjoint(build), given, name=str(build), simulator=simulator, seed=seed
        )
        check_adjoint(shown, given, longest, epsilon)
        if seed is None:
            assert shown.stalled == 0
            long = [np.size(row["cotangent"]) for row in given]
            ends = [shown.taken[k - 1] for k in np.cumsum(long)]
            dut = LayerNormAdjoint(build)
            ends = rows.leaves(ends, long, dut._pairs.latency)
            rest = dut._behind + dut._out.latency
            assert [shown.offered[k - 1] for k in np.cumsum(long)] == [k + rest for k in ends]
    print(bins.report())
    bins.require_full()


@pytest.mark.parametrize("n", [37, *SHORT])
def test_cycles(rows, n):
    """T rows of n elements take ``T n + n - 1 + latency`` clocks, forward and back."""
    build = RowBuild(longest=37)
    rng = np.random.default_rng(n)
    count = 5
    given = [{"x": rng.integers(-128, 128, n), "fraction": 4} for _ in range(count)]
    shown = rows.run(lambda: LayerNorm(build), given, name=str(build))
    assert shown.cycles == count * n + n - 1 + LayerNorm(build).latency
    saved = layer_norm(given[0]["x"], 4)
    row = {
        "normalised": saved.normalised, "clipped": saved.clipped.astype(int), "factor": int(saved.factor[0]),
        "exponent": int(saved.exponent[0]), "cotangent": rng.integers(-128, 128, n), "scale": 4,
    }  # fmt: skip
    shown = rows.run(lambda: LayerNormAdjoint(build), [row] * count, name=str(build))
    assert shown.cycles == count * n + n - 1 + LayerNormAdjoint(build).latency


@pytest.mark.slow
def test_a_row_that_is_too_long_is_cut_and_flagged(rows):
    build = RowBuild(longest=37)
    x = np.random.default_rng(0).integers(-128, 128, 40)
    shown = rows.run(lambda: LayerNorm(build), [{"x": x, "fraction": 5}], name=str(build))
    check_forward(shown, [{"x": x[:37], "fraction": 5}, {"x": x[37:], "fraction": 5}], 8)
    assert shown.seen["overlong"][0] == 0 and shown.seen["overlong"][-1] == 1


@pytest.mark.parametrize("reset", [95, *(pytest.param(k, marks=pytest.mark.slow) for k in (60, 140))])
def test_reset_while_rows_move(rows, reset):
    """What was inside is gone, and what comes after is whole: no sum is left from before."""
    build = RowBuild(longest=37)
    rng = np.random.default_rng(reset)
    given = [{"x": rng.integers(-128, 128, n), "fraction": 4} for n in (20, 37, 3, 30, 37, 11, 25, 9)]
    shown = rows.run(lambda: LayerNorm(build), given, name=str(build), reset=reset)
    every = np.concatenate([row["x"] for row in given])
    ends = np.cumsum([len(row["x"]) for row in given])
    first = sum(k <= reset for k in shown.taken)
    places = [first, *(end for end in ends.tolist() if end > first)]
    after = [{"x": every[a:b], "fraction": 4} for a, b in pairwise(places)]
    assert 0 < first < len(every) and len(after) > 1
    check_forward(shown, after, 8)


@pytest.mark.slow
def test_another_epsilon_is_caught(rows):
    """A unit with another epsilon than its golden is not equal to it: rows of little variance tell."""
    given, _ = forward_rows(np.random.default_rng(0), 37, 8, 30)
    shown = rows.run(lambda: LayerNorm(RowBuild(longest=37, epsilon=6)), given)
    with pytest.raises(AssertionError):
        check_forward(shown, given, 8)
