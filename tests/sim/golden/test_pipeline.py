from fractions import Fraction
from math import floor

import numpy as np
import pytest

from pullback.rtl.numeric import SQ
from pullback.sim.golden import DEMOSAICS, Golden, exact, isp
from pullback.sim.golden.loss import KINDS, loss


def rho_psi(kind, d, delta):
    """The loss and its derivative in real numbers."""
    m = min(abs(d), delta)
    sign = (d > 0) - (d < 0)
    return {
        "squared": (d * d / 2, d),
        "l1": (abs(d), Fraction(sign)),
        "huber": (m * (2 * abs(d) - m) / 2, m * sign),
    }[kind]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_loss_is_the_definition(kind):
    rng = np.random.default_rng(0)
    y, target = rng.integers(0, 4096, (2, 3, 4, 5)), rng.integers(0, 4096, (2, 3, 4, 5))
    target[..., 0, :] = y[..., 0, :]
    delta, scale = 700, 3777
    total, ybar = loss(y, target, kind=kind, delta=delta, scale=scale)
    for frame in range(2):
        expected = 0
        for site in np.ndindex(3, 4, 5):
            d = Fraction(int(y[frame][site]) - int(target[frame][site]), 4096)
            rho, psi = rho_psi(kind, d, Fraction(delta, 4096))
            expected += rho
            code = floor(Fraction(scale, 256) * psi * 2**16 + Fraction(1, 2))
            assert ybar.code[frame][site] == min(max(code, SQ(2, 16).lo), SQ(2, 16).hi)
            assert ybar.clipped[frame][site] == (not SQ(2, 16).lo <= code <= SQ(2, 16).hi)
        assert total[frame] == expected * 2**25
    assert ybar.clipped.any()
    with pytest.raises(ValueError, match="'external' has no loss"):
        loss(y, target, kind="external")


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_a_group_is_the_sum_of_its_frames(demosaic):
    golden = isp(demosaic)
    rng = np.random.default_rng(1)
    raw, theta = exact.stimulus(golden, rng, (3, 6, 5))
    target = rng.integers(0, 4096, (3, 3, 6, 5))
    at = {"kind": "huber", "delta": 500, "scale": 1 << 10, "cfa": 2}
    group = golden.vjp(raw, theta, target=target, **at)
    frames = golden.vjp(raw, theta, target=target, per_frame=True, **at)
    alone = [golden.vjp(raw[k], theta, target=target[k], **at) for k in range(3)]
    assert np.array_equal(group.xbar, np.stack([g.xbar for g in alone]))
    assert group.loss == sum(g.loss for g in alone) == frames.loss.sum()
    assert frames.loss.tolist() == [g.loss for g in alone]
    for name in group.thetabar:
        assert np.array_equal(frames.thetabar[name], np.stack([g.thetabar[name] for g in alone]))
        assert np.array_equal(group.thetabar[name], frames.thetabar[name].sum(0))
    for name in group.saturated:
        assert frames.saturated[name].tolist() == [g.saturated[name] for g in alone]
        assert group.saturated[name] == frames.saturated[name].sum()
    words = np.array([g.result_words() for g in alone])
    assert group.result_words() == words.sum(0).tolist()


def test_int64_suffices_for_the_deployed_build():
    """The deployed build in Python integers and in int64 agree at the extremes of every format."""
    golden = isp("filter_bank", curve="per_channel")
    raw = np.full((64, 64), 65535)
    theta = {name: np.full(p.entries, p.format.hi) for name, p in golden.parameters.items()}
    theta["black_level.black"][:] = 0
    w = np.full((3, 64, 64), SQ(2, 16).lo)
    for clip in ("identity", "disconnected"):
        golden = isp("filter_bank", curve="per_channel", clip=clip)
        gradient = golden.vjp(raw, theta, cotangent=w)
        x = golden.forward(raw, theta).inputs
        frame = golden._frame(0, ())
        for stage in golden.stages:
            own = {name: theta[f"{stage.name}.{name}"] for name in stage.parameters}
            ybar = gradient.cotangents[stage.name].astype(object)
            for name, value in stage.vjp(x[stage.name], own, frame, ybar).thetabar.items():
                assert np.array_equal(gradient.thetabar[f"{stage.name}.{name}"], value)


def test_fractional_bits_are_those_of_the_contract():
    gradient = isp("filter_bank").vjp(np.zeros((4, 4), int), cotangent=np.zeros((3, 4, 4), int))
    assert gradient.thetabar_f == {
        "black_level.black": 13,
        "white_balance.gain": 30,
        "filter_bank.coefficient": 28,
        "ccm.matrix": 28,
        "ccm.offset": 14,
        "tone_curve.knots": 26,
    }
    assert gradient.xbar_f == 13


def test_words():
    golden = isp("bilinear")
    raw, theta = exact.stimulus(golden, np.random.default_rng(1), (4, 6))
    words = golden.parameter_words(
        6, 4, theta, cfa=3, depth=12, frames=2, bypass=["ccm"], kind="huber", delta=9
    )
    assert words[:16] == [6, 4, 3, 12, 2, 0b01000, 2, 9, 256, 0, 0, 0, 0, 0, 0, 0]
    assert words[16:24] == [*theta["black_level.black"], *theta["white_balance.gain"]]
    assert words[24:36] == [*theta["ccm.matrix"], *theta["ccm.offset"]]
    assert words[36:] == theta["tone_curve.knots"].tolist()

    gradient = golden.vjp(raw, theta, target=np.zeros((3, 4, 6), int))
    named = dict(zip(golden.result_names(), gradient.result_words(), strict=True))
    assert list(named)[:3] == ["loss", "loss.cotangent_saturated", "tone_curve.knots[0]"]
    assert list(named)[66:72] == [
        "tone_curve.knots[64]",
        "tone_curve.saturated",
        "tone_curve.cotangent_saturated",
        *(f"ccm.matrix[{k}]" for k in range(3)),
    ]
    assert list(named)[-6:] == [
        *(f"black_level.black[{k}]" for k in range(4)),
        "black_level.saturated",
        "black_level.cotangent_saturated",
    ]
    assert named["loss"] == gradient.loss
    assert named["ccm.offset[2]"] == gradient.thetabar["ccm.offset"][2]
    assert named["ccm.saturated"] == gradient.saturated["ccm.saturated"] > 0
    picture = golden.forward(raw, theta)
    assert golden.result_names(vjp=False) == [f"{name}.saturated" for name in reversed(golden.names)]
    assert picture.result_words() == [picture.saturated[name] for name in golden.result_names(vjp=False)]


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_bypassed_parameters_have_no_gradient(demosaic):
    golden = isp(demosaic)
    raw, theta = exact.stimulus(golden, np.random.default_rng(1), (6, 6))
    w = np.random.default_rng(2).integers(-1000, 1000, (3, 6, 6))
    for stage in golden.stages:
        gradient = golden.vjp(raw, theta, cotangent=w, bypass=[stage.name])
        for name, value in gradient.thetabar.items():
            if name.startswith(f"{stage.name}."):
                assert not value.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, r: g.forward(r, cfa=4), "cfa is 4"),
        (lambda g, r: g.forward(r, depth=7), r"depth is 7; give 8\.\.16"),
        (lambda g, r: g.forward(r, depth=8), r"raw has codes 300\.\.300; UQ\(8, 0\) holds 0\.\.255"),
        (lambda g, r: g.forward(r / 2), "raw has dtype float64"),
        (lambda g, r: g.forward(r[:0]), r"raw has shape \(0, 4\)"),
        (lambda g, r: g.forward(r, bypass=["gamma"]), "bypass of .'gamma'. is unknown"),
        (lambda g, r: g.forward(r, {"ccm.gain": np.zeros(3, int)}), "'ccm.gain' is unknown"),
        (lambda g, r: g.forward(r, {"ccm.offset": np.zeros(4, int)}), r"shape \(4,\); give \(3,\)"),
        (lambda g, r: g.forward(r, {"ccm.offset": np.full(3, 1 << 15)}), r"holds -32768\.\.32767"),
        (lambda g, r: g.vjp(r), "exactly one"),
        (lambda g, r: g.vjp(r, target=np.full((3, 4, 4), 4096)), r"target has codes 4096"),
        (lambda g, r: g.vjp(r, target=np.zeros((3, 4, 5), int)), r"shape"),
        (lambda g, r: g.vjp(r, cotangent=np.full((3, 4, 4), 1 << 17)), r"cotangent has codes 131072"),
        (
            lambda g, r: g.vjp(r, cotangent=np.zeros((3, 4, 4), int), cotangents="float"),
            "give cut, exact or ring",
        ),
        (lambda g, r: g.jvp(r, dtheta={"ccm.gain": np.zeros(3, int)}), "'ccm.gain' is unknown"),
        (lambda g, r: g.parameter_words(4, 4, kind="l2"), "give one of squared, l1, huber, external"),
        (lambda g, r: isp("malvar"), "filter_bank, bilinear, hamilton_adams"),
        (lambda g, r: isp(border="wrap"), "mirror, replicate, zero"),
        (lambda g, r: isp(curve="gamma"), "shared, per_channel"),
        (lambda g, r: isp(clip="none"), "disconnected, identity, identity_if_towards"),
        (lambda g, r: isp(clip={"gamma": "identity"}), "clip of .'gamma'. is unknown"),
        (lambda g, r: Golden(g.stages[::-1]), "does not fit"),
        (lambda g, r: Golden(g.stages[:1] * 2), "repeat a name"),
    ],
)
def test_errors_name_the_value_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call(isp(), np.full((4, 4), 300))
