"""Units as PyTorch operators.

    isp = pullback.ISP(demosaic="filter_bank", cfa="GRBG")
    picture = isp(raw)                 # raw [..., H, W] in [0, 1) -> picture [..., 3, H, W] in [0, 1)
    loss(picture).backward()           # isp.white_balance.gain.grad, ..., raw.grad

Floats outside, fixed point inside; how values are quantised and cotangents scaled is said in
:mod:`pullback.operator`. Only raw and the parameters are saved for the backward pass: the hardware recomputes the
rest. There is no second derivative, and asking for one is an error. ``torch.vmap`` works over frames, parameters and
cotangents; ``torch.func.grad`` does not, as with every custom operator of PyTorch: use ``torch.autograd``.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pullback import files
from pullback.backend import Backend, open_backend
from pullback.config import Config, PipelineConfig, dump, read
from pullback.errors import UsageError
from pullback.operator import DOUBLE_BACKWARD, Operator

try:
    import torch
    from torch import Tensor, library, nn
except ImportError as error:
    raise ImportError(
        "pullback.ISP needs PyTorch, which is not installed; pip install 'pullback[torch]'"
    ) from error

__all__ = ["ISP", "Unit", "pull", "run"]

# An operator's arguments are tensors and constants; the unit behind one is found by its number.
_UNITS: weakref.WeakValueDictionary[int, Operator] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


@library.custom_op("pullback::run", mutates_args=(), device_types="cpu")
def run(raw: Tensor, theta: Tensor, unit: int) -> Tensor:
    """``y = f(raw, theta)`` of a registered unit: ``[..., H, W]``, ``[P]`` -> ``[..., C, H, W]``."""
    return torch.from_numpy(_UNITS[unit].forward(raw.numpy(), theta.numpy()))


@library.custom_op("pullback::pull", mutates_args=(), device_types="cpu")
def pull(raw: Tensor, theta: Tensor, ybar: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """The pullback of :func:`run`: cotangents of raw and theta."""
    xbar, thetabar = _UNITS[unit].pull(raw.numpy(), theta.numpy(), ybar.numpy())
    return torch.from_numpy(xbar), torch.from_numpy(thetabar)


@run.register_fake
def _(raw: Tensor, theta: Tensor, unit: int) -> Tensor:
    return raw.new_empty((*raw.shape[:-2], _UNITS[unit].channels, *raw.shape[-2:]))


@pull.register_fake
def _(raw: Tensor, theta: Tensor, ybar: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    return raw.new_empty(raw.shape), theta.new_empty(theta.shape)


def _save(ctx, inputs, output) -> None:
    raw, theta, ctx.unit = inputs
    ctx.save_for_backward(raw, theta)


def _backward(ctx, ybar: Tensor):
    raw, theta = ctx.saved_tensors
    xbar, thetabar = pull(raw, theta, ybar, ctx.unit)
    wanted = ctx.needs_input_grad
    return xbar if wanted[0] else None, thetabar if wanted[1] else None, None


def _refuse(ctx, *cotangents: Tensor):
    raise RuntimeError(DOUBLE_BACKWARD)


run.register_autograd(_backward, setup_context=_save)
pull.register_autograd(_refuse)


@run.register_vmap
def _(info, in_dims, raw: Tensor, theta: Tensor, unit: int):
    if in_dims[1] is None:  # frames share theta: one call for all of them
        return run(raw.movedim(in_dims[0], 0), theta, unit), 0
    return torch.stack([run(*slices, unit) for slices in _slices(info, in_dims, raw, theta)]), 0


@pull.register_vmap
def _(info, in_dims, raw: Tensor, theta: Tensor, ybar: Tensor, unit: int):
    # One call each, even where theta is shared: every slice has its own parameter gradient.
    pairs = [pull(*slices, unit) for slices in _slices(info, in_dims, raw, theta, ybar)]
    return tuple(torch.stack(part) for part in zip(*pairs, strict=True)), (0, 0)


def _slices(info, in_dims, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The arguments of each element of a vmapped call."""
    return [
        tuple(t if dim is None else t.select(dim, k) for t, dim in zip(tensors, in_dims, strict=False))
        for k in range(info.batch_size)
    ]


class Unit(nn.Module):
    """Any pipeline as a layer.

    Parameters
    ----------
    backend : Backend
    cfa : str
        CFA order of the frames: RGGB, GRBG, GBRG or BGGR.
    bypass : iterable of str
        Stages that are bypassed; their parameters receive zero gradients.

    Attributes
    ----------
    <stage>.<parameter> : nn.Parameter
        Float masters in real units, for instance ``isp.white_balance.gain``; ``state_dict`` has the same names.
    """

    def __init__(self, backend: Backend, *, cfa: str = "RGGB", bypass: Iterable[str] = ()) -> None:
        super().__init__()
        self.operator = Operator(backend, cfa, tuple(bypass))
        self._number = next(_NUMBERS)
        _UNITS[self._number] = self.operator
        pipeline = backend.pipeline
        for key, values in pipeline.decode(pipeline.defaults()).items():
            stage, _, name = key.partition(".")
            if stage not in self._modules:
                self.add_module(stage, nn.Module())
            self.get_submodule(stage).register_parameter(
                name, nn.Parameter(torch.tensor(values, dtype=torch.float32))
            )

    def theta(self) -> Tensor:
        """All parameters, flat, in the order of the parameter memory."""
        parts: list[Tensor] = [self.get_parameter(p.key) for p in self.operator.backend.pipeline.parameters]
        for p, part in zip(self.operator.backend.pipeline.parameters, parts, strict=True):
            _check_tensor(p.key, part)
        return torch.cat(parts) if parts else torch.zeros(0)

    def forward(self, raw: Tensor) -> Tensor:
        """``raw [..., H, W]`` in [0, 1), float32 or float64 on the CPU -> picture ``[..., C, H, W]`` in [0, 1)."""
        _check_tensor("raw", raw)
        theta = self.theta()
        self.operator.check(tuple(raw.shape), tuple(theta.shape))
        return run(raw, theta, self._number)

    def codes(self) -> dict[str, np.ndarray]:
        """The parameters as the codes that the hardware uses."""
        values = {
            p.key: self.get_parameter(p.key).detach().numpy()
            for p in self.operator.backend.pipeline.parameters
        }
        return self.operator.backend.pipeline.encode(values)


class ISP(Unit):
    """The five-stage camera pipeline: black level, white balance, demosaic, CCM, tone curve.

    Parameters
    ----------
    demosaic : str
        ``"bilinear"``, ``"hamilton_adams"`` or ``"filter_bank"`` (whose coefficients learn).
    curve : str
        ``"shared"`` or ``"per_channel"``.
    border : str
        ``"mirror"``, ``"replicate"`` or ``"zero"``.
    cfa : str
        CFA order: RGGB, GRBG, GBRG or BGGR.
    bypass : iterable of str
        Stages that are bypassed.
    backend : str
        ``"golden"`` (numpy) or ``"rtl"`` (the hardware, simulated): the same bits.
    lanes, max_width, max_height : int
        How the core is built.

    Raises
    ------
    UsageError
        (a ``ValueError``) on an unknown name, or a tensor of the wrong shape, dtype or device.
    """

    def __init__(
        self,
        *,
        demosaic: str = "filter_bank",
        curve: str = "shared",
        border: str = "mirror",
        cfa: str = "RGGB",
        bypass: Iterable[str] = (),
        backend: str = "golden",
        lanes: int = 1,
        max_width: int = 4096,
        max_height: int = 4096,
    ) -> None:
        config = PipelineConfig.checked(
            demosaic=demosaic,
            curve=curve,
            border=border,
            lanes=lanes,
            max_width=max_width,
            max_height=max_height,
        )
        super().__init__(_backend(backend, config), cfa=cfa, bypass=bypass)
        self.config = config

    @classmethod
    def from_file(cls, path: str | Path, *, cfa: str | None = None, backend: str = "golden") -> ISP:
        """The pipeline and the parameters of a file such as ``tuned.toml``."""
        config = read(path)
        order = cfa or (config.frame.cfa if config.frame else "RGGB")
        isp = cls(**config.pipeline.model_dump(), cfa=order, backend=backend)
        pipeline = isp.operator.backend.pipeline
        with torch.no_grad():
            for key, values in pipeline.decode(config.theta(pipeline)).items():
                isp.get_parameter(key).copy_(torch.from_numpy(values))
        return isp

    def save(self, path: str | Path) -> None:
        """Write the pipeline and its parameters, as the hardware holds them, to a TOML file."""
        tables: dict[str, dict[str, list[float]]] = {}
        for key, values in self.operator.backend.pipeline.decode(self.codes()).items():
            stage, _, name = key.partition(".")
            tables.setdefault(stage, {})[name] = [float(v) for v in values]
        files.write(Path(path), dump(Config(pipeline=self.config, parameters=tables)))


@functools.cache
def _backend(name: str, config: PipelineConfig) -> Backend:
    """One backend per configuration: a simulated core is built once."""
    return open_backend(name, config)


def _check_tensor(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise UsageError(f"{name} is a {type(tensor).__name__}; give a torch.Tensor")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"{name} has the dtype {tensor.dtype}; give torch.float32 or torch.float64, "
                         "for raw codes divided by their full scale")  # fmt: skip
    if tensor.device.type != "cpu":
        raise UsageError(
            f"{name} is on {tensor.device}; these units run from the host's memory, so give {name}.cpu()"
        )
