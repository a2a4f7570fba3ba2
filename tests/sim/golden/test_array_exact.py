"""T1 to T5 on what the array computes: products, convolutions, pools, and codes with their activation.

Equality over the integers; where something rounds, the remainders that it drops account for all of the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from pullback.sim.golden import matmul
from pullback.sim.golden.convolution import Convolution
from pullback.sim.golden.pool import MaxPool
from pullback.sim.golden.requantise import Requantisation, requantise, requantise_vjp

Array = np.ndarray


@dataclass(frozen=True)
class Bilinear:
    """``f(x, w)``, and its adjoints for a cotangent."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: Callable[[Array, Array], Array]
    dx: Callable[[Array, Array], Array]
    dw: Callable[[Array, Array], Array]

    def jvp(self, x: Array, w: Array, v: Array, u: Array) -> Array:
        return self.y(v, w) + self.y(x, u)


def convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], *, depthwise: bool = False, **options: int
) -> Bilinear:
    golden = Convolution(**options)
    return Bilinear(
        shape,
        kernel,
        golden.y,
        lambda dy, w: golden.dx(dy, w, shape),
        lambda x, dy: golden.dw(x, dy, (kernel[0], kernel[1]), depthwise=depthwise),
    )


CASES = {
    "matrix": Bilinear((5, 4), (4, 3), matmul.y, matmul.dx, matmul.dw),
    "convolution": convolution((2, 5, 6, 2), (3, 3, 2, 3), padding=1),
    "stride": convolution((1, 7, 6, 2), (3, 2, 2, 2), stride=2, padding=1),
    "dilation": convolution((1, 8, 7, 1), (3, 3, 1, 2), dilation=2, stride=2, padding=2),
    "depthwise": convolution((2, 5, 4, 3), (2, 2, 3), depthwise=True, stride=2),
}


def dot(a: Array, b: Array) -> int:
    """Over Python's integers, of any size."""
    assert a.shape == b.shape
    return sum(int(p) * int(q) for p, q in zip(a.ravel(), b.ravel(), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_t1_t2_adjoints(case):
    """<J(v, u), ybar> = <v, xbar> + <u, wbar>: over the integers, and modulo 2^64 with entries of any size."""
    f = CASES[case]
    rng = np.random.default_rng(1)
    for lo, hi, modulo in ((-128, 128, 0), (-(1 << 63), (1 << 63) - 1, 1 << 64)):
        x, v = rng.integers(lo, hi, (2, *f.x))
        w, u = rng.integers(lo, hi, (2, *f.w))
        ybar = rng.integers(lo, hi, f.y(x, w).shape)
        left = dot(f.jvp(x, w, v, u), ybar)
        right = dot(v, f.dx(ybar, w)) + dot(u, f.dw(x, ybar))
        assert (left - right) % modulo == 0 if modulo else left == right


@pytest.mark.parametrize("case", CASES)
def test_t4_exactly_quadratic(case):
    f = CASES[case]
    rng = np.random.default_rng(2)
    x, v = rng.integers(-128, 128, (2, *f.x))
    w, u = rng.integers(-128, 128, (2, *f.w))

    def rest(h: int) -> Array:
        return f.y(x + h * v, w + h * u) - f.y(x, w) - h * f.jvp(x, w, v, u)

    assert np.array_equal(rest(2), 4 * rest(1)) and np.array_equal(rest(4), 16 * rest(1)) and rest(1).any()
    assert np.array_equal(f.y(x + v, w + u) - f.y(x - v, w - u), 2 * f.jvp(x, w, v, u))


@pytest.mark.parametrize(
    "window", [MaxPool(height=2, width=2, stride=2), MaxPool(height=3, width=3, stride=1)]
)
def test_t1_pools(window):
    """The pool is linear where its taps are: <pool'(v), ybar> = <v, xbar>, ties included."""
    rng = np.random.default_rng(3)
    shape = (2, 5, 6, 2)
    for values in (2, 256):
        x, v = rng.integers(0, values, shape), rng.integers(-128, 128, shape)
        y, t = window.y(x)
        ybar = rng.integers(-128, 128, y.shape)
        # v at the tap that each window took, looked up one by one.
        tangent = np.empty_like(y)
        for b, i, j, c in np.ndindex(*y.shape):
            line, column = divmod(int(t[b, i, j, c]), window.width)
            tangent[b, i, j, c] = v[b, i * window.stride + line, j * window.stride + column, c]
        assert dot(tangent, ybar) == dot(v, window.dx(ybar, t, shape))


NETWORK = (
    (CASES["convolution"], Requantisation(shift=9, leak=2)),
    (Bilinear((2, 90), (90, 4), matmul.y, matmul.dx, matmul.dw), Requantisation(shift=8, relu=True, top=100)),
)


def forward(x: Array, ws: list[Array]) -> tuple[list[Array], list[Array], Array]:
    """Operands of the layers, their branches, and the last codes."""
    operands, branches = [], []
    for (f, how), w in zip(NETWORK, ws, strict=True):
        operands.append(x.reshape(f.x))
        x, noted = requantise(f.y(operands[-1], w), how)
        branches.append(noted)
    return operands, branches, x


def slope(branches: Array, how: Requantisation) -> list[Fraction]:
    """Derivative of a code by its sum where a branch was taken, one by one."""
    return [
        Fraction(0) if not b & 1 else Fraction(1, 1 << (how.shift + (0 if b & 2 else how.leak)))
        for b in branches.ravel().tolist()
    ]


def scaled(values: list[Fraction] | Array, factors: list[Fraction]) -> list[Fraction]:
    flat = values.ravel().tolist() if isinstance(values, np.ndarray) else values
    return [v * f for v, f in zip(flat, factors, strict=True)]


def fdot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def linear(f: Callable[[Array], Array], values: list[Fraction], shape: tuple[int, ...]) -> list[Fraction]:
    """f of fractions, by a common denominator."""
    denominator = np.lcm.reduce([v.denominator for v in values])
    scaled_up = np.array([int(v * int(denominator)) for v in values], object).reshape(shape)
    return [Fraction(int(v), int(denominator)) for v in f(scaled_up.astype(np.int64)).ravel()]


def test_t3_remainders_are_the_whole_difference():
    """A cotangent narrows to codes between two layers: <v, xbar> + <u, wbar> - <J(v, u), ybar> is the sum over
    these cuts of <tangent, remainder>, exactly, saturation included.
    """
    rng = np.random.default_rng(4)
    (f, how), (g, last) = NETWORK
    x, v = rng.integers(-128, 128, (2, *f.x))
    ws = [rng.integers(-128, 128, each.w) for each, _ in NETWORK]
    us = [rng.integers(-128, 128, each.w) for each, _ in NETWORK]
    operands, branches, y = forward(x, ws)
    assert all(len(np.unique(b)) >= 2 for b in branches)
    ybar = rng.integers(-128, 128, y.shape)

    # Backward, in codes: first the activation's adjoint, then the products.
    sums1 = requantise_vjp(ybar, branches[1], Requantisation(relu=True))  # no shift: nothing is dropped
    hbar = g.dx(sums1, ws[1])
    back = Requantisation(shift=6, leak=2)
    codes0 = requantise_vjp(hbar, branches[0].reshape(hbar.shape), back)
    assert (codes0 == 127).any() and (codes0 == -128).any()
    # The cotangent of layer 0's sums is codes0 times 2^-(9 - 6), that of layer 1's sums1 times 2^-8.
    scale0, scale1 = (
        Fraction(1, 1 << (how.shift - 6)) * Fraction(1, 1 << last.shift),
        Fraction(1, 1 << last.shift),
    )
    right = (
        fdot(
            [Fraction(int(a)) for a in v.ravel()],
            [Fraction(int(a)) * scale0 for a in f.dx(codes0.reshape(branches[0].shape), ws[0]).ravel()],
        )
        + fdot(
            [Fraction(int(a)) for a in us[0].ravel()],
            [Fraction(int(a)) * scale0 for a in f.dw(operands[0], codes0.reshape(branches[0].shape)).ravel()],
        )
        + fdot(
            [Fraction(int(a)) for a in us[1].ravel()],
            [Fraction(int(a)) * scale1 for a in g.dw(operands[1], sums1).ravel()],
        )
    )
    # Forward, tangents in fractions.
    t0 = f.jvp(operands[0], ws[0], v, us[0])
    h = scaled(t0, slope(branches[0], how))
    t1 = [
        a + Fraction(int(b))
        for a, b in zip(linear(lambda z: g.y(z, ws[1]), h, g.x), g.y(operands[1], us[1]).ravel(), strict=True)
    ]
    left = fdot(scaled(t1, slope(branches[1], last)), [Fraction(int(a)) for a in ybar.ravel()])
    # What the cut of the cotangent dropped: its exact value less the code.
    exact = scaled(hbar.reshape(branches[0].shape), slope(branches[0], back))
    remainder = [e - Fraction(int(c)) for e, c in zip(exact, codes0.ravel(), strict=True)]
    assert any(remainder)
    assert left - right == fdot([Fraction(int(a)) * scale0 for a in t0.ravel()], remainder)


def test_t5_every_impulse():
    """All columns of the Jacobian by impulses forward are all its rows by impulses backward."""
    rng = np.random.default_rng(5)
    f = convolution((1, 3, 3, 1), (2, 2, 1, 2), padding=1)
    x, w = rng.integers(-128, 128, f.x), rng.integers(-128, 128, f.w)
    _, branches = requantise(f.y(x, w), Requantisation(shift=7, relu=True, top=60))
    passes = (branches & 1).ravel()
    assert len(np.unique(passes)) == 2
    columns = []
    for which, shape in ((0, f.x), (1, f.w)):
        for k in range(int(np.prod(shape))):
            impulse = np.zeros(shape, np.int64)
            impulse.flat[k] = 1
            zero = np.zeros(f.w if which == 0 else f.x, np.int64)
            t = f.jvp(x, w, impulse, zero) if which == 0 else f.jvp(x, w, zero, impulse)
            columns.append(t.ravel() * passes)
    rows = []
    for k in range(len(passes)):
        impulse = np.zeros(branches.shape, np.int64)
        impulse.flat[k] = 1
        s = requantise_vjp(impulse, branches, Requantisation(relu=True))
        rows.append(np.concatenate([f.dx(s, w).ravel(), f.dw(x, s).ravel()]))
    np.testing.assert_array_equal(np.array(columns).T, np.array(rows))


@pytest.mark.parametrize("relu", [False, True])
def test_every_code_and_its_derivative(relu):
    """Every sum of 12 bits: the branch noted is the one whose difference quotient the codes have."""
    for shift, leak in product((0, 3), (0, 2)):
        how = Requantisation(bits=6, shift=shift, leak=leak, relu=relu, top=20)
        sums = np.arange(-2048, 2048)
        codes, branches = requantise(sums, how)
        for s, code, branch in zip(sums.tolist(), codes.tolist(), branches.tolist(), strict=True):
            step = shift if s > 0 else shift + leak
            exact = Fraction(0) if relu and s <= 0 else Fraction(s, 1 << step)
            rounded = (exact + Fraction(1, 2)).__floor__()
            assert code == min(max(rounded, -32), 20)
            passes = code == rounded and not (relu and s <= 0)
            assert branch == (0 if not passes else 3 if s > 0 else 1)
