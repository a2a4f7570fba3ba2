"""Pullback: differentiable hardware.

Fixed-point units that compute ``y = f(x, theta)`` on a stream and their own pullback, the vector-Jacobian product
``(xbar, thetabar) = f*(x, theta; ybar)``.

================================  =============================================================================
:class:`ISP`                      the camera pipeline as a ``torch.nn.Module`` (needs torch)
:func:`linear`, :func:`conv2d`,   layers of networks by the array, and :class:`Linear`, :class:`Conv2d`,
:func:`max_pool2d`                :class:`MaxPool2d`, :class:`AvgPool2d`, :func:`convert` (:mod:`pullback.nn`)
:mod:`pullback.torch`             any unit as a torch operator
:mod:`pullback.jax`               any unit as a JAX function (needs JAX)
:func:`open_backend`              forward and pullback on integer codes, without a framework
================================  =============================================================================
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pullback.backend import Frame, open_backend
    from pullback.config import PipelineConfig
    from pullback.errors import UsageError
    from pullback.nn import AvgPool2d, Conv2d, Linear, MaxPool2d, conv2d, convert, linear, max_pool2d
    from pullback.torch import ISP

__all__ = [
    "ISP",
    "AvgPool2d",
    "Conv2d",
    "Frame",
    "Linear",
    "MaxPool2d",
    "PipelineConfig",
    "UsageError",
    "__version__",
    "conv2d",
    "convert",
    "linear",
    "max_pool2d",
    "open_backend",
]

__version__ = metadata.version("pullback")

_HOMES = {
    "AvgPool2d": "pullback.nn",
    "Conv2d": "pullback.nn",
    "ISP": "pullback.torch",
    "Linear": "pullback.nn",
    "MaxPool2d": "pullback.nn",
    "conv2d": "pullback.nn",
    "convert": "pullback.nn",
    "linear": "pullback.nn",
    "max_pool2d": "pullback.nn",
    "Frame": "pullback.backend",
    "PipelineConfig": "pullback.config",
    "UsageError": "pullback.errors",
    "open_backend": "pullback.backend",
}


def __getattr__(name: str) -> object:
    # Lazy, so that generating Verilog imports no machine-learning framework.
    if name not in _HOMES:
        raise AttributeError(f"module 'pullback' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
