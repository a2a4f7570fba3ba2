"""Units as JAX functions.

    unit = pullback.jax.Unit(pullback.open_backend("golden"), cfa="GRBG")
    theta = unit.init()                                    # {"white_balance.gain": ..., ...}, real units
    picture = unit(theta, raw)                             # [..., H, W] in [0, 1) -> [..., 3, H, W]
    jax.grad(lambda theta: loss(unit(theta, raw)))(theta)

    y = pullback.jax.linear(x, weight, bias, exponent=5, activation="relu")     # layers by the array, as pullback.nn's
    y = pullback.jax.conv2d(x, weight, bias, exponent=4, padding=1)

The same numpy code as behind the torch operators computes both, so values and gradients agree with torch's to the
bit; :mod:`pullback.operator` says how values are quantised and cotangents scaled. Works under ``jit``, ``grad`` and
``vmap`` (element by element). There is no second derivative, and asking for one is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import numpy as np

from pullback.backend import Backend
from pullback.errors import UsageError
from pullback.layers import (
    Layer,
    Pool,
    check_conv2d,
    check_linear,
    check_pictures,
    find_layer,
    find_pool,
    windows,
)
from pullback.operator import DOUBLE_BACKWARD, Operator
from pullback.products import Products

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError(
        "pullback.jax needs JAX, which is not installed; pip install 'pullback[jax]'"
    ) from error

__all__ = ["Unit", "conv2d", "linear"]


class Unit:
    """Any pipeline as a differentiable function of ``(theta, raw)``.

    Parameters
    ----------
    backend : Backend
    cfa : str
        CFA order of the frames: RGGB, GRBG, GBRG or BGGR.
    bypass : iterable of str
        Stages that are bypassed.
    """

    def __init__(self, backend: Backend, *, cfa: str = "RGGB", bypass: Iterable[str] = ()) -> None:
        self.operator = Operator(backend, cfa, tuple(bypass))
        self._run = _differentiable(self.operator)

    def init(self) -> dict[str, jax.Array]:
        """The defaults, float32, by ``"stage.parameter"``."""
        pipeline = self.operator.backend.pipeline
        return {key: jnp.asarray(v, jnp.float32) for key, v in pipeline.decode(pipeline.defaults()).items()}

    def __call__(self, theta: Mapping[str, jax.Array], raw: jax.Array) -> jax.Array:
        """``y [..., C, H, W]`` for ``raw [..., H, W]``.

        Raises
        ------
        UsageError
            (a ``ValueError``) on a missing or unknown parameter, or a wrong shape or dtype.
        """
        parameters = self.operator.backend.pipeline.parameters
        known = {p.key: p for p in parameters}
        for key in (*theta, *known):
            if key not in known:
                raise UsageError(f"unknown parameter {key!r}; this unit has {', '.join(known)}")
            if key not in theta:
                raise UsageError(f"parameter {key!r} is missing; give {known[key].entries} values")
            if jnp.shape(theta[key]) != (known[key].entries,):
                raise UsageError(f"{key} has the shape {jnp.shape(theta[key])}; give ({known[key].entries},)")
        raw = jnp.asarray(raw)
        if not jnp.issubdtype(raw.dtype, jnp.floating) or raw.dtype.itemsize < 4:
            raise UsageError(f"raw has the dtype {raw.dtype}; give float32 or float64")
        flat = jnp.concatenate([*(jnp.asarray(theta[p.key], jnp.float32) for p in parameters), jnp.zeros(0)])
        self.operator.check(raw.shape, flat.shape)
        return self._run(flat, raw)


def _differentiable(operator: Operator):
    """``f(theta, raw)`` with its pullback, both as host callbacks."""

    def shape(x) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    def host_forward(theta, raw):
        return operator.forward(np.asarray(raw), np.asarray(theta))

    def host_pull(theta, raw, ybar):
        xbar, thetabar = operator.pull(np.asarray(raw), np.asarray(theta), np.asarray(ybar))
        return thetabar, xbar

    @jax.custom_vjp
    def run(theta, raw):
        picture = jax.ShapeDtypeStruct((*raw.shape[:-2], operator.channels, *raw.shape[-2:]), raw.dtype)
        return jax.pure_callback(host_forward, picture, theta, raw, vmap_method="sequential")

    @jax.custom_jvp
    def pull(theta, raw, ybar):
        return jax.pure_callback(
            host_pull, (shape(theta), shape(raw)), theta, raw, ybar, vmap_method="sequential"
        )

    @pull.defjvp
    def _(primals, tangents):
        raise RuntimeError(DOUBLE_BACKWARD)

    run.defvjp(lambda theta, raw: (run(theta, raw), (theta, raw)), lambda saved, ybar: pull(*saved, ybar))
    return run


def linear(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    *,
    exponent: int,
    activation: str = "none",
    backend: str | Products = "golden",
) -> jax.Array:
    """As :func:`pullback.linear`: x [..., inputs], weight [outputs, inputs] -> [..., outputs].

    Raises
    ------
    UsageError
        (a ``ValueError``) on an unknown name, or an array of the wrong shape or dtype.
    """
    x, weight, b = _arrays(x, weight, bias)
    check_linear(x.shape, weight.shape)
    run = _computed(find_layer(backend, activation), int(exponent))
    return run(x.reshape(-1, x.shape[-1]), weight.T, b).reshape(*x.shape[:-1], weight.shape[0])


def conv2d(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    *,
    exponent: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str = "none",
    backend: str | Products = "golden",
) -> jax.Array:
    """As :func:`pullback.conv2d`: x [number, channels, height, width], weight [outputs, channels / groups, h, w].

    Raises
    ------
    UsageError
        As :func:`linear`, and on groups that are neither 1 nor depthwise.
    """
    x, weight, b = _arrays(x, weight, bias)
    depthwise = check_conv2d(x.shape, weight.shape, groups)
    taps = (weight.shape[2], weight.shape[3], stride, padding, dilation, depthwise)
    run = _computed(find_layer(backend, activation, taps), int(exponent))
    w = weight.transpose(2, 3, 1, 0)
    return run(x.transpose(0, 2, 3, 1), w[:, :, 0] if depthwise else w, b).transpose(0, 3, 1, 2)


def max_pool2d(
    x: jax.Array,
    kernel: int | tuple[int, int],
    *,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    backend: str | Products = "golden",
) -> jax.Array:
    """As :func:`pullback.max_pool2d`: x [number, channels, height, width].

    Raises
    ------
    UsageError
        As there.
    """
    x = jnp.asarray(x)
    _floats(x=x)
    check_pictures(x.shape)
    pictures = x.transpose(0, 2, 3, 1)
    found = find_pool(backend, *windows(kernel, stride), padding, dilation)
    return _pooled(found, pictures.shape)(pictures).transpose(0, 3, 1, 2)


@functools.cache
def _pooled(found: Pool, shape: tuple[int, ...]):
    """``f(x)`` of a pool on pictures of that shape with its pullback, both as host callbacks."""

    @jax.custom_jvp
    def both(x):
        y = found.shape(shape)
        wanted = (jax.ShapeDtypeStruct(y, x.dtype), jax.ShapeDtypeStruct(y, jnp.uint8))
        return jax.pure_callback(lambda x: found.forward(np.asarray(x)), wanted, x, vmap_method="sequential")

    @jax.custom_jvp
    def pull(numbers, ybar):
        return jax.pure_callback(
            lambda numbers, ybar: found.pull(shape, np.asarray(numbers), np.asarray(ybar)),
            jax.ShapeDtypeStruct(shape, ybar.dtype), numbers, ybar, vmap_method="sequential",
        )  # fmt: skip

    @both.defjvp
    @pull.defjvp
    def _(primals, tangents):
        raise RuntimeError(DOUBLE_BACKWARD)

    @jax.custom_vjp
    def run(x):
        return both(x)[0]

    run.defvjp(both, lambda numbers, ybar: (pull(numbers, ybar),))
    return run


def _floats(**arrays: jax.Array) -> None:
    """Refuses arrays that are not all of one floating dtype."""
    dtypes = {name: array.dtype for name, array in arrays.items()}
    for name, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 4:
            raise UsageError(f"{name} has the dtype {dtype}; give float32 or float64")
        if dtype != dtypes["x"]:
            raise UsageError(f"x is {dtypes['x']} and {name} {dtype}; give all of one dtype")


def _arrays(x, weight, bias) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Arrays of one floating dtype; no bias is a bias of zero."""
    x, weight = jnp.asarray(x), jnp.asarray(weight)
    b = jnp.zeros(weight.shape[:1], weight.dtype) if bias is None else jnp.asarray(bias)
    _floats(x=x, weight=weight, bias=b)
    return x, weight, b


@functools.cache
def _computed(found: Layer, exponent: int):
    """``f(x, w, b)`` of a layer with its pullback, both as host callbacks."""

    def like(*arrays) -> tuple[jax.ShapeDtypeStruct, ...]:
        return tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays)

    def host_forward(x, w, b):
        return found.forward(np.asarray(x), np.asarray(w), np.asarray(b), exponent)

    def host_pull(x, w, branches, ybar):
        return found.pull(np.asarray(x), np.asarray(w), np.asarray(branches), np.asarray(ybar))

    @jax.custom_jvp
    def both(x, w, b):
        shape = found.shape(x.shape, w.shape)
        wanted = (jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.uint8))
        return jax.pure_callback(host_forward, wanted, x, w, b, vmap_method="sequential")

    @jax.custom_jvp
    def pull(x, w, b, branches, ybar):
        return jax.pure_callback(host_pull, like(x, w, b), x, w, branches, ybar, vmap_method="sequential")

    # What is differentiated is `run`; who differentiates what it is made of wants a second derivative.
    @both.defjvp
    @pull.defjvp
    def _(primals, tangents):
        raise RuntimeError(DOUBLE_BACKWARD)

    @jax.custom_vjp
    def run(x, w, b):
        return both(x, w, b)[0]

    def forward(x, w, b):
        y, branches = both(x, w, b)
        return y, (x, w, b, branches)

    run.defvjp(forward, lambda saved, ybar: pull(*saved, ybar))
    return run
