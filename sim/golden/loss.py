"""Losses that are local in the pixel, and the cotangent they start: ``d = y - t``.

=============  =====================================  =======================
kind           rho                                    psi = d rho / d y
=============  =====================================  =======================
``squared``    ``d^2 / 2``                            ``d``
``l1``         ``|d|``                                ``sign(d)``, 0 at 0
``huber``      ``m (2|d| - m) / 2, m = min(|d|, delta)``  ``clamp(d, -delta, delta)``
=============  =====================================  =======================

y, t, delta : UQ(0, 12)   scale : UQ(8, 8)

``loss = sum of rho`` over pixels and channels: an exact integer in units of ``2**-25``, unscaled.
``ybar = cut( scale psi )`` to SQ(2, 16), so every gradient comes out times ``scale``.
A fourth kind, ``external``, has no loss: the cotangent arrives from outside.
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ, UQ

from .cut import Cut, cut

__all__ = ["COTANGENT", "DELTA", "KINDS", "LOSS_F", "SCALE", "TARGET", "loss"]

KINDS = ("squared", "l1", "huber", "external")
"""In the order of the register ``loss.kind``."""
TARGET = UQ(0, 12)
DELTA = UQ(0, 12)
SCALE = UQ(8, 8)
COTANGENT = SQ(2, 16)
LOSS_F = 25
"""Fractional bits of the loss."""


def loss(
    y: np.ndarray, target: np.ndarray, *, kind: str, delta: int = DELTA.hi, scale: int = 1 << 8
) -> tuple[np.ndarray, Cut]:
    """``(loss, ybar)`` of codes ``y, target [..., C, H, W]``: the loss per frame, the cut cotangent.

    Raises
    ------
    ValueError
        If ``kind`` has no loss of its own.
    """
    d = y - target
    magnitude: np.ndarray = abs(d)
    if kind == "squared":
        rho, psi = d * d, d
    elif kind == "l1":
        rho, psi = magnitude * (1 << 13), np.sign(d) * (1 << 12)
    elif kind == "huber":
        m = np.minimum(magnitude, delta)
        rho, psi = m * (2 * magnitude - m), np.clip(d, -delta, delta)
    else:
        raise ValueError(f"loss kind {kind!r} has no loss; give one of {', '.join(KINDS[:3])}")
    return rho.sum((-3, -2, -1)), cut(scale * psi, TARGET.f + SCALE.f, COTANGENT)
