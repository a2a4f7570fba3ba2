"""Units on floats: how cotangents are scaled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pullback.backend import Frame, GoldenBackend
from pullback.config import PipelineConfig
from pullback.operator import Operator


class Spy(GoldenBackend):
    """Keeps the cotangents that it is given; claims that all saturate in the first passes."""

    def __init__(self, saturating: int = 0) -> None:
        super().__init__(PipelineConfig(demosaic="bilinear"))
        self.saturating, self.cotangents = saturating, []

    def vjp(self, raw, theta, frame, *, target=None, cotangent=None):
        self.cotangents.append(cotangent)
        result = super().vjp(raw, theta, frame, target=target, cotangent=cotangent)
        if cotangent is not None and len(self.cotangents) <= self.saturating:
            result = replace(result, cotangent_saturated={"ccm": cotangent.size})
        return result


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    return random.random((2, 6, 8)), random.standard_normal((2, 3, 6, 8))


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e9])
def test_largest_cotangent_lies_in_one_half_to_one(inputs, size):
    raw, ybar = inputs
    spy = Spy()
    operator = Operator(spy)
    operator.pull(raw, operator.default(), ybar * size)
    (given,) = spy.cotangents
    assert 1 << 15 <= abs(given).max() <= 1 << 16
    unit = 2.0 ** -np.frexp(abs(ybar * size).max())[1]
    assert (given == np.floor(ybar * size * unit * 65536 + 0.5)).all()


@pytest.mark.parametrize(("saturating", "passes"), [(0, 1), (1, 2), (4, 5), (99, 5)])
def test_saturation_quarters_the_scale_and_the_result_knows(inputs, saturating, passes):
    raw, ybar = inputs
    spy = Spy(saturating)
    operator = Operator(spy)
    xbar, thetabar = operator.pull(raw, operator.default(), ybar)
    assert len(spy.cotangents) == passes
    codes = np.floor(raw * 65536 + 0.5).astype(np.int64)
    last = super(Spy, spy).vjp(codes, spy.pipeline.defaults(), Frame(), cotangent=spy.cotangents[-1])
    unit = 2.0 ** (np.frexp(abs(ybar).max())[1] + 2 * (passes - 1))
    assert (xbar == last.xbar * 2.0**-13 * unit).all()
    place = 0
    for p in spy.pipeline.parameters:
        assert (thetabar[place : place + p.entries] == last.thetabar[p.key] * 2.0**-p.f * unit).all()
        place += p.entries


def test_no_cotangent_no_pass(inputs):
    raw, ybar = inputs
    spy = Spy()
    xbar, thetabar = Operator(spy).pull(raw, Operator(spy).default(), np.zeros_like(ybar))
    assert not spy.cotangents and not xbar.any() and not thetabar.any()
