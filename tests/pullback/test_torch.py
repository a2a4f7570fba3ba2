"""pullback.ISP: values and gradients are the backend's, and PyTorch's own checks pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import library

import pullback
from pullback.backend import Frame, GoldenBackend, open_backend
from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.torch import pull, run


@pytest.fixture
def raw() -> torch.Tensor:
    return torch.rand(2, 8, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def isp() -> pullback.ISP:
    return pullback.ISP(demosaic="filter_bank", cfa="GRBG")


def _flat(isp: pullback.ISP, *, grad: bool = True) -> torch.Tensor:
    return isp.theta().detach().requires_grad_(grad)


def test_picture_is_the_golden_backends(isp, raw):
    backend = GoldenBackend(PipelineConfig(demosaic="filter_bank"))
    codes = np.floor(raw.numpy().astype(np.float64) * 65536 + 0.5).astype(np.int64).clip(0, 65535)
    wanted = backend.forward(codes, backend.pipeline.defaults(), Frame(cfa=1)).y
    assert (isp(raw).detach().numpy() * 4096 == wanted).all()


def test_gradients_are_the_golden_backends(isp, raw):
    backend = GoldenBackend(PipelineConfig(demosaic="filter_bank"))
    ybar = torch.randint(-30000, 30000, (2, 3, 8, 10), generator=torch.Generator().manual_seed(2))
    ybar[0, 0, 0, 0] = 40000  # the peak lies in [1/2, 1) already, so the scale is 1
    raw.requires_grad_()
    isp(raw).backward(ybar * 2.0**-16)
    codes = np.floor(raw.detach().numpy().astype(np.float64) * 65536 + 0.5).astype(np.int64).clip(0, 65535)
    wanted = backend.vjp(codes, backend.pipeline.defaults(), Frame(cfa=1), cotangent=ybar.numpy())
    assert (raw.grad.numpy() * 2.0**13 == wanted.xbar).all()
    for p in backend.pipeline.parameters:
        exact = np.ldexp(wanted.thetabar[p.key].astype(np.float64), -p.f).astype(np.float32)
        assert (isp.get_parameter(p.key).grad.numpy() == exact).all(), p.key


@pytest.mark.parametrize("power", [-30, -7, 3])
def test_gradients_scale_exactly_with_powers_of_two(isp, raw, power):
    """A mean over many pixels makes tiny cotangents: they lose nothing."""
    ybar = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(3))
    theta = _flat(isp)
    (one,) = torch.autograd.grad(run(raw, theta, isp._number), theta, ybar)
    (two,) = torch.autograd.grad(run(raw, theta, isp._number), theta, ybar * 2.0**power)
    assert torch.equal(one * 2.0**power, two) and one.abs().max() > 0


def test_only_what_is_asked_for_gets_a_gradient(isp, raw):
    isp.requires_grad_(False)
    isp.ccm.matrix.requires_grad_()
    isp(raw).sum().backward()
    assert isp.ccm.matrix.grad is not None and raw.grad is None
    assert isp.white_balance.gain.grad is None
    isp.requires_grad_(False)
    assert not isp(raw).requires_grad
    raw.requires_grad_()
    isp(raw).sum().backward()
    assert raw.grad is not None and raw.grad.abs().sum() > 0


def test_quantising_is_straight_through(isp, raw):
    """A master outside its format is held at its end, and still has a gradient that can bring it back."""
    with torch.no_grad():
        isp.tone_curve.knots.fill_(5.0)
        isp.white_balance.gain.fill_(-1.0)
    isp(raw).sum().backward()
    assert (isp.codes()["white_balance.gain"] == 0).all()
    assert isp.get_parameter("tone_curve.knots").grad is not None


def test_double_backward_is_a_clear_error(isp, raw):
    (gradient,) = torch.autograd.grad(isp(raw).sum(), isp.ccm.matrix, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*twin"):
        gradient.sum().backward()


def test_opcheck(isp, raw):
    result = library.opcheck(run, (raw.requires_grad_(), _flat(isp), isp._number))
    assert set(result.values()) == {"SUCCESS"} and len(result) == 4
    ybar = torch.ones(2, 3, 8, 10)
    result = library.opcheck(pull, (raw.detach(), _flat(isp, grad=False), ybar, isp._number))
    assert set(result.values()) == {"SUCCESS"} and len(result) == 4


def test_compile_is_one_graph_and_the_same_bits(isp, raw):
    compiled = torch.compile(isp, fullgraph=True, backend="aot_eager")
    weight = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(4))
    gradients = []
    for module in (isp, compiled):
        isp.zero_grad()
        picture = module(raw)
        (picture * weight).mean().backward()
        gradients.append((picture.detach(), *(p.grad.clone() for p in isp.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_vmap_over_frames_and_over_parameters(isp, raw):
    theta = _flat(isp, grad=False)
    assert torch.equal(torch.vmap(lambda r: run(r, theta, isp._number))(raw), run(raw, theta, isp._number))
    last = torch.vmap(lambda r: run(r, theta, isp._number), in_dims=2)(raw.permute(1, 2, 0))
    assert torch.equal(last, run(raw, theta, isp._number))
    several = torch.stack([theta, theta * 0.875])
    looped = torch.stack([run(raw, t, isp._number) for t in several])
    assert torch.equal(torch.vmap(lambda t: run(raw, t, isp._number))(several), looped)
    assert not torch.equal(looped[0], looped[1])
    moved = torch.vmap(lambda r, t: run(r, t, isp._number), in_dims=(2, 1), out_dims=0)
    both = moved(raw.permute(1, 2, 0), several.T)
    assert torch.equal(both, torch.stack([run(raw[k], several[k], isp._number) for k in range(2)]))


def test_vmap_over_cotangents_gives_rows_of_the_jacobian(isp, raw):
    theta = _flat(isp)
    ybars = torch.randn(3, 2, 3, 8, 10, generator=torch.Generator().manual_seed(6))
    y = run(raw.requires_grad_(), theta, isp._number)
    mapped = torch.autograd.grad(y, (raw, theta), ybars, is_grads_batched=True, retain_graph=True)
    looped = [torch.autograd.grad(y, (raw, theta), ybar, retain_graph=True) for ybar in ybars]
    for k in range(2):
        assert torch.equal(mapped[k], torch.stack([row[k] for row in looped]))
    assert not torch.equal(mapped[1][0], mapped[1][1])


def test_a_step_of_descent_lowers_the_loss(isp, raw):
    target = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(5))
    optimiser = torch.optim.Adam(isp.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = ((isp(raw) - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_bypassed_stage_has_zero_gradients(raw):
    isp = pullback.ISP(bypass=["ccm"])
    isp(raw).sum().backward()
    assert (isp.ccm.matrix.grad == 0).all() and (isp.tone_curve.knots.grad != 0).any()


def test_copies_and_state_dicts(isp, raw):
    twin = copy.deepcopy(isp)
    with torch.no_grad():
        twin.white_balance.gain.fill_(2.0)
    assert (isp.white_balance.gain == 1).all() and not torch.equal(twin(raw), isp(raw))
    isp.load_state_dict(twin.state_dict())
    assert torch.equal(twin(raw), isp(raw))


def test_file_round_trip(isp, raw, tmp_path):
    with torch.no_grad():
        isp.white_balance.gain.copy_(torch.tensor([1.7, 1.0, 1.01, 1.3]))
    isp.save(tmp_path / "isp.toml")
    again = pullback.ISP.from_file(tmp_path / "isp.toml", cfa="GRBG")
    assert torch.equal(again(raw), isp(raw))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(8, 10, dtype=torch.int32), "torch.int32; give torch.float32"),
        (torch.zeros(8, 10, dtype=torch.float16), "torch.float16"),
        (torch.zeros(10), r"shape \(10,\); give \(..., height, width\)"),
        (torch.zeros(0, 8, 10), "not empty"),
        (torch.zeros(8, 10, device="meta"), "on meta.*cpu"),
        (torch.zeros(8, 5000), "max_width=4096.*max_width=5000"),
        (np.zeros((8, 10)), "ndarray; give a torch.Tensor"),
        (torch.full((8, 10), float("nan")), "raw holds NaN"),
    ],
)
def test_bad_tensors(isp, bad, message):
    with pytest.raises(UsageError, match=message):
        isp(bad)


def test_bad_parameters_and_options(isp, raw):
    with torch.no_grad():
        isp.ccm.matrix[4] = float("nan")
    with pytest.raises(UsageError, match=r"ccm\.matrix holds NaN"):
        isp(raw)
    with pytest.raises(UsageError, match="demosaic is 'menon'"):
        pullback.ISP(demosaic="menon")
    with pytest.raises(UsageError, match="CFA order 'RGBG' is unknown; give one of RGGB"):
        pullback.ISP(cfa="RGBG")
    with pytest.raises(UsageError, match="bypass of 'gamma'"):
        pullback.ISP(bypass=["gamma"])
    with pytest.raises(UsageError, match="backend 'fpga' is unknown; give one of golden, rtl"):
        open_backend("fpga")


def test_nan_cotangent_is_refused(isp, raw):
    with pytest.raises(UsageError, match="NaN or infinity"):
        isp(raw).backward(torch.full((2, 3, 8, 10), float("nan")))
