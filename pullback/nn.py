"""Layers of networks as PyTorch operators and modules, computed by the array.

    layer = pullback.Linear(64, 10, backend="rtl")
    y = layer(x)                                   # codes of 8 bits inside, floats outside
    loss(y).backward()                             # all three products by the array

    y = pullback.linear(x, weight, bias, exponent=5, activation="relu")
    y = pullback.conv2d(x, weight, bias, exponent=4, padding=1)

Shapes are PyTorch's: weights are [outputs, inputs] and [outputs, inputs, h, w], pictures [number, channels, height,
width]. :mod:`pullback.layers` says how floats become codes. There is no second derivative, and asking for one is an
error.

A module keeps float masters of its parameters, and the exponent of its results in its state: in training mode that is
the one with which the largest result seen lately does not saturate; in evaluation it stays.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pullback.errors import UsageError
from pullback.layers import (
    ACTIVATIONS,
    EXPONENTS,
    Layer,
    Pool,
    check_conv2d,
    check_linear,
    check_pictures,
    find_layer,
    find_pool,
    windows,
)
from pullback.operator import DOUBLE_BACKWARD
from pullback.products import Products

try:
    import torch
    from torch import Tensor, library, nn
except ImportError as error:
    raise ImportError(
        "pullback.Linear needs PyTorch, which is not installed; pip install 'pullback[torch]'"
    ) from error

__all__ = ["AvgPool2d", "Conv2d", "Linear", "MaxPool2d", "conv2d", "convert", "linear", "max_pool2d"]

# An operator's arguments are tensors and constants; the layer or pool behind one is found by its number.
_LAYERS: dict[int, Layer] = {}
_POOLS: dict[int, Pool] = {}
_NUMBERS = itertools.count()


@library.custom_op("pullback::layer", mutates_args=(), device_types="cpu")
def _run(x: Tensor, w: Tensor, b: Tensor, exponent: int, layer: int) -> tuple[Tensor, Tensor]:
    """y and the branches of its activation, in the layout of :class:`Layer`. An empty b is none."""
    bias = b.numpy() if b.numel() else None
    y, branches = _LAYERS[layer].forward(x.numpy(), w.numpy(), bias, exponent)
    return torch.from_numpy(y), torch.from_numpy(branches)


@library.custom_op("pullback::layer_pull", mutates_args=(), device_types="cpu")
def _pull(x: Tensor, w: Tensor, branches: Tensor, ybar: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of x, w and b."""
    found = _LAYERS[layer].pull(x.numpy(), w.numpy(), branches.numpy(), ybar.numpy())
    return tuple(torch.from_numpy(np.ascontiguousarray(each)) for each in found)  # pyright: ignore[reportReturnType]


@_run.register_fake
def _(x: Tensor, w: Tensor, b: Tensor, exponent: int, layer: int) -> tuple[Tensor, Tensor]:
    shape = _LAYERS[layer].shape(tuple(x.shape), tuple(w.shape))
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)


@_pull.register_fake
def _(x: Tensor, w: Tensor, branches: Tensor, ybar: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), w.new_empty(w.shape), w.new_empty(w.shape[-1:])


def _save(ctx, inputs, output) -> None:
    x, w, b, _, ctx.layer = inputs
    ctx.biased = b.numel() > 0
    ctx.save_for_backward(x, w, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, ybar: Tensor, _):
    x, w, branches = ctx.saved_tensors
    xbar, wbar, bbar = _pull(x, w, branches, ybar, ctx.layer)
    wanted = ctx.needs_input_grad
    return (
        xbar if wanted[0] else None, wbar if wanted[1] else None, bbar if wanted[2] and ctx.biased else None, None, None
    )  # fmt: skip


def _refuse(ctx, *cotangents: Tensor):
    raise RuntimeError(DOUBLE_BACKWARD)


_run.register_autograd(_backward, setup_context=_save)
_pull.register_autograd(_refuse)


@library.custom_op("pullback::pool", mutates_args=(), device_types="cpu")
def _run_pool(x: Tensor, pool: int) -> tuple[Tensor, Tensor]:
    """y and the taps that it came from, in the layout of :class:`Pool`."""
    y, numbers = _POOLS[pool].forward(x.numpy())
    return torch.from_numpy(y), torch.from_numpy(numbers)


@library.custom_op("pullback::pool_pull", mutates_args=(), device_types="cpu")
def _pull_pool(numbers: Tensor, ybar: Tensor, shape: list[int], pool: int) -> Tensor:
    """Cotangent of x of that shape."""
    xbar = _POOLS[pool].pull(tuple(shape), numbers.numpy(), ybar.numpy())
    return torch.from_numpy(np.ascontiguousarray(xbar))


@_run_pool.register_fake
def _(x: Tensor, pool: int) -> tuple[Tensor, Tensor]:
    shape = _POOLS[pool].shape(tuple(x.shape))
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)


@_pull_pool.register_fake
def _(numbers: Tensor, ybar: Tensor, shape: list[int], pool: int) -> Tensor:
    return ybar.new_empty(shape)


def _save_pool(ctx, inputs, output) -> None:
    x, ctx.pool = inputs
    ctx.shape = list(x.shape)
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward_pool(ctx, ybar: Tensor, _):
    (numbers,) = ctx.saved_tensors
    return _pull_pool(numbers, ybar, ctx.shape, ctx.pool), None


_run_pool.register_autograd(_backward_pool, setup_context=_save_pool)
_pull_pool.register_autograd(_refuse)


@functools.cache
def _registered(found: Layer | Pool) -> int:
    """The number of a layer or pool; there are as many as there are different ones, and they stay."""
    number = next(_NUMBERS)
    if isinstance(found, Layer):
        _LAYERS[number] = found
    else:
        _POOLS[number] = found
    return number


# A compiler that traces a network asks once, and takes the number as a constant.
@torch.compiler.assume_constant_result
def _number(
    backend: str | Products, activation: str, taps: tuple[int, int, int, int, int, bool] | None = None
) -> int:
    return _registered(find_layer(backend, activation, taps))


@torch.compiler.assume_constant_result
def _pool_number(backend: str | Products, *numbers: int) -> int:
    return _registered(find_pool(backend, *numbers))


def _check(**tensors: Tensor | None) -> None:
    dtypes = set()
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{name} is a {type(tensor).__name__}; give a torch.Tensor")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UsageError(f"{name} has the dtype {tensor.dtype}; give torch.float32 or torch.float64")
        if tensor.device.type != "cpu":
            raise UsageError(
                f"{name} is on {tensor.device}; the array runs from the host's memory, so give {name}.cpu()"
            )
        dtypes.add(tensor.dtype)
    if len(dtypes) > 1:
        raise UsageError(f"tensors of {' and '.join(sorted(map(str, dtypes)))}; give all of one dtype")


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    exponent: int,
    activation: str = "none",
    backend: str | Products = "golden",
) -> Tensor:
    """``y = activation(x weight^T + bias)``: x [..., inputs], weight [outputs, inputs] -> [..., outputs].

    Parameters
    ----------
    exponent : int
        y are codes of 8 bits times ``2^-exponent``.
    activation : str
        One of :data:`pullback.layers.ACTIVATIONS`.
    backend : str or Products
        ``"golden"`` (numpy) or ``"rtl"`` (the hardware, simulated): the same bits.

    Raises
    ------
    UsageError
        (a ``ValueError``) on an unknown name, or a tensor of the wrong shape, dtype or device.
    """
    _check(x=x, weight=weight, bias=bias)
    check_linear(tuple(x.shape), tuple(weight.shape))
    number = _number(backend, activation)
    rows, w = x.reshape(-1, x.shape[-1]), weight.T
    b = weight.new_zeros(0) if bias is None else bias
    y, _ = _run(rows.contiguous(), w.contiguous(), b, int(exponent), number)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    exponent: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str = "none",
    backend: str | Products = "golden",
) -> Tensor:
    """A convolution: x [number, channels, height, width], weight [outputs, channels / groups, h, w].

    ``groups`` is 1, or the number of channels and of outputs (depthwise). The other parameters are those of
    :func:`linear` and of ``torch.nn.functional.conv2d``, the same in both directions.

    Raises
    ------
    UsageError
        As :func:`linear`, and on other groups.
    """
    _check(x=x, weight=weight, bias=bias)
    depthwise = check_conv2d(tuple(x.shape), tuple(weight.shape), groups)
    kernel = (weight.shape[2], weight.shape[3])
    number = _number(backend, activation, (*kernel, stride, padding, dilation, depthwise))
    pictures = x.permute(0, 2, 3, 1).contiguous()
    w = weight.permute(2, 3, 1, 0)
    w = (w[:, :, 0] if depthwise else w).contiguous()
    b = weight.new_zeros(0) if bias is None else bias
    y, _ = _run(pictures, w, b, int(exponent), number)
    return y.permute(0, 3, 1, 2)


def max_pool2d(
    x: Tensor,
    kernel: int | tuple[int, int],
    *,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    backend: str | Products = "golden",
) -> Tensor:
    """The largest of every window: x [number, channels, height, width]; ``stride`` is the kernel's if not given.

    The parameters are those of ``torch.nn.functional.max_pool2d``, the same in both directions. Of equal codes the
    first one counts.

    Raises
    ------
    UsageError
        As :func:`linear`, and on windows that do not fit or a padding of more than half a window.
    """
    _check(x=x)
    check_pictures(tuple(x.shape))
    number = _pool_number(backend, *windows(kernel, stride), padding, dilation)
    y, _ = _run_pool(x.permute(0, 2, 3, 1).contiguous(), number)
    return y.permute(0, 3, 1, 2)


class _Observed(nn.Module):
    """Keeps the exponent of the results.

    In training mode it follows the peak of the float results, which decays by 1/16 a step, so that one outlier does not
    cost a bit for ever.
    """

    exponent: Tensor
    peak: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("exponent", torch.zeros((), dtype=torch.int64))
        self.register_buffer("peak", torch.zeros((), dtype=torch.float64))

    def _observe(self, results: Callable[[], Tensor]) -> int:
        """The exponent, after a look at the results in floats if it is still to be found."""
        if self.training:
            with torch.no_grad():
                self.peak.copy_(torch.maximum(self.peak * (15 / 16), results().abs().amax().double()))
            peak = float(self.peak)
            if not math.isfinite(peak):
                raise UsageError("a result is NaN or infinite; look at the inputs and the learning rate")
            # Codes up to 127: the power of two above the peak, less the seven bits that a code has beside its sign.
            found = 7 - math.frexp(peak * 128 / 127)[1] if peak else 0
            self.exponent.fill_(min(max(found, EXPONENTS[0]), EXPONENTS[-1]))
        return int(self.exponent)


class Linear(_Observed):
    """``torch.nn.Linear`` by the array, with an activation in the same pass.

    Parameters
    ----------
    inputs, outputs : int
    bias : bool
    activation : str
        One of :data:`pullback.layers.ACTIVATIONS`.
    backend : str or Products

    Attributes
    ----------
    weight, bias : nn.Parameter
        Float masters, initialised as PyTorch's.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        *,
        activation: str = "none",
        backend: str | Products = "golden",
    ) -> None:
        super().__init__()
        like = nn.Linear(inputs, outputs, bias=bias)
        self.weight, self.bias = like.weight, like.bias
        self.activation, self.backend = activation, backend
        _number(backend, activation)  # names are checked now

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> [..., outputs]."""
        _check(x=x, weight=self.weight)
        exponent = self._observe(
            lambda: _act(nn.functional.linear(x, self.weight, self.bias), self.activation)
        )
        return linear(
            x, self.weight, self.bias, exponent=exponent, activation=self.activation, backend=self.backend
        )


class Conv2d(_Observed):
    """``torch.nn.Conv2d`` by the array, with an activation in the same pass. See :func:`conv2d`.

    Attributes
    ----------
    weight, bias : nn.Parameter
        Float masters, initialised as PyTorch's.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str = "none",
        backend: str | Products = "golden",
    ) -> None:
        super().__init__()
        if groups not in (1, channels) or (groups != 1 and outputs != channels):
            raise UsageError(
                f"groups={groups} of {channels} channels and {outputs} outputs; give 1, or as many as both"
            )
        like = nn.Conv2d(channels, outputs, kernel, groups=groups, bias=bias)
        self.weight, self.bias = like.weight, like.bias
        self.places: dict[str, Any] = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups
        }  # fmt: skip
        self.activation, self.backend = activation, backend
        _number(backend, activation)  # names are checked now

    def forward(self, x: Tensor) -> Tensor:
        """x [number, channels, height, width] -> [number, outputs, height, width]."""
        _check(x=x, weight=self.weight)
        exponent = self._observe(
            lambda: _act(nn.functional.conv2d(x, self.weight, self.bias, **self.places), self.activation)
        )
        return conv2d(
            x,
            self.weight,
            self.bias,
            exponent=exponent,
            activation=self.activation,
            backend=self.backend,
            **self.places,
        )


class MaxPool2d(nn.Module):
    """``torch.nn.MaxPool2d`` by the array. See :func:`max_pool2d`."""

    def __init__(
        self,
        kernel: int | tuple[int, int],
        *,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        backend: str | Products = "golden",
    ) -> None:
        super().__init__()
        self.kernel, self.backend = kernel, backend
        self.places: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}

    def forward(self, x: Tensor) -> Tensor:
        """x [number, channels, height, width]."""
        return max_pool2d(x, self.kernel, backend=self.backend, **self.places)


class AvgPool2d(_Observed):
    """``torch.nn.AvgPool2d`` by the array: a depthwise convolution with the weights ``1 / (h w)``.

    What stands around a picture counts as zeros, as PyTorch's ``count_include_pad`` has it. The weights are exact where
    h w is a power of two, else they are codes of 8 bits like any others.
    """

    def __init__(
        self,
        kernel: int | tuple[int, int],
        *,
        stride: int | None = None,
        padding: int = 0,
        backend: str | Products = "golden",
    ) -> None:
        super().__init__()
        high, wide, stride = windows(kernel, stride)
        self.kernel = high, wide
        self.places: dict[str, Any] = {"stride": stride, "padding": padding}
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """x [number, channels, height, width]."""
        _check(x=x)
        check_pictures(tuple(x.shape))
        high, wide = self.kernel
        exponent = self._observe(lambda: nn.functional.avg_pool2d(x, self.kernel, **self.places))
        weight = x.new_full((x.shape[1], 1, high, wide), 1 / (high * wide))
        return conv2d(x, weight, exponent=exponent, groups=x.shape[1], backend=self.backend, **self.places)


def _act(x: Tensor, activation: str) -> Tensor:
    """The activation on floats."""
    act = ACTIVATIONS[activation]
    lower = torch.zeros_like(x) if act.relu else x * 2.0**-act.leak
    y = torch.where(x > 0, x, lower)
    return y if act.limit is None else y.clamp(max=act.limit)


def convert(model: nn.Sequential, *, backend: str | Products = "golden") -> nn.Sequential:
    """A copy of a network on the array: its layers with the activations that follow them.

    ``nn.Linear`` and ``nn.Conv2d`` become :class:`Linear` and :class:`Conv2d`, with the same float masters; ReLU, ReLU6
    and LeakyReLU (of a slope 1/2 to 1/128) that follow one are computed in its pass. ``nn.MaxPool2d`` and
    ``nn.AvgPool2d`` become :class:`MaxPool2d` and :class:`AvgPool2d`. ``nn.Flatten``, ``nn.Identity`` and
    ``nn.Dropout`` stay PyTorch's.

    Raises
    ------
    UsageError
        If there is a layer that the array cannot do; the message names all of them and why.
    """
    made: list[nn.Module] = []
    refused: list[str] = []
    layers = list(model.children())
    for k, layer in enumerate(layers):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            after = layers[k + 1] if k + 1 < len(layers) else nn.Identity()
            activation = _activation(after) or "none"
            if isinstance(layer, nn.Linear):
                made.append(_copied(
                    Linear(layer.in_features, layer.out_features, activation=activation, backend=backend), layer
                ))  # fmt: skip
                continue
            if reason := _unfit(layer):
                refused.append(f"{k}: {layer}: {reason}")
                continue
            made.append(_copied(
                Conv2d(
                    layer.in_channels, layer.out_channels, (layer.kernel_size[0], layer.kernel_size[1]),
                    stride=layer.stride[0], padding=layer.padding[0], dilation=layer.dilation[0], groups=layer.groups,  # pyright: ignore
                    activation=activation, backend=backend,
                ), layer
            ))  # fmt: skip
        elif _activation(layer) is not None:
            if k == 0 or not isinstance(layers[k - 1], nn.Linear | nn.Conv2d):
                refused.append(f"{k}: {layer}: no layer of the array is in front of it")
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            pool = _pool(layer, backend)
            if isinstance(pool, str):
                refused.append(f"{k}: {layer}: {pool}")
            else:
                made.append(pool)
        elif isinstance(layer, nn.Flatten | nn.Identity | nn.Dropout):
            made.append(layer)
        else:
            refused.append(f"{k}: {layer}: unknown to the array")
    if refused:
        raise UsageError("the array cannot do\n  " + "\n  ".join(refused))
    return nn.Sequential(*made)


def _pool(layer: nn.MaxPool2d | nn.AvgPool2d, backend: str | Products) -> nn.Module | str:
    """It by the array, or why it cannot be."""

    def pair(value: Any) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else tuple(value)

    stride, padding = pair(layer.stride), pair(layer.padding)
    dilation = pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
    for name, (a, b) in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        if a != b:
            return f"{name}={a, b}; the same in both directions only"
    if layer.ceil_mode:
        return "ceil_mode=True; whole windows only"
    kernel = pair(layer.kernel_size)
    if isinstance(layer, nn.MaxPool2d):
        if layer.return_indices:
            return "return_indices=True; values only"
        return MaxPool2d(kernel, stride=stride[0], padding=padding[0], dilation=dilation[0], backend=backend)
    if not layer.count_include_pad and padding[0]:
        return "count_include_pad=False; zeros around the picture count"
    if layer.divisor_override is not None:
        return f"divisor_override={layer.divisor_override}; the mean only"
    return AvgPool2d(kernel, stride=stride[0], padding=padding[0], backend=backend)


def _activation(layer: nn.Module) -> str | None:
    """Its name, if the array has it."""
    if isinstance(layer, nn.ReLU):
        return "relu"
    if isinstance(layer, nn.ReLU6):
        return "relu6"
    if isinstance(layer, nn.LeakyReLU):
        leak = -math.log2(layer.negative_slope) if layer.negative_slope > 0 else 0.0
        return f"leaky_relu_{1 << int(leak)}" if leak in range(1, 8) else None
    return None


def _unfit(layer: nn.Conv2d) -> str:
    """Why a convolution is none of the array's; empty if it is."""
    if layer.padding_mode != "zeros":
        return f"padding_mode={layer.padding_mode!r}; zeros only"
    if isinstance(layer.padding, str):
        return f"padding={layer.padding!r}; give a number"
    for name in ("stride", "padding", "dilation"):
        value = getattr(layer, name)
        if len(set(value)) > 1:
            return f"{name}={value}; the same in both directions only"
    if layer.groups != 1 and not layer.groups == layer.in_channels == layer.out_channels:
        return f"groups={layer.groups}; 1 or depthwise only"
    return ""


def _copied(made: Any, layer: nn.Linear | nn.Conv2d) -> nn.Module:
    made.weight = nn.Parameter(layer.weight.detach().clone())
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
    return made
