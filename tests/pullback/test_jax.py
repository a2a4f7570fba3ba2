"""pullback.jax agrees with pullback.torch to the bit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("torch")

import jax
import jax.numpy as jnp
import torch

import pullback
from pullback.backend import open_backend
from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.jax import Unit


@pytest.fixture
def unit() -> Unit:
    return Unit(open_backend("golden", PipelineConfig(demosaic="filter_bank")), cfa="GRBG")


@pytest.fixture
def raw() -> np.ndarray:
    return np.random.default_rng(1).random((2, 8, 10), np.float32)


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.numpy()


def _gradient(isp: pullback.ISP, key: str) -> np.ndarray:
    return _array(isp.get_parameter(key).grad)


def test_values_and_gradients_equal_torchs(unit, raw):
    isp = pullback.ISP(demosaic="filter_bank", cfa="GRBG")
    ours = torch.tensor(raw, requires_grad=True)
    ybar = np.random.default_rng(2).standard_normal((2, 3, 8, 10)).astype(np.float32) / 480
    picture = isp(ours)
    picture.backward(torch.tensor(ybar))
    theirs, back = jax.vjp(unit, unit.init(), jnp.asarray(raw))
    thetabar, xbar = back(jnp.asarray(ybar))
    assert np.array_equal(theirs, picture.detach().numpy())
    assert np.array_equal(xbar, _array(ours.grad)) and np.any(xbar)
    for key, gradient in thetabar.items():
        assert np.array_equal(gradient, _gradient(isp, key)), key


def test_grad_under_jit_and_vmap(unit, raw):
    theta = unit.init()

    def loss(theta, frame):
        return (unit(theta, frame) ** 2).mean()

    looped = [jax.grad(loss)(theta, frame) for frame in jnp.asarray(raw)]
    mapped = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(theta, jnp.asarray(raw))
    for key in theta:
        assert np.array_equal(mapped[key], np.stack([g[key] for g in looped])), key
    isp = pullback.ISP(demosaic="filter_bank", cfa="GRBG")
    for k, frame in enumerate(raw):
        isp.zero_grad()
        (isp(torch.tensor(frame)) ** 2).mean().backward()
        for key in theta:
            assert np.array_equal(mapped[key][k], _gradient(isp, key)), key


def test_double_backward_is_a_clear_error(unit, raw):
    inner = jax.grad(lambda theta: unit(theta, jnp.asarray(raw)).sum())
    with pytest.raises(RuntimeError, match="no second derivative"):
        jax.grad(lambda theta: inner(theta)["ccm.matrix"].sum())(unit.init())


def test_bad_input(unit, raw):
    theta = unit.init()
    with pytest.raises(UsageError, match="raw has the dtype int32"):
        unit(theta, jnp.zeros((8, 10), jnp.int32))
    with pytest.raises(UsageError, match=r"'ccm\.matrix' is missing"):
        unit({k: v for k, v in theta.items() if k != "ccm.matrix"}, raw)
    with pytest.raises(UsageError, match="unknown parameter 'gamma'"):
        unit(theta | {"gamma": jnp.zeros(1)}, raw)
    with pytest.raises(UsageError, match=r"ccm.offset has the shape \(2,\); give \(3,\)"):
        unit(theta | {"ccm.offset": jnp.zeros(2)}, raw)
    with pytest.raises(UsageError, match=r"shape \(10,\)"):
        unit(theta, jnp.zeros(10))
