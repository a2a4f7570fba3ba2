"""Colour correction: ``y_i = cut( sum_j matrix[3i + j] x_j + offset[i] )``.

x : 3 x SQ(2, 14)   matrix : 9 x SQ(4, 10), row-major   offset : 3 x SQ(2, 14)   y : 3 x UQ(0, 16)
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ, UQ

from .stage import Frame, Parameter, Stage, Theta, channels

__all__ = ["CCM"]


class CCM(Stage):
    """``y = M x + offset``; ``xbar = M^T ybar``; ``Mbar = sum of ybar x^T``; ``offsetbar = sum of ybar``."""

    name = "ccm"
    i = channels(r=SQ(2, 14), g=SQ(2, 14), b=SQ(2, 14))
    o = channels(r=UQ(0, 16), g=UQ(0, 16), b=UQ(0, 16))
    f = 24
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(4, 14)

    def __init__(self, *, clip: str = "disconnected"):
        super().__init__(clip=clip)
        identity = tuple(1024 * (i == j) for i in range(3) for j in range(3))
        self.parameters = {
            "matrix": Parameter(entries=9, format=SQ(4, 10), default=identity, f=28),
            "offset": Parameter(entries=3, format=SQ(2, 14), default=(0, 0, 0), f=14),
        }

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        return _multiply(theta["matrix"].reshape(3, 3), x) + _offset(theta["offset"])

    def pullback(self, x, theta, frame, a):
        xbar = _multiply(theta["matrix"].reshape(3, 3).T, a)
        products = a[..., :, None, :, :] * x[..., None, :, :, :]
        matrixbar = products.sum((-2, -1)).reshape(*a.shape[:-3], 9)
        # J = 2**10 for the offset; its cotangent is declared with f = 14, which already says so.
        return xbar, {"matrix": matrixbar, "offset": a.sum((-2, -1))}

    def pushforward(self, x, theta, frame, v, dtheta):
        return (
            _multiply(theta["matrix"].reshape(3, 3), v)
            + _multiply(dtheta["matrix"].reshape(3, 3), x)
            + _offset(dtheta["offset"])
        )


def _multiply(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``y_i = sum_j matrix_ij x_j`` over the channel axis."""
    matrix = matrix[..., None, None]
    return np.stack([sum(matrix[i, j] * x[..., j, :, :] for j in range(3)) for i in range(3)], -3)


def _offset(offset: np.ndarray) -> np.ndarray:
    """The offset (f = 14) at the value's f = 24, one per channel."""
    return (offset << 10)[:, None, None]
