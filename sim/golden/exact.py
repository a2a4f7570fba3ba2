"""Tests of a pipeline that need no tolerance: each returns a defect that is 0 iff the identity holds.

With J the Jacobian at a point (selections and masks held), ``v, dtheta`` tangents, ``w`` a cotangent:

* ``dot_product`` (T1): ``<J(v, dtheta), w> - <v, xbar> - <dtheta, thetabar>`` over the integers, nothing cut.
* ``dot_product_in_ring`` (T2): the same modulo 2**64 with full-range entries.
* ``remainder_identity`` (T3): the deployed build, where cotangent cut k leaves the remainder ``e_k`` and
  ``t_k`` is the tangent there: ``<v, xbar> + <dtheta, thetabar> - <J(v, dtheta), w> - sum_k <t_k, e_k>``.
* ``stage_dot_product``: T1, or T2 with ``ring``, of one stage by itself.
* ``remainders_out_of_range``: T3 holds for any remainders; those of round half up and saturate are these.
* ``impulses`` (T5): every column by JVP against every row by VJP.

A wrong adjoint escapes one trial of T1 with probability at most 2/|S| (Schwartz-Zippel, |S| values an entry).
T2 sees a fault that is a multiple of 2**k only modulo 2**(64 - k), so it goes with T1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cut import Cut
from .pipeline import Golden, Gradient, Tangent
from .stage import Frame, Stage, Theta

__all__ = [
    "dot_product",
    "dot_product_in_ring",
    "impulses",
    "remainder_identity",
    "remainders_out_of_range",
    "stage_dot_product",
    "stimulus",
]

_RAW_F = 16
_ENTRY = 1 << 40  # T1, T3 draw entries from [-2**40, 2**40)


def stimulus(
    golden: Golden, rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A raw ``[..., H, W]`` and parameters that clip here and there in both directions, with a flat 4 x 4
    corner that makes ties."""
    raw = rng.integers(0, 1 << _RAW_F, shape)
    raw[..., :4, :4] = raw[..., :1, :1]
    draws = {
        "black": lambda n: rng.integers(0, 40000, n) >> rng.choice([0, 4], n),
        "gain": lambda n: rng.integers(600, 4000, n) * rng.choice([1, 4], n),
        "matrix": lambda n: (np.eye(3).ravel() * 1024).astype(np.int64) + rng.integers(-500, 500, n),
        "offset": lambda n: rng.integers(-3000, 6000, n),
        "knots": lambda n: np.tile(np.arange(65) << 9, n // 65) + rng.integers(0, 3000, n),
    }
    theta = golden.theta
    for name in theta:
        short = name.split(".")[1]
        if short == "coefficient":
            theta[name] = theta[name] + rng.integers(-600, 600, theta[name].shape)
        else:
            theta[name] = draws[short](len(theta[name]))
    return raw, theta


def dot_product(
    golden: Golden, raw: np.ndarray, theta: dict[str, np.ndarray], rng: np.random.Generator, **at: Any
) -> int:
    """T1. ``at``: cfa, depth, bypass."""
    v, dtheta = _directions(golden, raw, rng)
    w = _cotangent(golden, raw, rng)
    gradient = golden.vjp(raw, theta, cotangent=w, cotangents="exact", **at)
    tangent = golden.jvp(raw, theta, v=v, dtheta=dtheta, towards=gradient, **at)
    left, right, _ = _sides(golden, v, dtheta, w, tangent, gradient)
    return left - right


def dot_product_in_ring(
    golden: Golden, raw: np.ndarray, theta: dict[str, np.ndarray], rng: np.random.Generator, **at: Any
) -> int:
    """T2. The defect modulo 2**64."""
    picture = golden.forward(raw, theta, **at)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(-(1 << 63), 1 << 63, shape, np.int64)

    v, w = draw(raw.shape), draw(picture.y.shape)
    dtheta = {name: draw((p.entries,)) for name, p in golden.parameters.items()}
    gradient = golden.vjp(raw, theta, cotangent=w, cotangents="ring", **at)
    tangent = golden.jvp(raw, theta, v=v, dtheta=dtheta, ring=True, towards=gradient, **at)
    left, right, _ = _sides(golden, v, dtheta, w, tangent, gradient)
    return (left - right) % (1 << 64)


def remainder_identity(
    golden: Golden,
    raw: np.ndarray,
    theta: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    w: np.ndarray | None = None,
    **at: Any,
) -> int:
    """T3. ``w``: cotangent codes of the output, default random over the whole format (so that cuts clip)."""
    v, dtheta = _directions(golden, raw, rng)
    w = _cotangent(golden, raw, rng) if w is None else w
    gradient = golden.vjp(raw, theta, cotangent=w, **at)
    tangent = golden.jvp(raw, theta, v=v, dtheta=dtheta, towards=gradient, **at)
    left, right, f = _sides(golden, v, dtheta, w, tangent, gradient)
    for name, leaving in gradient.cuts.items():
        t, t_f = tangent.inputs[name]
        left += _inner(t, leaving.remainder) << (f - t_f - leaving.remainder_f)
    return left - right


def remainders_out_of_range(cut: Cut) -> int:
    """The number of codes that are not the value rounded half up and saturated: ``-half < remainder <= half``
    of an LSB or, at ``hi``, the value lies above and, at ``lo``, below."""
    e, half_lsb_twice = cut.remainder, 1 << (cut.remainder_f - cut.to.f)
    rounded = (2 * e <= half_lsb_twice) & (2 * e > -half_lsb_twice)
    saturated = ((cut.code == cut.to.hi) & (e < 0)) | ((cut.code == cut.to.lo) & (e > 0))
    outside = (cut.code < cut.to.lo) | (cut.code > cut.to.hi)
    return int((~(rounded | saturated) | outside).sum())


def stage_dot_product(
    stage: Stage,
    x: np.ndarray,
    theta: Theta,
    frame: Frame,
    rng: np.random.Generator,
    *,
    ring: bool = False,
) -> int:
    """T1, or T2 with ``ring``, of one stage at ``x [..., C, H, W]``."""

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if ring:
            return rng.integers(-(1 << 63), 1 << 63, shape, np.int64)
        return rng.integers(-_ENTRY, _ENTRY, shape).astype(object)

    w = draw((*x.shape[:-3], len(stage.o), *x.shape[-2:]))
    v, dtheta = draw(x.shape), {name: draw((p.entries,)) for name, p in stage.parameters.items()}
    pulled = stage.vjp(x, theta, frame, w)
    defect = _inner(stage.jvp(x, theta, frame, v, dtheta, towards=w), w) - _inner(v, pulled.xbar)
    for name, parameter in stage.parameters.items():
        # A cotangent is declared without the zeros that a parameter of few fractional bits ends in.
        shift = stage.cotangent_o.f + stage.f - parameter.format.f - parameter.f
        total = pulled.thetabar[name].sum(tuple(range(pulled.thetabar[name].ndim - 1)))
        defect -= _inner(dtheta[name], total) << shift
    return defect % (1 << 64) if ring else defect


def impulses(golden: Golden, raw: np.ndarray, theta: dict[str, np.ndarray], **at: Any) -> int:
    """T5. The number of entries of the Jacobian where columns (JVP) and rows (VJP) differ; ``raw [H, W]``."""
    outputs = golden.forward(raw, theta, **at).y.shape
    last = golden.stages[-1].cotangent_o.f
    columns, f = [], 0
    for site in np.ndindex(raw.shape):
        tangent = golden.jvp(raw, theta, v=_impulse(raw.shape, site), **at)
        columns.append(tangent.y.ravel())
        f = tangent.f
    for name, parameter in golden.parameters.items():
        for k in range(parameter.entries):
            tangent = golden.jvp(raw, theta, dtheta={name: _impulse((parameter.entries,), k)}, **at)
            columns.append(tangent.y.ravel())
    rows = []
    for site in np.ndindex(outputs):
        gradient = golden.vjp(raw, theta, cotangent=_impulse(outputs, site), cotangents="exact", **at)
        row = [gradient.xbar.ravel() << (f + last - gradient.xbar_f - _RAW_F)]
        for name, parameter in golden.parameters.items():
            shift = f + last - gradient.thetabar_f[name] - parameter.format.f
            row.append(gradient.thetabar[name] << shift)
        rows.append(np.concatenate(row))
    return int((np.stack(columns, 1) != np.stack(rows)).sum())


def _impulse(shape: tuple[int, ...], at: Any) -> np.ndarray:
    out = np.zeros(shape, np.int64)
    out[at] = 1
    return out


def _directions(golden: Golden, raw: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    v = rng.integers(-_ENTRY, _ENTRY, raw.shape)
    return v, {name: rng.integers(-_ENTRY, _ENTRY, p.entries) for name, p in golden.parameters.items()}


def _cotangent(golden: Golden, raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    last = golden.stages[-1]
    shape = (*raw.shape[:-2], len(last.o), *raw.shape[-2:])
    return rng.integers(last.cotangent_o.lo, last.cotangent_o.hi + 1, shape)


def _inner(a: np.ndarray, b: np.ndarray) -> int:
    """``<a, b>`` over the integers."""
    return int((a.astype(object) * b.astype(object)).sum())


def _sides(
    golden: Golden,
    v: np.ndarray,
    dtheta: dict[str, np.ndarray],
    w: np.ndarray,
    tangent: Tangent,
    gradient: Gradient,
) -> tuple[int, int, int]:
    """``<J(v, dtheta), w>`` and ``<v, xbar> + <dtheta, thetabar>``, both with the f that comes third."""
    f = tangent.f + golden.stages[-1].cotangent_o.f
    right = _inner(v, gradient.xbar) << (f - gradient.xbar_f - _RAW_F)
    for name, parameter in golden.parameters.items():
        shift = f - gradient.thetabar_f[name] - parameter.format.f
        right += _inner(dtheta[name], gradient.thetabar[name]) << shift
    return _inner(tangent.y, w), right, f
