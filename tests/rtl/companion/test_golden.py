"""The golden models of the companions: exact tests of their adjoints, and float64 autograd within a bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pullback.sim.golden import normalise, softmax
from pullback.sim.golden.normalise import Narrowed, interpolated, layer_norm, layer_norm_vjp, projected
from pullback.sim.golden.softmax import centred, softmax_vjp

LENGTHS = (1, 2, 3, 7, 16, 33)
ENTRY = 1 << 40


def logits(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(-128, 128, n) >> rng.integers(0, 6)


class SoftmaxCase:
    """A row, its operator and its Jacobian at what the forward left on the tape."""

    fraction = 32

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        _, self.p = softmax.softmax(logits(rng, n), int(rng.integers(0, 8)))

    def pull(self, w: np.ndarray) -> np.ndarray:
        return centred(w, self.p.astype(w.dtype))

    def jacobian(self) -> np.ndarray:
        return softmax.jacobian(self.p)


class LayerNormCase:
    """The same of a layer normalisation, over the row's factor."""

    fraction = 20

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.saved = layer_norm(logits(rng, n), 5)

    def pull(self, w: np.ndarray) -> np.ndarray:
        return projected(w, self.saved.normalised.astype(w.dtype))

    def jacobian(self) -> np.ndarray:
        return normalise.jacobian(self.saved.normalised)


CASES = [SoftmaxCase, LayerNormCase]


def entries(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(-ENTRY, ENTRY, n).astype(object)


def defect(case, rng: np.random.Generator, n: int) -> int:
    """T1: <J v, w> - <v, xbar>, over the integers."""
    v, w = entries(rng, n), entries(rng, n)
    return int((case.jacobian() @ v) @ w - v @ case.pull(w))


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("n", LENGTHS)
def test_dot_product(make, n):
    for seed in range(5):
        rng = np.random.default_rng([n, seed])
        assert defect(make(rng, n), rng, n) == 0


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("n", LENGTHS)
def test_dot_product_in_ring(make, n):
    """T2: the same modulo 2**64 with entries of the full range, in wrapping 64-bit integers."""
    for seed in range(5):
        rng = np.random.default_rng([n, seed])
        case = make(rng, n)
        v, w = (rng.integers(-(1 << 63), 1 << 63, n, np.int64) for _ in range(2))
        table = np.array([[int(x) & ((1 << 64) - 1) for x in row] for row in case.jacobian()], np.uint64)
        pushed = (table * v.astype(np.uint64)).sum(1)
        left = (pushed * w.astype(np.uint64)).sum()
        with np.errstate(over="ignore"):
            right = (v.astype(np.uint64) * case.pull(w).astype(np.uint64)).sum()
        assert left == right


@pytest.mark.parametrize("make", CASES)
def test_impulses(make):
    """T5: the pullback of every impulse is a row of the Jacobian that the quotient rule gives, entry by entry."""
    for n in LENGTHS:
        case = make(np.random.default_rng(n), n)
        table = case.jacobian()
        for k in range(n):
            impulse = np.zeros(n, object)
            impulse[k] = 1
            assert (case.pull(impulse) == table[k]).all()


@pytest.mark.parametrize("n", LENGTHS)
def test_sums_are_quadratic(n):
    """T4: ``sum p g`` and ``sum g xhat`` before their cuts are exactly quadratic along a line through both operands."""
    rng = np.random.default_rng(n)
    g, p, xhat = rng.integers(-9, 9, n), rng.integers(0, 1 << 13, n), rng.integers(-(1 << 12), 1 << 12, n)
    found = []
    for h in (1, 2, 4):
        mean = softmax_vjp(h * g, h * p, 0)[1]
        along = layer_norm_vjp(
            h * g, h * xhat, np.zeros(n, bool), np.array([65536]), np.array([4]), 0, longest=64
        )[2]
        found.append(((mean.code << 7) - mean.remainder, (along.code << 7) - along.remainder))
    for k in range(2):
        assert found[1][k] == 4 * found[0][k] and found[2][k] == 16 * found[0][k]


def out_of_range(cut: Narrowed, shift: int) -> int:
    """Codes that are not the value rounded half up and saturated."""
    rounded = (2 * cut.remainder <= 1 << shift) & (2 * cut.remainder > -(1 << shift))
    return int((~(rounded | cut.clipped)).sum())


@pytest.mark.parametrize("n", LENGTHS)
def test_remainders_of_softmax(n):
    """T3: what the deployed adjoint loses is what its two cuts drop, weighed by the tangents there, exactly."""
    for scale in (0, 3, 9):
        rng = np.random.default_rng([n, scale])
        case = SoftmaxCase(rng, n)
        v, w = rng.integers(-1000, 1000, n), rng.integers(-128, 128, n)
        xbar, mean = softmax_vjp(w, case.p, scale)
        below = 25 - scale
        # In units of 2**-32: xbar 2**(32 - scale) = p (w - sum p w) - p e_mean + e_xbar 2**7.
        left = sum(int(a) * int(b) for a, b in zip(v, xbar.code, strict=True)) << (32 - scale)
        exact = int((case.jacobian() @ v.astype(object)) @ w.astype(object))
        lost = int((v * xbar.remainder).sum()) << 7
        lost -= int((v * case.p).sum()) * int(mean.remainder[0])
        assert left - exact == lost
        assert out_of_range(xbar, below) == 0 and out_of_range(mean, 7) == 0


@pytest.mark.parametrize("n", LENGTHS)
def test_remainders_of_layer_norm(n):
    """T3: three cuts."""
    longest, epsilon = 64, 8
    bits = 6
    for scale in (0, 3, 7):
        rng = np.random.default_rng([n, scale])
        case = LayerNormCase(rng, n)
        saved = case.saved
        clipped = rng.random(n) < 0.2
        v, w = rng.integers(-1000, 1000, n), rng.integers(-128, 128, n)
        xbar, z, h = layer_norm_vjp(
            w,
            saved.normalised,
            clipped,
            saved.factor,
            saved.exponent,
            scale,
            longest=longest,
            epsilon=epsilon,
        )
        k, r = int(saved.exponent[0]), int(saved.factor[0])
        below = (9 - bits) + 16 + k - epsilon // 2 - scale
        masked = np.where(clipped, 0, w).astype(object)
        exact = r * int((case.jacobian() @ v.astype(object)) @ masked)
        # In units of 2**-20 of the bracket, times r.
        left = sum(int(a) * int(b) for a, b in zip(v, xbar.code, strict=True)) << (below + 11 + bits)
        lost = int((v * xbar.remainder).sum()) << (11 + bits)
        lost += r * (int((v * z.remainder).sum()) << (1 + bits))
        lost -= r * int((v * saved.normalised).sum()) * int(h.remainder[0])
        assert left - exact == lost
        for cut, shift in ((xbar, below), (z, 10), (h, 1 + bits)):
            assert out_of_range(cut, shift) == 0


def softmax_bound(n: int) -> float:
    """How far a probability is from the real one, but for its own cut.

    An exponential is off by 1.25 units of 2**-16 (table), 1/2 (its cut) and less than 1/2 (constant and cut of t), the
    largest by none; the sum by n times that, of at least 1; the reciprocal by 1.25 + 1/2 (cut of m) of at least 1/2.
    """
    return (2.25 + 2.25 * n + 3.5) / 65536


@pytest.mark.parametrize("n", LENGTHS)
def test_softmax_beside_autograd(n):
    """Codes and cotangents against PyTorch in float64, each within half a unit of its cut and the bound of p."""
    worst: dict[str, float] = {"probability": 0, "code": 0, "cotangent": 0}
    bound = softmax_bound(n)
    for seed in range(40):
        rng = np.random.default_rng([n, seed])
        x, fraction, scale = logits(rng, n), int(rng.integers(0, 8)), int(rng.integers(0, 8))
        g = rng.integers(-128, 128, n)
        real = torch.tensor(x * 2.0**-fraction, dtype=torch.float64, requires_grad=True)
        y = torch.softmax(real, 0)
        y.backward(torch.tensor(g, dtype=torch.float64))
        code, p = softmax.softmax(x, fraction)
        y = y.detach().numpy()
        top = (code == 127) | (p == 65535)  # these may have saturated
        error = np.abs(p / 65536 - y) - np.where(p == 65535, 2.0**-16, 2.0**-17)
        worst["probability"] = max(worst["probability"], error.max() / bound)
        error = np.abs(code / 128 - y) - np.where(top, 2.0**-7, 2.0**-8)
        worst["code"] = max(worst["code"], error.max() / bound)
        xbar, mean = softmax_vjp(g, p, scale)
        assert not mean.clipped.any()
        # p (g - sum p g) with |g| up to 128: of p by 256, of the sum by 128 n p.
        off = bound + 2.0**-16
        allowed = 256 * off + y * (128 * n * off + 2.0**-10) + 128 * n * off**2
        wrong = np.abs(xbar.code * 2.0**-scale - real.grad.numpy()) - 2.0**-scale / 2
        worst["cotangent"] = max(worst["cotangent"], np.where(xbar.clipped, 0, wrong / allowed).max())
    print(f"n = {n}: largest part of the bound used: {worst}")
    assert max(worst.values()) <= 1


def layer_norm_parts(
    x: np.ndarray,
    g: np.ndarray,
    y: torch.Tensor,
    real: torch.Tensor,
    fraction: int,
    scale: int,
    epsilon: int,
    *,
    longest: int = 64,
) -> dict[str, float]:
    """Largest parts of their bounds that a row's values and cotangents use; ``y`` is PyTorch's of ``real``.

    The factor is off by less than 2**-14 of itself: 1.25 units (table) and 1/2 (cut of m) of at least 1/2. Cut to 9
    fractional bits, less one for every doubling of ``longest``, are n times the mean of ``g xhat``, and n times the
    bracket.
    """
    n, relative = len(x), 2.0**-14
    half = 2.0 ** ((longest - 1).bit_length() - 10)
    saved = layer_norm(x, fraction, epsilon=epsilon)
    masked = np.where(saved.clipped, 0, g)
    y.backward(torch.tensor(masked, dtype=torch.float64), retain_graph=True)
    exact, grad = y.detach().numpy(), real.grad.numpy()
    off = 2.0**-11 + np.abs(exact) * relative
    allowed = 2.0 ** -(fraction + 1) + np.abs(exact) * relative
    error = np.abs(saved.code * 2.0**-fraction - exact) / allowed
    used = {
        "normalised": (np.abs(saved.normalised / 1024 - exact) / off).max(),
        "code": np.where(saved.clipped, 0, error).max(),
    }
    xbar, z, h = layer_norm_vjp(
        g,
        saved.normalised,
        saved.clipped,
        saved.factor,
        saved.exponent,
        scale,
        longest=longest,
        epsilon=epsilon,
    )
    assert not h.clipped.any()
    sigma = np.sqrt(np.var(x) + 2.0**-epsilon)
    mean, mean_off = np.abs(masked * exact).mean(), (np.abs(masked) * off).mean() + half / n
    bracket = off * (mean + mean_off) + np.abs(exact) * mean_off + half / n
    allowed = (bracket + (np.abs(grad) * sigma + bracket) * relative) / sigma
    wrong = np.abs(xbar.code * 2.0**-scale - grad) - 2.0**-scale / 2
    return used | {"cotangent": np.where(xbar.clipped | z.clipped, 0, wrong / allowed).max()}


@pytest.mark.parametrize("epsilon", [0, 8, 12])
@pytest.mark.parametrize("n", LENGTHS)
def test_layer_norm_beside_autograd(n, epsilon):
    """The same of a layer normalisation."""
    worst: dict[str, float] = {"normalised": 0, "code": 0, "cotangent": 0}
    for seed in range(40):
        rng = np.random.default_rng([n, seed])
        x, fraction, scale = logits(rng, n), int(rng.integers(0, 8)), int(rng.integers(0, 8))
        g = rng.integers(-128, 128, n)
        real = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = torch.nn.functional.layer_norm(real, (n,), eps=2.0**-epsilon)
        for name, used in layer_norm_parts(x, g, y, real, fraction, scale, epsilon).items():
            worst[name] = max(worst[name], float(used))
    print(f"n = {n}, epsilon = 2**-{epsilon}: largest part of the bound used: {worst}")
    assert max(worst.values()) <= 1


@pytest.mark.parametrize("n", [33, 4096])
def test_batch_normalisation_is_rows_of_channels(n):
    """In training a batch [N, C] is normalised along N: a channel is a row."""
    rng = np.random.default_rng(n)
    batch = rng.integers(-128, 128, (n, 5)) >> rng.integers(0, 5, 5)
    batch[1:, 4] = batch[0, 4]  # all alike but one: as far out as there is
    batch[0, 4] -= 1 if batch[0, 4] == 127 else -1
    channels = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in batch.T]
    y = torch.nn.functional.batch_norm(torch.stack(channels, 1), None, None, training=True, eps=2.0**-8)
    for k, real in enumerate(channels):
        g = rng.integers(-128, 128, n)
        used = layer_norm_parts(batch[:, k], g, y[:, k], real, 4, 4, 8, longest=max(64, n))
        assert max(used.values()) <= 1, used


def faults():
    """Adjoints that are wrong in one place: name -> (case, pullback of a row)."""

    def lost_last(case, w):
        out = case.pull(w)
        out[-1] = 0
        return out

    def one_unit(case, w):
        out = case.pull(w)
        out[1] = out[1] + 1
        return out

    def swapped(case, w):
        out = case.pull(w)
        out[[0, 1]] = out[[1, 0]]
        return out

    def mean_without_last(case, w):
        p = case.p.astype(object)
        return p * (w * 65536 - (p * w)[:-1].sum())

    def mean_unweighed(case, w):
        p = case.p.astype(object)
        return p * (w * 65536 - w.sum() * 65536 // len(w))

    def no_mean(case, w):
        xhat = case.saved.normalised.astype(object)
        return len(w) * w * (1 << 20) - xhat * (w * xhat).sum()

    def no_correlation(case, w):
        return (len(w) * w - w.sum()) * (1 << 20)

    def wrong_sign(case, w):
        xhat = case.saved.normalised.astype(object)
        return (len(w) * w - w.sum()) * (1 << 20) + xhat * (w * xhat).sum()

    common = (lost_last, one_unit, swapped)
    yield from ((SoftmaxCase, f) for f in (*common, mean_without_last, mean_unweighed))
    yield from ((LayerNormCase, f) for f in (*common, no_mean, no_correlation, wrong_sign))


@pytest.mark.parametrize(("make", "fault"), list(faults()), ids=lambda x: x.__name__)
def test_planted_fault_is_caught(make, fault):
    """By T1 with one draw of entries, and by T5."""
    rng = np.random.default_rng(5)
    case = make(rng, 7)
    table = case.jacobian()
    v, w = entries(rng, 7), entries(rng, 7)
    assert (table @ v) @ w != v @ fault(case, w)
    impulses = np.eye(7, dtype=int).astype(object)
    assert any((fault(case, impulse) != row).any() for impulse, row in zip(impulses, table, strict=True))


def test_a_table_without_interpolation_is_caught(monkeypatch):
    """Autograd's bound sees a table that is read at the nearest knot below."""
    monkeypatch.setattr(normalise, "interpolated", lambda function, w: interpolated(function, w & ~255))
    with pytest.raises(AssertionError):
        test_layer_norm_beside_autograd(33, 8)
