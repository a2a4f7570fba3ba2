"""Units as JAX functions.

    unit = pullback.jax.Unit(pullback.open_backend("golden"), cfa="GRBG")
    theta = unit.init()                                    # {"white_balance.gain": ..., ...}, real units
    picture = unit(theta, raw)                             # [..., H, W] in [0, 1) -> [..., 3, H, W]
    jax.grad(lambda theta: loss(unit(theta, raw)))(theta)

The same numpy code as behind the torch operators computes both, so values and gradients agree with torch's to the
bit; :mod:`pullback.operator` says how values are quantised and cotangents scaled. Works under ``jit``, ``grad`` and
``vmap`` (element by element). There is no second derivative, and asking for one is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pullback.backend import Backend
from pullback.errors import UsageError
from pullback.operator import DOUBLE_BACKWARD, Operator

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError(
        "pullback.jax needs JAX, which is not installed; pip install 'pullback[jax]'"
    ) from error

__all__ = ["Unit"]


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
