"""Each fault of a table, planted in the golden model, is caught by an exact test."""

import numpy as np
import pytest

from pullback.rtl.numeric import SQ
from pullback.sim.golden import (
    DEMOSAICS,
    bilinear,
    black_level,
    border,
    ccm,
    exact,
    filter_bank,
    hamilton_adams,
    isp,
    pipeline,
    stage,
    tone_curve,
    white_balance,
)
from pullback.sim.golden.cut import Cut, cut
from pullback.sim.golden.stage import Frame


def catches(brute_force):
    """The names of the exact tests that object."""
    caught = set()
    for demosaic in DEMOSAICS:
        golden = isp(demosaic, curve="per_channel")
        rng = np.random.default_rng(8)
        raw, theta = exact.stimulus(golden, rng, (2, 8, 7))
        for bypass in ((), ("black_level", golden.names[2], "tone_curve"), ("white_balance", "ccm")):
            at = {"cfa": 1, "bypass": bypass}
            y, saturated = brute_force(golden, raw[0, :4, :5], theta, **at)
            picture = golden.forward(raw[0, :4, :5], theta, **at)
            if not np.array_equal(picture.y, y) or picture.saturated != saturated:
                caught.add("forward")
            if exact.dot_product(golden, raw, theta, rng, **at):
                caught.add("T1")
            if exact.dot_product_in_ring(golden, raw, theta, rng, **at):
                caught.add("T2")
            w = rng.integers(-1 << 17, 1 << 17, (2, 3, 8, 7))
            if exact.remainder_identity(golden, raw, theta, rng, w=w, **at):
                caught.add("T3")
            gradient = golden.vjp(raw, theta, cotangent=w, **at)
            if any(exact.remainders_out_of_range(leaving) for leaving in gradient.cuts.values()):
                caught.add("T3 remainders")
    return caught


def test_nothing_objects_to_the_model_itself(brute_force):
    assert catches(brute_force) == set()


def wrap_pullback(cls, change):
    """Plant ``change(xbar, thetabar, a) -> (xbar, thetabar)`` behind a pullback."""

    def plant(patch):
        original = cls.pullback

        def faulty(self, x, theta, frame, a):
            return change(*original(self, x, theta, frame, a), a)

        patch.setattr(cls, "pullback", faulty)

    return plant


def wrong_phase(cls):
    """The adjoint takes the colour of the neighbouring column."""

    def plant(patch):
        original = cls.pullback

        def faulty(self, x, theta, frame, a):
            return original(self, x, theta, Frame(cfa=frame.cfa ^ 1, border=frame.border), a)

        patch.setattr(cls, "pullback", faulty)

    return plant


def replace(owner, name, value):
    return lambda patch: patch.setattr(owner, name, value(getattr(owner, name)))


def changed(array, index, change):
    out = array.copy()
    out[index] = change(out[index])
    return out


def swapped(array, i, j):
    out = array.copy()
    out[..., i], out[..., j] = array[..., j], array[..., i]
    return out


def truncate(value, f, to):
    """A cut that floors."""
    shift = f - to.f
    code = value >> shift if shift > 0 else value << -shift
    return Cut(
        np.clip(code, to.lo, to.hi), (code < to.lo).astype(bool), (code > to.hi).astype(bool), value, f, to
    )


def wrap_around(value, f, to):
    """A cut that drops the high bits instead of saturating."""
    honest = cut(value, f, to)
    shift = f - to.f
    code = (value + (1 << shift >> 1)) >> shift if shift > 0 else value << -shift
    return Cut((code - to.lo) % (1 << to.width) + to.lo, honest.below, honest.above, value, f, to)


def half_to_even(value, f, to):
    """A cut that rounds ties to even."""
    honest = cut(value, f, to)
    half = 1 << (honest.remainder_f - to.f) >> 1
    tie = (honest.remainder == half) & (half > 0) & ~honest.clipped
    return Cut(honest.code - (tie & (honest.code & 1 == 1)), honest.below, honest.above, value, f, to)


def stuck_scatter(add):
    return lambda self, dy, dx, a: add(self, dy, abs(dx), a)


def transposed_scatter(add):
    return lambda self, dy, dx, a: add(self, dx, dy, a)


def knot_off_by_one(patch):
    original = tone_curve.ToneCurve._locate
    pullback = tone_curve.ToneCurve.pullback

    def faulty(self, x, theta, frame, a):
        right = pullback(self, x, theta, frame, a)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                tone_curve.ToneCurve, "_locate", lambda s, x: (np.maximum(original(s, x)[0] - 1, 0), x & 1023)
            )
            return right[0], pullback(self, x, theta, frame, a)[1]

    patch.setattr(tone_curve.ToneCurve, "pullback", faulty)


def bypass_leaks_parameters(patch):
    original = stage.Stage.vjp

    def faulty(self, x, theta, frame, ybar, *, f=None):
        result = original(self, x, theta, frame, ybar, f=f)
        if self.name not in frame.bypass or not self.parameters:
            return result
        leak = original(self, x, theta, Frame(cfa=frame.cfa, border=frame.border), ybar, f=f)
        return stage.Pullback(result.xbar, result.f, leak.thetabar, result.cut)

    patch.setattr(stage.Stage, "vjp", faulty)


def mirror_repeats_the_edge(original):
    def faulty(n, radius, kind):
        index, read = original(n, radius, kind)
        if kind == "mirror":
            position = np.arange(-radius, n + radius) % (2 * n)
            index = np.minimum(position, 2 * n - 1 - position)
        return index, read

    return faulty


def only_frame_0(original):
    def faulty(values, per_frame, keep=0):
        values = np.asarray(values)
        return original(values[:1] if keep and values.ndim > keep else values, per_frame, keep)

    return faulty


def no_fold(original):
    return lambda self, padded, n: padded[..., self._radius : self._radius + n].copy()


def tie_goes_horizontal(original):
    def faulty(self, x, frame):
        own, row, column = original(self, x, frame)
        return own, np.where(row == 1, 2, row), np.where(row == 1, 0, column)

    return faulty


def choice_swapped_in_adjoint(patch):
    weights, pullback = hamilton_adams.HamiltonAdamsGreen._weights, hamilton_adams.HamiltonAdamsGreen.pullback

    def faulty(self, x, theta, frame, a):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                hamilton_adams.HamiltonAdamsGreen,
                "_weights",
                lambda s, x, frame: tuple(weights(s, x, frame)[k] for k in (0, 2, 1)),
            )
            return pullback(self, x, theta, frame, a)

    patch.setattr(hamilton_adams.HamiltonAdamsGreen, "pullback", faulty)


def next_slope(patch):
    def faulty(self, x, theta, frame, v, dtheta):
        left, t = self._locate(x)
        knots, dknots = theta["knots"], dtheta["knots"]
        slope = knots[np.minimum(left + 2, len(knots) - 1)] - knots[left + 1]
        return slope * v + dknots[left] * (1024 - t) + dknots[left + 1] * t

    patch.setattr(tone_curve.ToneCurve, "pushforward", faulty)


FOLDS_SWAPPED = tuple(filter_bank.FOLDS[k] for k in (0, 3, 2, 1, 4, 5, 6, 7, 8))
FOLD_SHORT = tuple(fold[:-1] if k == 8 else fold for k, fold in enumerate(filter_bank.FOLDS))

FAULTS = {
    "wrong phase in the adjoint of black level": wrong_phase(black_level.BlackLevel),
    "wrong phase in the adjoint of white balance": wrong_phase(white_balance.WhiteBalance),
    "wrong phase in the adjoint of bilinear": wrong_phase(bilinear.Bilinear),
    "wrong phase in the adjoint of the filter bank": wrong_phase(filter_bank.FilterBank),
    "wrong phase in the adjoint of the chroma stage": wrong_phase(hamilton_adams.HamiltonAdamsChroma),
    "lost last line": wrap_pullback(
        bilinear.Bilinear, lambda x, t, a: (changed(x, (..., -1, slice(None)), lambda v: v * 0), t)
    ),
    "two neighbouring sites swapped": wrap_pullback(ccm.CCM, lambda x, t, a: (swapped(x, 3, 4), t)),
    "+1 LSB at one site": wrap_pullback(
        ccm.CCM, lambda x, t, a: (changed(x, (0, 1, 2, 3), lambda v: v + 1), t)
    ),
    "+1 LSB in an accumulator": wrap_pullback(
        white_balance.WhiteBalance, lambda x, t, a: (x, {"gain": changed(t["gain"], (0, 2), lambda v: v + 1)})
    ),
    "saturation mask ignored": replace(Cut, "pull", lambda _: lambda self, ybar, clip="disconnected": ybar),
    "saturation mask only above": replace(
        Cut, "pull", lambda _: lambda self, ybar, clip="disconnected": np.where(self.above, 0, ybar)
    ),
    "forward truncates": replace(stage, "cut", lambda _: truncate),
    "forward rounds ties to even": replace(stage, "cut", lambda _: half_to_even),
    "forward wraps around": replace(stage, "cut", lambda _: wrap_around),
    "cotangent truncated": replace(pipeline, "cut", lambda _: truncate),
    "cotangent rounds ties to even": replace(pipeline, "cut", lambda _: half_to_even),
    "cotangent wraps around": replace(pipeline, "cut", lambda _: wrap_around),
    "tap flipped in the adjoint": replace(border.Scatter, "add", stuck_scatter),
    "rows and columns swapped in the adjoint": replace(border.Scatter, "add", transposed_scatter),
    "border not folded": replace(border.Scatter, "_fold", no_fold),
    "mirror repeats the edge": replace(border, "indices", mirror_repeats_the_edge),
    "knot index off by one": knot_off_by_one,
    "slope of the next segment in the tangent": next_slope,
    "coefficient folds swapped": replace(filter_bank, "FOLDS", lambda _: FOLDS_SWAPPED),
    "coefficient fold lacks a tap": replace(filter_bank, "FOLDS", lambda _: FOLD_SHORT),
    "coefficient cotangents swapped": wrap_pullback(
        filter_bank.FilterBank, lambda x, t, a: (x, {"coefficient": swapped(t["coefficient"], 1, 3)})
    ),
    "matrix not transposed": replace(
        ccm.CCM,
        "pullback",
        lambda pull: (
            lambda self, x, theta, frame, a: (
                ccm._multiply(theta["matrix"].reshape(3, 3), a),
                pull(self, x, theta, frame, a)[1],
            )
        ),
    ),
    "offset gradient missing": wrap_pullback(ccm.CCM, lambda x, t, a: (x, t | {"offset": 0 * t["offset"]})),
    "black gradient has the wrong sign": wrap_pullback(
        black_level.BlackLevel, lambda x, t, a: (x, {"black": -t["black"]})
    ),
    "green misses the colour difference": wrap_pullback(
        hamilton_adams.HamiltonAdamsChroma,
        lambda x, t, a: (np.stack([x[..., 0, :, :], x[..., 1, :, :] + x[..., 0, :, :]], -3), t),
    ),
    "tie goes horizontal": replace(hamilton_adams.HamiltonAdamsGreen, "_weights", tie_goes_horizontal),
    "choice swapped in the adjoint": choice_swapped_in_adjoint,
    "bypass pulls back one channel": replace(
        bilinear.Bilinear, "through_transpose", lambda _: lambda self, a: a[..., :1, :, :] << 2
    ),
    "bypass of green pulls back one channel": replace(
        hamilton_adams.HamiltonAdamsGreen,
        "through_transpose",
        lambda _: lambda self, a: a[..., :1, :, :] << 3,
    ),
    "bypassed stage has a parameter gradient": bypass_leaks_parameters,
    "accumulators forget the second frame": replace(pipeline, "_group", only_frame_0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault, monkeypatch, brute_force):
    FAULTS[fault](monkeypatch)
    caught = catches(brute_force)
    assert caught
    print(fault, "->", ", ".join(sorted(caught)))


def test_the_faulty_cuts_are_faults():
    """The three cuts planted above differ from the rule, so that the table tests what it says."""
    value = np.arange(-40, 40)
    for faulty in (truncate, half_to_even, wrap_around):
        assert not np.array_equal(faulty(value, 2, SQ(4, 0)).code, cut(value, 2, SQ(4, 0)).code)
