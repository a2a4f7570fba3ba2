"""T1 to T5: equality over the integers, in places where every saturation mask has both values."""

import numpy as np
import pytest

from pullback.sim.golden import CLIP_MODES, DEMOSAICS, Frame, exact, isp
from pullback.sim.golden.border import BORDERS

SHAPE = (2, 7, 6)


def stages():
    pipelines = [isp(demosaic) for demosaic in DEMOSAICS] + [isp(curve="per_channel")]
    found = {}
    for golden in pipelines:
        for stage in golden.stages:
            found[stage.name + (".per_channel" if getattr(stage, "curve", "") == "per_channel" else "")] = (
                stage
            )
    return list(found.values()), list(found)


STAGES, STAGE_NAMES = stages()


def at_stage(stage, rng, shape=(3, 9, 8)):
    """An input and parameters over their whole formats: near zero, anywhere, and at both ends."""
    fmt = next(iter(stage.i.values()))
    x = rng.integers(fmt.lo, fmt.hi + 1, (shape[0], len(stage.i), *shape[1:]))
    theta = {k: rng.integers(p.format.lo, p.format.hi + 1, p.entries) for k, p in stage.parameters.items()}
    x = np.choose(rng.integers(0, 4, x.shape), [x, x >> 3, np.full_like(x, fmt.lo), np.full_like(x, fmt.hi)])
    return x, {k: v >> rng.integers(0, 4, v.shape) for k, v in theta.items()}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("stage", STAGES, ids=STAGE_NAMES)
def test_t1_and_t2_of_each_stage(stage, border):
    rng = np.random.default_rng(11)
    seen = np.zeros(3, bool)
    for cfa in range(4):
        for bypass in (frozenset(), frozenset([stage.name])):
            x, theta = at_stage(stage, rng)
            frame = Frame(cfa=cfa, border=border, bypass=bypass)
            assert exact.stage_dot_product(stage, x, theta, frame, rng) == 0
            assert exact.stage_dot_product(stage, x, theta, frame, rng, ring=True) == 0
            cut = stage.forward(x, theta, frame)
            seen |= [cut.below.any(), cut.above.any(), (~cut.clipped).any()]
    # What a stage can clip at all: not the black level, and means stay in range.
    can_clip = {"black_level": [0, 0, 1], "bilinear": [0, 0, 1], "tone_curve": [0, 1, 1]}
    assert seen.tolist() == [bool(k) for k in can_clip.get(stage.name, [1, 1, 1])]


@pytest.mark.parametrize("cfa", range(4))
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_t1_t2_t3_of_each_pipeline(demosaic, border, cfa):
    golden = isp(demosaic, border=border, curve="per_channel" if cfa % 2 else "shared")
    rng = np.random.default_rng(cfa)
    raw, theta = exact.stimulus(golden, rng, SHAPE)
    for clip in CLIP_MODES if cfa == 0 else CLIP_MODES[:1]:
        golden = isp(demosaic, border=border, curve=golden.stages[-1].curve, clip=clip)
        assert exact.dot_product(golden, raw, theta, rng, cfa=cfa) == 0
        assert exact.dot_product_in_ring(golden, raw, theta, rng, cfa=cfa) == 0
        assert exact.remainder_identity(golden, raw, theta, rng, cfa=cfa) == 0


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_t1_t2_t3_with_each_bypass_and_depth(demosaic):
    golden = isp(demosaic)
    rng = np.random.default_rng(2)
    for bypass in [*([name] for name in golden.names), golden.names]:
        raw, theta = exact.stimulus(golden, rng, SHAPE)
        at = {"cfa": 3, "bypass": bypass, "depth": 12}
        assert exact.dot_product(golden, raw >> 4, theta, rng, **at) == 0
        assert exact.dot_product_in_ring(golden, raw >> 4, theta, rng, **at) == 0
        assert exact.remainder_identity(golden, raw >> 4, theta, rng, **at) == 0


@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_t3_of_each_loss(demosaic):
    """The fused cotangent, scaled until it clips; the cuts keep the rule and each of them clips somewhere."""
    golden = isp(demosaic)
    rng = np.random.default_rng(4)
    raw, theta = exact.stimulus(golden, rng, (2, 12, 12))
    theta["ccm.matrix"] = rng.integers(-8192, 8192, 9)
    theta["tone_curve.knots"] = rng.integers(0, 65536, 65)
    target = rng.integers(0, 4096, (2, 3, 12, 12))
    clipped = set()
    for kind, scale in (("squared", 256), ("l1", 300), ("huber", 1 << 13), ("squared", 65535)):
        gradient = golden.vjp(raw, theta, target=target, kind=kind, delta=300, scale=scale)
        ybar = gradient.cotangents["tone_curve"]
        assert exact.remainder_identity(golden, raw, theta, rng, w=ybar) == 0
        assert all(exact.remainders_out_of_range(leaving) == 0 for leaving in gradient.cuts.values())
        clipped |= {name for name, count in gradient.saturated.items() if count}
    # Cotangents that all point one way, so that even the means of bilinear add up beyond the format.
    golden = isp(demosaic, clip="identity")
    theta |= {"ccm.matrix": np.full(9, 8000), "tone_curve.knots": np.minimum(np.arange(65) << 10, 65535)}
    w = np.full(target.shape, golden.stages[-1].cotangent_o.hi)
    clipped |= {name for name, count in golden.vjp(raw, theta, cotangent=w).saturated.items() if count}
    assert exact.remainder_identity(golden, raw, theta, rng, w=w) == 0
    # The raw's cotangent is the black level's: same format, so nothing is left to clip there.
    boundaries = {f"{name}.cotangent_saturated" for name in ("loss", *golden.names)}
    assert boundaries - clipped == {"black_level.cotangent_saturated"}


@pytest.mark.parametrize("stage", STAGES, ids=STAGE_NAMES)
def test_t4_values_are_quadratic_along_a_line(stage):
    rng = np.random.default_rng(6)
    frame = Frame(cfa=1)
    x, theta = at_stage(stage, rng)
    v = rng.integers(-60, 61, x.shape)
    if stage.name == "tone_curve":  # stay in the segment
        x = (x & ~1023) + rng.integers(240, 784, x.shape)
    dtheta = {k: rng.integers(-99, 100, p.entries) for k, p in stage.parameters.items()}

    def value(h):
        return stage.value(x + h * v, {k: theta[k] + h * dtheta[k] for k in theta}, frame)

    if stage.name == "hamilton_adams_green":  # draw until the line crosses no choice
        v = np.sign(v)

        def choices(h):
            return stage._weights(x + h * v, frame)[1]

        x = rng.integers(-1 << 15, 1 << 15, x.shape)
        while not all(np.array_equal(choices(0), choices(h)) for h in (-1, 1, 2, 4)):
            x = rng.integers(-1 << 15, 1 << 15, x.shape)
    tangent = stage.pushforward(x, theta, frame, v, dtheta)
    rest = {h: value(h) - value(0) - h * tangent for h in (1, 2, 4)}
    assert np.array_equal(rest[2], 4 * rest[1])
    assert np.array_equal(rest[4], 16 * rest[1])
    assert np.array_equal(value(1) - value(-1), 2 * tangent)
    bilinear = stage.name in ("white_balance", "filter_bank", "ccm", "tone_curve")
    assert rest[1].any() == bilinear


@pytest.mark.parametrize(
    ("demosaic", "curve", "border", "cfa"),
    [
        ("filter_bank", "shared", "mirror", 0),
        ("bilinear", "per_channel", "replicate", 1),
        ("hamilton_adams", "shared", "zero", 2),
        ("hamilton_adams", "per_channel", "mirror", 3),
    ],
)
def test_t5_columns_equal_rows(demosaic, curve, border, cfa):
    golden = isp(demosaic, curve=curve, border=border)
    raw, theta = exact.stimulus(golden, np.random.default_rng(cfa), (5, 4))
    assert golden.forward(raw, theta, cfa=cfa).saturated["ccm.saturated"]
    assert exact.impulses(golden, raw, theta, cfa=cfa) == 0
