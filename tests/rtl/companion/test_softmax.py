# amaranth: UnusedElaboratable=no
"""Softmax and its adjoint: equal to the golden bit for bit, rows of every length, stalls, cycles to the clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pullback.rtl.companion import softmax as unit
from pullback.rtl.companion.build import RowBuild
from pullback.rtl.companion.softmax import Softmax, SoftmaxAdjoint
from pullback.sim.bench.coverage import Coverage
from pullback.sim.golden.softmax import softmax, softmax_vjp

SIMULATIONS = [
    (37, "icarus"),
    pytest.param(1, "icarus", marks=pytest.mark.slow),
    pytest.param(37, "verilator", marks=pytest.mark.slow),
    pytest.param(2, "icarus", marks=pytest.mark.slow),
    pytest.param(128, "icarus", marks=pytest.mark.slow),
    pytest.param(1024, "verilator", marks=pytest.mark.slow),
]

SHORT = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)]


def lengths(rng: np.random.Generator, longest: int, count: int) -> list[int]:
    """One element, two, odd and even ones, the longest; short ones in succession."""
    found = [1, 1, 1, longest, longest, 1, min(2, longest), max(longest - 1, 1)]
    return found + rng.integers(1, longest + 1, count).tolist()


def forward_rows(rng: np.random.Generator, longest: int, count: int) -> tuple[list[dict], Coverage]:
    bins = Coverage(
        {
            "length": ["1", *(["odd", "even", "longest"] if longest > 2 else [])],
            "fraction": range(16),
            "code": ["127"] if longest == 1 else ["0", "127", "between"],
            "power": ["within"] if longest == 1 else ["within", "saturated"],
            "largest": ["first"] if longest == 1 else ["first", "last", "several"],
        }
    )
    rows = []
    for k, n in enumerate(lengths(rng, longest, count)):
        fraction = k % 16
        kind = rng.integers(0, 5)
        x = {
            0: rng.integers(-128, 128, n),
            1: np.full(n, rng.integers(-128, 128)),
            2: np.where(rng.permutation(n) == 0, 127, -128),
            3: np.sort(rng.integers(-128, 128, n)),
            4: rng.integers(-128, 128, n) >> rng.integers(0, 8),
        }[int(kind)]
        rows.append({"x": x, "fraction": fraction})
        code, _ = softmax(x, fraction)
        bins.hit("fraction", fraction)
        if n == 1:
            bins.hit("length", "1")
        elif longest > 2:
            bins.hit("length", "odd" if n % 2 else "even")
            if n == longest:
                bins.hit("length", "longest")
        saturated = (x.max() - x) * 1.4427 * 2.0**-fraction >= 32
        bins.hit("power", "within", int((~saturated).sum()))
        bins.hit("code", "127", int((code == 127).sum()))
        bins.hit("largest", "first", int(x.argmax() == 0))
        if longest > 1:
            bins.hit("power", "saturated", int(saturated.sum()))
            bins.hit("code", "0", int((code == 0).sum()))
            bins.hit("code", "between", int(((code > 0) & (code < 127)).sum()))
            bins.hit("largest", "last", int(n > 1 and x.argmax() == n - 1))
            bins.hit("largest", "several", int((x == x.max()).sum() > 1))
    return rows, bins


def check_forward(shown, rows) -> None:
    assert len(shown.rows) == len(rows)
    for found, row in zip(shown.rows, rows, strict=True):
        code, probability = softmax(row["x"], row["fraction"])
        np.testing.assert_array_equal(found["code"], code)
        np.testing.assert_array_equal(found["probability"], probability)


@pytest.mark.parametrize(("longest", "simulator"), SIMULATIONS)
def test_forward_equals_golden(rows, longest, simulator):
    build = RowBuild(longest=longest)
    for seed in (None, 1):
        given, bins = forward_rows(np.random.default_rng(longest), longest, 40 if longest < 500 else 16)
        shown = rows.run(lambda: Softmax(build), given, name=str(build), simulator=simulator, seed=seed)
        check_forward(shown, given)
        # Unstalled, an element is taken in every clock, and rows leave as their lengths say.
        if seed is None:
            assert shown.stalled == 0
            long = [np.size(row["x"]) for row in given]
            ends = [shown.taken[k - 1] for k in np.cumsum(long)]
            dut = Softmax(build)
            middle = rows.leaves(ends, long, dut._codes.latency)
            ends = rows.leaves([k + dut._ahead for k in middle], long, dut._exponentials.latency)
            rest = dut._behind + dut._out.latency
            assert [shown.offered[k - 1] for k in np.cumsum(long)] == [k + rest for k in ends]
    print(bins.report())
    bins.require_full()


def adjoint_rows(rng: np.random.Generator, longest: int, count: int) -> tuple[list[dict], Coverage]:
    """Rows off a forward, and some that no forward gives, whose mean saturates on both sides."""
    bins = Coverage(
        {
            "scale": range(16),
            "cotangent": ["low", "high", "zero"],
            "mean": ["within", *(["low", "high"] if longest > 1 else [])],
            "clipped": ["no", "yes"],
        }
    )
    rows = []
    for k, n in enumerate(lengths(rng, longest, count)):
        scale = k % 16
        _, p = softmax(rng.integers(-128, 128, n) >> rng.integers(0, 7), int(rng.integers(0, 8)))
        g = rng.integers(-128, 128, n)
        if k % 5 == 3:
            p, g = rng.integers(1 << 15, 1 << 16, n), np.full(n, -128 if k % 2 else 127)
        elif k % 5 == 4:
            g = rng.choice([-128, 127, 0], n)
        rows.append({"probability": p, "cotangent": g, "scale": scale})
        xbar, mean = softmax_vjp(g, p, scale)
        bins.hit("scale", scale)
        bins.hit("cotangent", "low", int((xbar.code == -128).sum()))
        bins.hit("cotangent", "high", int((xbar.code == 127).sum()))
        bins.hit("cotangent", "zero", int((xbar.code == 0).sum()))
        side = "within" if not mean.clipped[0] else "low" if mean.code[0] < 0 else "high"
        bins.hit("mean", side)
        bins.hit("clipped", "yes" if (xbar.clipped | mean.clipped).any() else "no")
    return rows, bins


def check_adjoint(shown, rows) -> None:
    assert len(shown.rows) == len(rows)
    for found, row in zip(shown.rows, rows, strict=True):
        xbar, mean = softmax_vjp(row["cotangent"], row["probability"], row["scale"])
        np.testing.assert_array_equal(found["cotangent"], xbar.code)
        np.testing.assert_array_equal(found["clipped"], xbar.clipped | mean.clipped)


@pytest.mark.parametrize(("longest", "simulator"), SIMULATIONS)
def test_adjoint_equals_golden(rows, longest, simulator):
    build = RowBuild(longest=longest)
    for seed in (None, 1):
        given, bins = adjoint_rows(np.random.default_rng(longest), longest, 60 if longest < 500 else 24)
        shown = rows.run(
            lambda: SoftmaxAdjoint(build), given, name=str(build), simulator=simulator, seed=seed
        )
        check_adjoint(shown, given)
        if seed is None:
            assert shown.stalled == 0
            long = [np.size(row["cotangent"]) for row in given]
            ends = [shown.taken[k - 1] for k in np.cumsum(long)]
            dut = SoftmaxAdjoint(build)
            ends = rows.leaves(ends, long, dut._pairs.latency)
            rest = dut._behind + dut._out.latency
            assert [shown.offered[k - 1] for k in np.cumsum(long)] == [k + rest for k in ends]
    print(bins.report())
    bins.require_full()


def test_forward_on_verilator(rows):
    """One small build by default; the others are slow."""
    build = RowBuild(longest=9)
    given, _ = forward_rows(np.random.default_rng(9), 9, 200)
    shown = rows.run(lambda: Softmax(build), given, name=str(build), simulator="verilator", seed=2)
    check_forward(shown, given)


@pytest.mark.parametrize("n", [37, *SHORT])
def test_cycles(rows, n):
    """T rows of n elements: ``T n + 2 (n - 1) + latency`` forward, ``T n + n - 1 + latency`` back."""
    build = RowBuild(longest=37)
    rng = np.random.default_rng(n)
    count = 5
    given = [{"x": rng.integers(-128, 128, n), "fraction": 4} for _ in range(count)]
    shown = rows.run(lambda: Softmax(build), given, name=str(build))
    assert shown.cycles == count * n + 2 * (n - 1) + Softmax(build).latency
    given = [
        {"probability": rng.integers(0, 1 << 16, n), "cotangent": rng.integers(-128, 128, n), "scale": 4}
    ] * count
    shown = rows.run(lambda: SoftmaxAdjoint(build), given, name=str(build))
    assert shown.cycles == count * n + n - 1 + SoftmaxAdjoint(build).latency


def test_a_row_that_is_too_long_is_cut_and_flagged(rows):
    build = RowBuild(longest=37)
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, 40)
    shown = rows.run(lambda: Softmax(build), [{"x": x, "fraction": 2}], name=str(build))
    check_forward(shown, [{"x": x[:37], "fraction": 2}, {"x": x[37:], "fraction": 2}])
    assert shown.seen["overlong"][0] == 0 and shown.seen["overlong"][-1] == 1


@pytest.mark.slow
def test_an_adjoints_row_that_is_too_long(rows):
    build = RowBuild(longest=37)
    rng = np.random.default_rng(0)
    given = {
        "probability": rng.integers(0, 1 << 11, 40),
        "cotangent": rng.integers(-128, 128, 40),
        "scale": 3,
    }
    shown = rows.run(lambda: SoftmaxAdjoint(build), [given], name=str(build))
    parts = [
        {k: v if np.ndim(v) == 0 else v[part] for k, v in given.items()}
        for part in (slice(37), slice(37, 40))
    ]
    check_adjoint(shown, parts)
    assert shown.seen["overlong"][0] == 0 and shown.seen["overlong"][-1] == 1


@pytest.mark.parametrize("reset", [91, *(pytest.param(k, marks=pytest.mark.slow) for k in (70, 140))])
def test_reset_while_rows_move(rows, reset):
    """What was inside is gone, and what comes after is whole: no sum, no largest element is left from before."""
    build = RowBuild(longest=37)
    rng = np.random.default_rng(reset)
    given = [{"x": rng.integers(-128, 128, n), "fraction": 4} for n in (20, 37, 3, 30, 37, 11, 25, 9)]
    shown = rows.run(lambda: Softmax(build), given, name=str(build), reset=reset)
    every = np.concatenate([row["x"] for row in given])
    ends = np.cumsum([len(row["x"]) for row in given])
    first = sum(k <= reset for k in shown.taken)
    places = [first, *(end for end in ends.tolist() if end > first)]
    after = [{"x": every[a:b], "fraction": 4} for a, b in pairwise(places)]
    assert 0 < first < len(every) and len(after) > 1
    check_forward(shown, after)


@pytest.mark.parametrize(
    "fault",
    [
        ("LOG2_E", unit.LOG2_E + 40),
        ("MEAN", unit.SQ(8, 8)),
        ("PROBABILITY", unit.UQ(0, 15)),
    ],
    ids=["constant", "mean of 16 bits", "tape of 15 bits"],
)
@pytest.mark.slow
def test_planted_fault_is_caught(rows, fault, monkeypatch):
    """A unit with another constant or format is not the golden's."""
    name, value = fault
    monkeypatch.setattr(unit, name, value)
    build = RowBuild(longest=37)
    given, _ = forward_rows(np.random.default_rng(0), 37, 30)
    back, _ = adjoint_rows(np.random.default_rng(0), 37, 30)
    with pytest.raises(AssertionError):
        check_forward(rows.run(lambda: Softmax(build), given), given)
        check_adjoint(rows.run(lambda: SoftmaxAdjoint(build), back), back)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 0}, "longest=0; give 1 to 4096"),
        ({"longest": 4097}, "longest=4097; give 1 to 4096"),
        ({"longest": 8, "epsilon": 7}, "epsilon=7; give an even number, 0 to 12"),
        ({"longest": 8, "epsilon": 14}, "epsilon=14; give an even number"),
        ({"longest": 8, "family": "ice40"}, "family='ice40'; choose one of generic, ecp5, gowin, nexus"),
        ({"longest": 8, "ram": "tape"}, "ram='tape'; choose one of generic, ecp5"),
    ],
)
def test_bad_builds(options, message):
    with pytest.raises(ValueError, match=message):
        RowBuild(**options)


@pytest.mark.parametrize("make", [Softmax, SoftmaxAdjoint])
def test_rows_that_are_too_long_for_its_sums_are_named(make):
    with pytest.raises(ValueError, match="longest=1025; a softmax takes rows of 1 to 1024"):
        make(RowBuild(longest=1025))
