"""Adding a stage takes a kernel and a golden model; the rest comes by itself.

The stage here is nobody's: a knee that lifts shadows, ``y = x + lift (knee - x)`` below the knee and x above.
From its few lines follow the forward RTL, the VJP RTL, registers and a PyTorch operator, and they agree.
"""

from __future__ import annotations

import numpy as np
import pytest

from pullback.backend import GoldenBackend
from pullback.gen.registers import markdown
from pullback.gen.verilog import verilog
from pullback.rtl.kernel import Parameter, where
from pullback.rtl.numeric import SQ, UQ
from pullback.rtl.pipeline import Build, ForwardCore, Pipeline, Stage
from pullback.rtl.stream.pixel import Pixel
from pullback.sim.golden.pipeline import Golden
from pullback.sim.golden.stage import Parameter as GoldenParameter
from pullback.sim.golden.stage import Stage as GoldenStage
from pullback.sim.golden.stage import channels
from pullback.simulated import RtlBackend

# ------------------------------------------------------------------------------------------- the new stage


class Knee(Stage):
    """``y = x + lift (knee - x)`` where x < knee, else ``y = x``."""

    i, o = Pixel((("cfa", UQ(0, 16)),)), Pixel((("cfa", UQ(0, 12)),))
    cotangent = SQ(4, 14)
    parameters = {  # noqa: RUF012
        "lift": Parameter(1, SQ(1, 9), (0.25,), "how far shadows are lifted"),
        "knee": Parameter(1, UQ(0, 12), (0.5,), "where lifting begins"),
    }

    def kernel(self, x, theta, site):
        lift, knee = theta["lift", 0], theta["knee", 0]
        return {"cfa": x.cfa + where(x.cfa < knee, lift * (knee - x.cfa), 0)}


class GoldenKnee(GoldenStage):
    """The same, in numpy: N = 2^9 x + [x < k] lift (k - x), codes of 16, 9 and 16 fractional bits."""

    name, f = "knee", 25
    i, o = channels(cfa=UQ(0, 16)), channels(cfa=UQ(0, 12))
    cotangent_i, cotangent_o = SQ(4, 14), SQ(2, 16)

    def __init__(self, **options):
        super().__init__(**options)
        # f of a parameter: that of the output's cotangent, and of what the parameter is multiplied with.
        self.parameters = {
            "lift": GoldenParameter(entries=1, format=SQ(1, 9), default=(128,), f=16 + 16),
            "knee": GoldenParameter(entries=1, format=UQ(0, 12), default=(2048,), f=16 + 9),
        }

    def value(self, x, theta, frame):
        knee = theta["knee"][0] << 4
        return (x << 9) + np.where(x < knee, theta["lift"][0] * (knee - x), 0)

    def pullback(self, x, theta, frame, a):
        knee, shadow = theta["knee"][0] << 4, x < (theta["knee"][0] << 4)
        xbar = (a << 9) - np.where(shadow, theta["lift"][0] * a, 0)
        liftbar = np.where(shadow, (knee - x) * a, 0).sum((-3, -2, -1))[..., None]
        kneebar = np.where(shadow, theta["lift"][0] * a, 0).sum((-3, -2, -1))[..., None]
        return xbar, {"lift": liftbar, "knee": kneebar}


# ------------------------------------------------------------------------------------------- what follows


@pytest.fixture(scope="module")
def backends():
    """The new stage as a pipeline of one, golden and in simulated hardware."""
    return GoldenBackend(golden=Golden([GoldenKnee()])), RtlBackend(pipeline=Pipeline([Knee()], name="knee"))


def test_torch_operator(backends):
    """Forward and every gradient of the hardware equal the golden model's, through PyTorch."""
    torch = pytest.importorskip("torch")
    from pullback.torch import Unit

    rng = np.random.default_rng(0)
    raw = torch.tensor(rng.integers(0, 1 << 16, (2, 6, 5)) / (1 << 16))
    weight = torch.tensor(rng.normal(size=(2, 1, 6, 5)))
    found = []
    for backend in backends:
        unit, x = Unit(backend), raw.clone().requires_grad_()
        picture = unit(x)
        (picture * weight).sum().backward()
        found.append([picture.detach(), x.grad, unit.knee.lift.grad, unit.knee.knee.grad])
    for golden, rtl in zip(*found, strict=True):
        assert torch.equal(golden, rtl)
    assert all(gradient.abs().sum() > 0 for gradient in found[0][1:])


def test_verilog_and_registers():
    """Forward Verilog, and registers that name the parameters."""
    pipeline, build = Pipeline([Knee()], name="knee"), Build(max_width=64, max_height=64)
    assert "module knee" in verilog(ForwardCore(pipeline, build), name="knee")
    page = markdown(pipeline.register_map(build, vjp=True))
    assert "knee.lift" in page and "how far shadows are lifted" in page
