"""Golden against autograd: a third derivation of the same gradient."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from pullback.sim.golden import CLIP_MODES, DEMOSAICS, exact, isp
from pullback.sim.golden.border import BORDERS
from pullback.sim.golden.twin import Twin

SHAPE = (2, 5, 6)


def real(codes, f):
    return torch.tensor(np.asarray(codes, np.float64) * 2.0**-f)


def floats(integers, f):
    """Exact integers -> the nearest float64."""
    return np.array([float(Fraction(int(v), 2**f)) for v in np.ravel(integers)]).reshape(np.shape(integers))


def autograd(twin, raw, theta, *, w=None, target=None, loss=None, **at):
    """Picture, cotangent of the raw and of the parameters by autograd."""
    x, leaves = real(raw, 16).requires_grad_(), twin.decode(theta)
    y = twin(x, leaves, **at)
    if target is None:
        y.backward(real(w, 16))
    else:
        twin.loss(y, real(target, 12), **(loss or {})).backward()
    thetabar = {
        name: np.zeros(len(leaf)) if leaf.grad is None else leaf.grad.numpy() for name, leaf in leaves.items()
    }
    return y.detach().numpy(), x.grad.numpy(), thetabar


def cases(demosaic, border) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings of the same pipeline: phase, clip mode, bypass."""
    names = isp(demosaic).names
    for cfa in range(4):
        yield {"cfa": cfa}, CLIP_MODES[cfa % 3]
    if border == "mirror":
        for name in names:
            yield {"cfa": 1, "bypass": [name]}, "disconnected"


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_bit_true_forward_and_deployed_gradient_are_equal(demosaic, border):
    """With the cotangent cuts in autograd's way, all codes and accumulators are the same: no tolerance."""
    rng = np.random.default_rng(1)
    for at, clip in cases(demosaic, border):
        golden = isp(demosaic, border=border, clip=clip, curve="per_channel" if at["cfa"] % 2 else "shared")
        raw, theta = exact.stimulus(golden, rng, SHAPE)
        w = rng.integers(-1 << 17, 1 << 17, (2, 3, 5, 6))
        gradient = golden.vjp(raw, theta, cotangent=w, **at)
        y, xbar, thetabar = autograd(Twin(golden, cotangent_cuts=True), raw, theta, w=w, **at)
        assert np.array_equal(y * 4096, gradient.y)
        assert np.array_equal(xbar * 2.0**gradient.xbar_f, gradient.xbar)
        for name, value in gradient.thetabar.items():
            assert abs(value).max() < 1 << 53
            assert np.array_equal(thetabar[name] * 2.0 ** gradient.thetabar_f[name], value), name


@pytest.mark.parametrize(
    ("kind", "delta", "scale"), [("squared", 4095, 256), ("l1", 1, 128), ("huber", 321, 4096)]
)
def test_fused_losses_are_equal(kind, delta, scale):
    rng = np.random.default_rng(2)
    golden = isp("hamilton_adams")
    raw, theta = exact.stimulus(golden, rng, SHAPE)
    target = rng.integers(0, 4096, (2, 3, 5, 6))
    gradient = golden.vjp(raw, theta, target=target, kind=kind, delta=delta, scale=scale)
    options: dict[str, Any] = {"kind": kind, "delta": delta / 4096, "scale": scale / 256}
    twin = Twin(golden, cotangent_cuts=True)
    y, xbar, thetabar = autograd(twin, raw, theta, target=target, loss=options)
    assert np.array_equal(xbar * 2.0**13, gradient.xbar)
    for name, value in gradient.thetabar.items():
        assert np.array_equal(thetabar[name] * 2.0 ** gradient.thetabar_f[name], value), name
    options["scale"] = 1.0
    value = twin.loss(torch.tensor(y), real(target, 12), **options)
    assert float(value) == float(Fraction(gradient.loss, 2**25))


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_uncut_gradient_is_autograds_up_to_float64(demosaic):
    """Without cotangent cuts the golden is exact and autograd rounds: each sum to a few of its own 2**-53."""
    rng = np.random.default_rng(3)
    golden = isp(demosaic)
    raw, theta = exact.stimulus(golden, rng, SHAPE)
    w = rng.integers(-1 << 17, 1 << 17, (2, 3, 5, 6))
    gradient = golden.vjp(raw, theta, cotangent=w, cotangents="exact")
    _, xbar, thetabar = autograd(Twin(golden), raw, theta, w=w)
    expected = {name: floats(gradient.thetabar[name], f) for name, f in gradient.thetabar_f.items()}
    for ours, theirs in [(floats(gradient.xbar, gradient.xbar_f), xbar)] + [
        (expected[name], thetabar[name]) for name in expected
    ]:
        # 2**10 roundings at most, each of a partial sum below 2**4 times the largest entry (checked here).
        assert abs(ours - theirs).max() <= 2.0**-39 * abs(ours).max()


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_deployed_gradient_is_within_half_an_lsb_per_cut_of_autograd(demosaic):
    """T3 turned into a bound: an entry of the gradient is off by at most half an LSB of each cotangent cut
    times the L1 norm of that entry's tangent there."""
    rng = np.random.default_rng(4)
    golden = isp(demosaic)
    raw = rng.integers(10000, 50000, (4, 4))
    theta = {name: codes + rng.integers(0, 100, codes.shape) for name, codes in golden.theta.items()}
    w = rng.integers(-1 << 14, 1 << 14, (3, 4, 4))
    gradient = golden.vjp(raw, theta, cotangent=w)
    assert not any(cut.clipped.any() for cut in gradient.cuts.values())
    _, xbar, thetabar = autograd(Twin(golden), raw, theta, w=w)

    def bound(tangent):
        return sum(
            0.5
            * 2.0**-stage.cotangent_i.f
            * float(abs(tangent.inputs[stage.name][0]).sum())
            * 2.0 ** -tangent.inputs[stage.name][1]
            for stage in golden.stages
            if gradient.cuts[stage.name].f > stage.cotangent_i.f
        )

    slack = 1 + 1e-9
    used = 0.0
    for site in np.ndindex(4, 4):
        v = np.zeros((4, 4), np.int64)
        v[site] = 1 << 16  # the real tangent 1
        error = abs(gradient.xbar[site] * 2.0**-gradient.xbar_f - xbar[site])
        assert error <= bound(golden.jvp(raw, theta, v=v)) * slack + 1e-12
    for name, parameter in golden.parameters.items():
        for k in range(parameter.entries):
            dtheta = np.zeros(parameter.entries, np.int64)
            dtheta[k] = 1 << parameter.format.f
            limit = bound(golden.jvp(raw, theta, dtheta={name: dtheta}))
            error = abs(gradient.thetabar[name][k] * 2.0 ** -gradient.thetabar_f[name] - thetabar[name][k])
            assert error <= limit * slack + 1e-12
            used = max(used, error / limit if limit else 0.0)
    assert used > 0.01  # the bound is not idle


@pytest.mark.parametrize("demosaic", ["filter_bank", "bilinear"])
def test_forward_is_within_half_an_lsb_per_cut_of_the_smooth_twin(demosaic):
    """Each stage is Lipschitz in its input, so the error after stage k is at most L_k times that before it
    plus half an LSB of its cut. Saturation never increases it."""
    rng = np.random.default_rng(5)
    golden = isp(demosaic)
    raw, theta = exact.stimulus(golden, rng, SHAPE)
    smooth = Twin(golden, rounding=False)(real(raw, 16), Twin(golden).decode(theta)).detach().numpy()
    rows = abs(theta["ccm.matrix"].reshape(3, 3)).sum(1).max() / 2**10
    lipschitz = {
        "black_level": 1.0,
        "white_balance": theta["white_balance.gain"].max() / 2**10,
        "bilinear": 1.0,
        "ccm": rows,
        "tone_curve": 64 * abs(np.diff(theta["tone_curve.knots"])).max() / 2**15,
    }
    if demosaic == "filter_bank":
        taps = np.array([1, 2, 2, 2, 4, 4, 2, 4, 4])
        coefficients = theta["filter_bank.coefficient"].reshape(8, 9)
        lipschitz["filter_bank"] = max(1.0, float((abs(coefficients) * taps).sum(1).max()) / 2**12)
    error = 0.0
    for stage in golden.stages:
        exact_cut = stage.f <= stage.o_format.f
        # Where the smooth value lies above the last code, saturation takes it to hi just as the rounded one.
        error = lipschitz[stage.name] * error + (0.0 if exact_cut else 0.5 * stage.o_format.lsb)
    measured = abs(golden.forward(raw, theta).y / 4096 - smooth).max()
    assert 0 < measured <= error


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_gradcheck_of_the_smooth_twin(demosaic):
    """Finite differences agree where nothing sits on a kink (a clip, a knot, a tie of Hamilton-Adams)."""
    rng = np.random.default_rng(6)
    golden = isp(demosaic)
    twin = Twin(golden, rounding=False)
    raw = torch.tensor(rng.uniform(0.2, 0.6, (3, 4)), requires_grad=True)
    theta = {name: leaf.detach() for name, leaf in twin.decode(golden.theta).items()}
    nudged = [(t + torch.tensor(rng.uniform(0.001, 0.01, t.shape))).requires_grad_() for t in theta.values()]

    def picture(raw, *leaves):
        return twin(raw, dict(zip(theta, leaves, strict=True)), cfa=1)

    assert torch.autograd.gradcheck(picture, (raw, *nudged), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_unknown_loss():
    twin = Twin(isp())
    with pytest.raises(ValueError, match="squared, l1 or huber"):
        twin.loss(torch.zeros(1), torch.zeros(1), kind="external")
