"""Descent: it learns, repeats itself to the bit, resumes to the bit, and guards its state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pullback.backend import SCALE, Frame, GoldenBackend
from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.raw import Crop
from pullback.tune import (
    BackendObjective,
    Fit,
    Measure,
    Settings,
    Split,
    _rescale,
    fit,
    held_out_psnr,
    identity,
    neutral,
    render,
)


@pytest.fixture
def backend() -> GoldenBackend:
    return GoldenBackend(PipelineConfig(demosaic="filter_bank", max_width=64))


def _descend(backend, frame, steps, *, seed=0, split=None, total=None):
    split = split or Split(width=frame.width, height=frame.height, max_width=64)
    state = Fit.start(backend.pipeline, neutral(backend.pipeline, frame))
    settings = Settings(steps=total or steps, seed=seed)
    return fit(BackendObjective(backend, frame), state, split, settings, stop=lambda: state.step >= steps)


def test_neutral_start(backend, frame):
    theta = neutral(backend.pipeline, frame)
    assert theta["black_level.black"].tolist() == [16 << 6] * 4
    assert theta["white_balance.gain"].tolist() == [round(1024 * 1024 / 944)] * 4
    assert (theta["ccm.matrix"] == backend.pipeline.defaults()["ccm.matrix"]).all()


def test_it_learns(backend, frame):
    split = Split(width=frame.width, height=frame.height, max_width=64)
    state = _descend(backend, frame, 120)
    before = held_out_psnr(backend, frame, neutral(backend.pipeline, frame), split)
    after = held_out_psnr(backend, frame, state.best, split)
    assert after > 24 and after > before + 8
    assert state.best_loss <= min(state.loss)


def test_loss_and_gradient_are_in_real_units(backend, frame):
    """Against the difference quotient of the loss itself, along the offset, where the pipeline is smooth."""
    objective = BackendObjective(backend, frame)
    patch = Split(width=frame.width, height=frame.height, max_width=64).training
    masters = backend.pipeline.decode(neutral(backend.pipeline, frame))
    one = objective.measure(masters, patch, 256)
    y = render(backend, frame, backend.pipeline.encode(masters), patch)  # its own neighbours reach below
    d = (y[:-4] - patch.of(frame.target)[:-4]) / 4096
    assert one.loss == pytest.approx(np.mean(d * d) / 2, rel=0.05)
    for scale in (64, 1024):
        other = objective.measure(masters, patch, scale)
        assert other.loss == one.loss
        for key, gradient in one.gradient.items():
            assert other.gradient[key] == pytest.approx(gradient, rel=1e-3, abs=1e-5), key
    h = 2.0**-6
    up, down = (dict(masters, **{"ccm.offset": masters["ccm.offset"] + s}) for s in (h, -h))
    quotient = (objective.measure(up, patch, 256).loss - objective.measure(down, patch, 256).loss) / (2 * h)
    assert one.gradient["ccm.offset"].sum() == pytest.approx(quotient, rel=0.05)


def test_the_same_seed_is_the_same_trajectory(backend, frame):
    a, b = _descend(backend, frame, 12), _descend(backend, frame, 12)
    assert np.array_equal(a.trajectory, b.trajectory) and a.loss == b.loss
    assert len({tuple(words) for words in a.trajectory}) > 8


def test_resuming_is_going_on(backend, frame, tmp_path):
    straight = _descend(backend, frame, 12)
    half = _descend(backend, frame, 5, total=12)
    mark = identity(frame, backend.pipeline, neutral(backend.pipeline, frame), 0)
    half.best_loss = min(half.loss)  # what fit() measured beyond the step is not part of a state saved midway
    half.save(tmp_path / "state.npz", mark)
    state = Fit.load(tmp_path / "state.npz", mark)
    split = Split(width=frame.width, height=frame.height, max_width=64)
    fit(BackendObjective(backend, frame), state, split, Settings(steps=12))
    assert np.array_equal(state.trajectory, straight.trajectory) and state.loss == straight.loss
    assert all(np.array_equal(state.masters[key], straight.masters[key]) for key in state.masters)
    assert state.scales == straight.scales


def test_a_state_belongs_to_its_run(backend, frame, tmp_path):
    path = tmp_path / "state.npz"
    start = neutral(backend.pipeline, frame)
    mark = identity(frame, backend.pipeline, start, 0)
    with pytest.raises(UsageError, match="nothing to resume; leave --resume out"):
        Fit.load(path, mark)
    _descend(backend, frame, 1).save(path, mark)
    other = GoldenBackend(PipelineConfig(demosaic="bilinear", max_width=64)).pipeline
    changed = replace(frame, codes=frame.codes ^ 64)
    for what, wrong in {
        "seed": identity(frame, backend.pipeline, start, 1),
        "frame": identity(changed, backend.pipeline, start, 0),
        "target": identity(replace(frame, target=frame.target ^ 1), backend.pipeline, start, 0),
        "pipeline": identity(frame, other, neutral(other, frame), 0),
        "start": identity(frame, backend.pipeline, backend.pipeline.defaults(), 0),
    }.items():
        with pytest.raises(UsageError, match=f"another {what} "):
            Fit.load(path, wrong)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match="not a saved state"):
        Fit.load(path, mark)


def test_patches_are_even_inside_and_a_function_of_seed_and_step():
    split = Split(width=3000, height=2000, max_width=512)
    patches = [split.patch(1, step) for step in range(50)]
    assert patches == [split.patch(1, step) for step in range(50)] and len({str(p) for p in patches}) > 40
    assert patches != [split.patch(2, step) for step in range(50)]
    for p in patches:
        assert (p.width, p.height) == (256, 256) and p.x % 2 == p.y % 2 == 0
        assert p.x + 256 <= 3000 and p.y + 256 <= split.training.height
    for p in split.probes():
        assert p.y >= split.held_out.y and p.x + p.width <= 3000 and p.y + p.height <= 2000
        assert p.x % 2 == p.y % 2 == 0
    small = Split(width=32, height=24, max_width=64)
    assert small.whole and small.patch(0, 3) == Crop(width=32, height=18)
    assert small.held_out == Crop(width=32, height=6, y=18) and small.probes() == [small.held_out]
    with pytest.raises(UsageError, match="6x24; tuning needs at least 8x8"):
        Split(width=6, height=24, max_width=64)


def test_patches_train_too(frame):
    narrow = GoldenBackend(PipelineConfig(demosaic="bilinear", max_width=16))
    split = Split(width=frame.width, height=frame.height, max_width=16)
    assert not split.whole
    state = _descend(narrow, frame, 60, split=split)
    start = held_out_psnr(narrow, frame, neutral(narrow.pipeline, frame), split)
    assert held_out_psnr(narrow, frame, state.best, split) > start + 4


def test_pieces_make_the_whole_picture(frame):
    theta = neutral(GoldenBackend(PipelineConfig()).pipeline, frame)
    wide, narrow = (GoldenBackend(PipelineConfig(max_width=w)) for w in (64, 14))
    whole = wide.forward(frame.codes, theta, Frame(cfa=frame.cfa)).y
    assert (render(narrow, frame, theta) == np.moveaxis(whole, 0, -1)).all()
    part = render(narrow, frame, theta, Crop(width=10, height=6, x=4, y=8))
    assert (part == np.moveaxis(whole, 0, -1)[8:14, 4:14]).all()


def test_loss_scale():
    assert _rescale(256, 5, 0.01) == (128, 0) and _rescale(1, 5, 0.01) == (1, 0)
    assert _rescale(256, 5, 0.0005) == (256, 0)
    assert _rescale(256, 5, 0.0) == (256, 6) and _rescale(256, 31, 0.0) == (512, 0)
    assert _rescale(1 << 15, 31, 0.0) == (1 << 15, 0) and SCALE.hi >= 1 << 15


def test_saturating_cotangents_lower_the_scale(backend, frame):
    state = Fit.start(backend.pipeline, neutral(backend.pipeline, frame))
    state.scale = 1 << 15
    split = Split(width=frame.width, height=frame.height, max_width=64)
    fit(BackendObjective(backend, frame), state, split, Settings(steps=6))
    assert state.scales[0] == 1 << 15 and state.scales[-1] < 1 << 13


def test_masters_stay_where_their_format_holds_them(backend, frame):
    state = Fit.start(backend.pipeline, neutral(backend.pipeline, frame))
    fit(BackendObjective(backend, frame), state, Split(width=32, height=24, max_width=64),
        Settings(steps=4, rates=dict.fromkeys(state.masters, 50.0)))  # fmt: skip
    for p in backend.pipeline.parameters:
        assert (state.masters[p.key] >= p.format.min).all() and (state.masters[p.key] <= p.format.max).all()


def test_psnr_of_a_measure():
    assert Measure(loss=0.5, gradient={}).psnr == pytest.approx(0, abs=0.01)
    assert Measure(loss=0.0005, gradient={}).psnr == pytest.approx(30, abs=0.01)


def test_no_steps():
    with pytest.raises(UsageError, match="0 steps are none; give at least 1"):
        Settings(steps=0)


def test_the_float64_twin_ends_where_the_integers_end(backend, frame):
    """Same descent on real numbers: the final training loss agrees within 0.1 dB."""
    pytest.importorskip("torch")
    from pullback.twin import TwinObjective

    integers = _descend(backend, frame, 60)
    state = Fit.start(backend.pipeline, neutral(backend.pipeline, frame))
    split = Split(width=frame.width, height=frame.height, max_width=64)
    fit(TwinObjective(backend, frame), state, split, Settings(steps=60))
    a, b = (Measure(loss=s.best_loss, gradient={}).psnr for s in (integers, state))
    assert abs(a - b) < 0.1
    for key, first in state.first.items():
        assert np.abs(first).max() > 0, key


@pytest.mark.slow
def test_rtl_walks_the_golden_trajectory(frame):
    from pullback.simulated import RtlBackend

    choice = PipelineConfig(demosaic="filter_bank", max_width=64, max_height=64)
    a, b = (_descend(unit(choice), frame, 15) for unit in (GoldenBackend, RtlBackend))
    assert np.array_equal(a.trajectory, b.trajectory) and a.loss == b.loss and a.scales == b.scales
