"""Backends: the golden one is described right; the simulated hardware gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.backend import Frame, GoldenBackend, describe, open_backend, psnr
from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.rtl.numeric import SQ, UQ
from pullback.simulated import RtlBackend


def _random(shape, seed):
    random = np.random.default_rng(seed)
    return random.integers(0, 65536, shape), random.integers(0, 4096, (*shape[:-2], 3, *shape[-2:]))


def test_description_of_the_isp():
    pipeline = describe(PipelineConfig(demosaic="hamilton_adams"))
    names = [
        "black_level",
        "white_balance",
        "hamilton_adams_green",
        "hamilton_adams_chroma",
        "ccm",
        "tone_curve",
    ]
    assert [stage.name for stage in pipeline.stages] == names
    formats = {p.key: (p.entries, p.format, p.f) for p in pipeline.parameters}
    assert formats == {
        "black_level.black": (4, UQ(0, 16), 13),
        "white_balance.gain": (4, UQ(4, 10), 30),
        "ccm.matrix": (9, SQ(4, 10), 28),
        "ccm.offset": (3, SQ(2, 14), 14),
        "tone_curve.knots": (65, UQ(1, 15), 26),
    }
    # D_k = W (r_k + 2 sum of the radii behind): green has r = 2, chroma r = 1.
    assert list(pipeline.tape_pixels(100).values()) == [600, 600, 400, 100, 0, 0]


@pytest.mark.parametrize("demosaic", ["bilinear", "hamilton_adams", "filter_bank"])
@pytest.mark.parametrize("curve", ["shared", "per_channel"])
def test_golden_and_rtl_describe_the_same_pipeline(demosaic, curve):
    choice = PipelineConfig(demosaic=demosaic, curve=curve)
    assert RtlBackend(choice).pipeline == GoldenBackend(choice).pipeline


def test_frames_of_a_batch_share_theta():
    backend = open_backend("golden", PipelineConfig(demosaic="bilinear"))
    raw, target = _random((3, 6, 8), 0)
    theta = backend.pipeline.defaults()
    batch = backend.vjp(raw, theta, Frame(), target=target)
    single = [backend.vjp(r, theta, Frame(), target=t) for r, t in zip(raw, target, strict=True)]
    assert batch.loss == sum(s.loss for s in single)
    assert (batch.xbar == np.stack([s.xbar for s in single])).all()
    assert all((batch.thetabar[k] == sum(s.thetabar[k] for s in single)).all() for k in theta)
    assert batch.saturated == {k: sum(s.saturated[k] for s in single) for k in batch.saturated}


def test_encode_saturates_and_rounds_half_up():
    gain = describe().parameters[1]
    assert gain.encode(np.array([-1.0, 1.5 / 1024, 99.0])).tolist() == [0, 2, 16383]
    assert (gain.decode(np.array([512, 1024])) == [0.5, 1.0]).all()


def test_psnr():
    assert psnr(0, 10) == float("inf") and psnr(4095**2, 1) == 0 and round(psnr(4095**2, 100), 9) == 20


def test_bad_input():
    backend = open_backend("golden", PipelineConfig(max_width=16, max_height=8))
    theta = backend.pipeline.defaults()
    with pytest.raises(UsageError, match="raw is 18 wide, the pipeline is built for 16; give max_width=18"):
        backend.forward(np.zeros((8, 18), np.int64), theta, Frame())
    with pytest.raises(UsageError, match=r"raw is 10 high.*max_height=10"):
        backend.forward(np.zeros((10, 16), np.int64), theta, Frame())
    with pytest.raises(UsageError, match=r"shape \(8,\)"):
        backend.forward(np.zeros(8, np.int64), theta, Frame())
    with pytest.raises(ValueError, match=r"raw has codes 0\.\.65536"):
        backend.forward(np.array([[0, 65536]]), theta, Frame())
    pipeline = backend.pipeline
    with pytest.raises(UsageError, match=r"parameter 'ccm\.offset' is missing; give 3 codes"):
        pipeline.check({k: v for k, v in theta.items() if k != "ccm.offset"})
    with pytest.raises(UsageError, match="unknown parameter 'gamma'"):
        pipeline.check(theta | {"gamma": np.zeros(1, np.int64)})
    with pytest.raises(UsageError, match=r"shape \(4,\); give \(3,\)"):
        pipeline.check(theta | {"ccm.offset": np.zeros(4, np.int64)})
    with pytest.raises(UsageError, match=r"codes 0\.\.8192; SQ\(4, 10\) holds -8192\.\.8191"):
        pipeline.check(theta | {"ccm.matrix": np.array([8192] + [0] * 8)})


@pytest.mark.parametrize("demosaic", ["filter_bank", pytest.param("hamilton_adams", marks=pytest.mark.slow)])
def test_rtl_is_golden_to_the_bit(demosaic):
    choice = PipelineConfig(demosaic=demosaic, max_width=64, max_height=64)
    golden, rtl = GoldenBackend(choice), RtlBackend(choice)
    raw, target = _random((2, 12, 18), 1)
    theta = golden.pipeline.defaults()
    random = np.random.default_rng(2)
    for p in golden.pipeline.parameters:
        theta[p.key] = np.clip(theta[p.key] + random.integers(-40, 41, p.entries), p.format.lo, p.format.hi)
    cotangent = random.integers(-(2**17), 2**17, target.shape)
    for cfa in range(4):
        for given in (
            {"target": target, "frame": Frame(cfa=cfa, scale=1024)},
            {"target": target, "frame": Frame(cfa=cfa, loss="huber", delta=300, bypass=frozenset({"ccm"}))},
            {"cotangent": cotangent, "frame": Frame(cfa=cfa)},
        ):
            options = {k: v for k, v in given.items() if k != "frame"}
            a, b = (unit.vjp(raw, theta, given["frame"], **options) for unit in (golden, rtl))
            assert (a.y == b.y).all() and (a.xbar == b.xbar).all() and a.loss == b.loss
            assert all((a.thetabar[k] == b.thetabar[k]).all() for k in theta)
            assert (a.saturated, a.cotangent_saturated) == (b.saturated, b.cotangent_saturated)
            assert b.cycles > raw.size
    for _ in range(2):  # the same call again: nothing is written to the core, and the group starts anew
        a, b = (unit.vjp(raw, theta, Frame(), target=target) for unit in (golden, rtl))
        assert a.loss == b.loss and (a.xbar == b.xbar).all()
        assert all((a.thetabar[k] == b.thetabar[k]).all() for k in theta)
    assert (golden.forward(raw[0], theta, Frame()).y == rtl.forward(raw[0], theta, Frame()).y).all()
