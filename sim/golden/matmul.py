"""The three products of a linear layer, over the integers.

    Y = X W          Y[m, n]  = sum_k X[m, k] W[k, n]
    dX = dY W^T      dX[m, k] = sum_n dY[m, n] W[k, n]
    dW = X^T dY      dW[k, n] = sum_m X[m, k] dY[m, n]

X is [M, K], W [K, N], dY [M, N]; all int64, exact as long as the sums fit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PRODUCTS", "dw", "dx", "y"]

Matrix = npt.NDArray[np.int64]


def y(x: Matrix, w: Matrix) -> Matrix:
    """``X W``, [M, N]."""
    return np.einsum("mk,kn->mn", x.astype(np.int64), w.astype(np.int64))


def dx(dy: Matrix, w: Matrix) -> Matrix:
    """``dY W^T``, [M, K]."""
    return np.einsum("mn,kn->mk", dy.astype(np.int64), w.astype(np.int64))


def dw(x: Matrix, dy: Matrix) -> Matrix:
    """``X^T dY``, [K, N]."""
    return np.einsum("mk,mn->kn", x.astype(np.int64), dy.astype(np.int64))


PRODUCTS = {"y": y, "dx": dx, "dw": dw}
"""By the name of what comes out."""
