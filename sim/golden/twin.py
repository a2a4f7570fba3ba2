"""The float64 twin: the same real function in PyTorch, whose gradient comes from autograd.

Every stage is written once more, in real numbers, from its equation; the only derivative stated here is
that of the cut. With ``rounding`` the forward is bit-true: all its values are dyadic and fit the 53 bits of a
float64, so it equals the golden's codes exactly. Without, the function is piecewise smooth and passes
``gradcheck`` away from its kinks. With ``cotangent_cuts`` cotangents are cut where the contract cuts them;
the gradients *equal* the deployed build's on small frames, where they all fit 53 bits.

The only module here that needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.rtl.numeric import Format

from .loss import COTANGENT
from .pipeline import Golden

__all__ = ["Twin"]


class _Cut(torch.autograd.Function):
    """Round half up (or not), saturate; derivative by clip mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Format, rounding: bool, clip: str) -> Tensor:
        codes = x * 2.0**to.f
        if rounding:
            codes = torch.floor(codes + 0.5)
        ctx.clip = clip
        ctx.save_for_backward(codes < to.lo, codes > to.hi)
        return codes.clamp(to.lo, to.hi) * 2.0**-to.f

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (ybar,) = grads
        below, above = ctx.saved_tensors
        if ctx.clip == "disconnected":
            ybar = ybar.masked_fill(below | above, 0.0)
        elif ctx.clip == "identity_if_towards":
            ybar = ybar.masked_fill((below & (ybar >= 0)) | (above & (ybar <= 0)), 0.0)
        return ybar, None, None, None


class _CotangentCut(torch.autograd.Function):
    """The identity; its cotangent is cut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Format) -> Tensor:
        ctx.to = to
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        to = ctx.to
        return torch.floor(grads[0] * 2.0**to.f + 0.5).clamp(to.lo, to.hi) * 2.0**-to.f, None


class Twin:
    """A golden pipeline in real numbers.

    Parameters
    ----------
    golden : Golden
        What to mirror: its stages' names, formats, clip modes and curve, and its border.
    rounding : bool
        Round at cuts (bit-true forward, straight-through derivative) or only saturate.
    cotangent_cuts : bool
        Cut the cotangents as the deployed build does.
    """

    def __init__(self, golden: Golden, *, rounding: bool = True, cotangent_cuts: bool = False):
        self.golden = golden
        self._rounding = rounding
        self._cotangent_cuts = cotangent_cuts

    def decode(self, theta: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Parameter codes -> leaf tensors of real values that require a gradient."""
        parameters = self.golden.parameters
        return {
            name: torch.tensor(
                np.asarray(codes, np.float64) * parameters[name].format.lsb,
                dtype=torch.float64,
                requires_grad=True,
            )
            for name, codes in theta.items()
        }

    def __call__(
        self, raw: Tensor, theta: Mapping[str, Tensor], *, cfa: int = 0, bypass: Iterable[str] = ()
    ) -> Tensor:
        """``raw [..., H, W]`` real (code / 2**16), ``theta`` real -> picture ``[..., 3, H, W]`` real."""
        bypass = frozenset(bypass)
        x = raw.unsqueeze(-3)
        for stage in self.golden.stages:
            if self._cotangent_cuts:
                x = _apply(_CotangentCut, x, stage.cotangent_i)
            sites = _Sites(x.shape[-2], x.shape[-1], cfa, self.golden.border)
            own = {name: theta[f"{stage.name}.{name}"] for name in stage.parameters}
            y = (_BYPASS if stage.name in bypass else _STAGES)[stage.name](x, own, sites)
            x = _apply(_Cut, y, stage.o_format, self._rounding, stage.clip)
        return x

    def loss(
        self, y: Tensor, target: Tensor, *, kind: str = "squared", delta: float = 1.0, scale: float = 1.0
    ) -> Tensor:
        """``scale * sum of rho(y - target)``."""
        if self._cotangent_cuts:
            y = _apply(_CotangentCut, y, COTANGENT)
        d = y - target
        if kind == "squared":
            rho = d * d / 2
        elif kind == "l1":
            rho = d.abs()
        elif kind == "huber":
            m = d.abs().clamp(max=delta)
            rho = m * (2 * d.abs() - m) / 2
        else:
            raise ValueError(f"loss kind {kind!r} has no loss; give squared, l1 or huber")
        return scale * rho.sum()


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    return function.apply(*arguments)


class _Sites:
    """Colours and taps of a frame, from the words of the definition rather than from index arithmetic."""

    def __init__(self, height: int, width: int, cfa: int, border: str):
        self._size, self._border = (height, width), border
        tile = ("RGGB", "GRBG", "GBRG", "BGGR")[cfa]
        rows = tile[:2], tile[2:]
        names = [[self._name(rows[y % 2], x % 2) for x in range(width)] for y in range(height)]
        self.order = torch.tensor([[("R", "Gr", "Gb", "B").index(name) for name in row] for row in names])
        """Place of each site's colour in R, Gr, Gb, B, ``[H, W]``."""

    @staticmethod
    def _name(row: str, x: int) -> str:
        if row[x] != "G":
            return row[x]
        return "Gr" if "R" in row else "Gb"

    def pick(self, r: Tensor, gr: Tensor, gb: Tensor, b: Tensor) -> Tensor:
        """The operand of each site's colour."""
        out = torch.zeros_like(r)
        for place, operand in enumerate((r, gr, gb, b)):
            out = torch.where(self.order == place, operand, out)
        return out

    def taps(self, x: Tensor) -> Callable[[int, int], Tensor]:
        """``taps(x)(dy, dx)``: the neighbour of every site, border included."""

        def read(dy: int, dx: int) -> Tensor:
            out = x
            for axis, n, offset in ((-2, self._size[0], dy), (-1, self._size[1], dx)):
                at = [self._read(p + offset, n) for p in range(n)]
                out = out.index_select(axis, torch.tensor([max(p, 0) for p in at]))
                inside = torch.tensor([p >= 0 for p in at], dtype=x.dtype)
                out = out * (inside[:, None] if axis == -2 else inside)
            return out

        return read

    def _read(self, p: int, n: int) -> int:
        """The site that position p reads, or -1 for none."""
        if 0 <= p < n:
            return p
        if self._border == "zero":
            return -1
        if self._border == "replicate" or n == 1:
            return 0 if p < 0 else n - 1
        return self._read(-p if p < 0 else 2 * (n - 1) - p, n)


_Theta = Mapping[str, Tensor]


def _black_level(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    return x - theta["black"][sites.order]


def _white_balance(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    return x * theta["gain"][sites.order]


def _means(taps: Callable[[int, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the two beside, of the two above and below, of the four at the corners."""
    beside = (taps(0, -1) + taps(0, 1)) / 2
    above = (taps(-1, 0) + taps(1, 0)) / 2
    corners = (taps(-1, -1) + taps(-1, 1) + taps(1, -1) + taps(1, 1)) / 4
    return beside, above, corners


def _bilinear(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    c = x[..., 0, :, :]
    beside, above, corners = _means(sites.taps(c))
    cross = (beside + above) / 2
    return torch.stack(
        [
            sites.pick(c, beside, above, corners),
            sites.pick(cross, c, c, cross),
            sites.pick(corners, above, beside, c),
        ],
        -3,
    )


def _hamilton_adams_green(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    c = x[..., 0, :, :]
    t = sites.taps(c)
    bend_h = 2 * c - t(0, -2) - t(0, 2)
    bend_v = 2 * c - t(-2, 0) - t(2, 0)
    with torch.no_grad():  # dh and dv only choose
        dh = (t(0, -1) - t(0, 1)).abs() + bend_h.abs()
        dv = (t(-1, 0) - t(1, 0)).abs() + bend_v.abs()
    gh = (t(0, -1) + t(0, 1)) / 2 + bend_h / 4
    gv = (t(-1, 0) + t(1, 0)) / 2 + bend_v / 4
    g = torch.where(dh < dv, gh, torch.where(dv < dh, gv, (gh + gv) / 2))
    return torch.stack([c, sites.pick(g, c, c, g)], -3)


def _hamilton_adams_chroma(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    c, g = x[..., 0, :, :], x[..., 1, :, :]
    beside, above, corners = (g + mean for mean in _means(sites.taps(c - g)))
    return torch.stack([sites.pick(c, beside, above, corners), g, sites.pick(corners, above, beside, c)], -3)


def _filter_bank(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    c = x[..., 0, :, :]
    t = sites.taps(c)
    bank = theta["coefficient"].reshape(4, 2, 3, 3)[sites.order]
    missing = [torch.zeros_like(c), torch.zeros_like(c)]
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            tap = t(dy, dx)
            for m in range(2):
                missing[m] = missing[m] + bank[:, :, m, abs(dy), abs(dx)] * tap
    first, second = missing
    return torch.stack(
        [
            sites.pick(c, first, first, first),
            sites.pick(first, c, c, second),
            sites.pick(second, second, second, c),
        ],
        -3,
    )


def _ccm(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    product = torch.einsum("ij,...jhw->...ihw", theta["matrix"].reshape(3, 3), x)
    return product + theta["offset"][:, None, None]


def _tone_curve(x: Tensor, theta: _Theta, sites: _Sites) -> Tensor:
    curves = theta["knots"].reshape(-1, 65)
    outputs = []
    for channel in range(3):
        curve, xc = curves[channel % len(curves)], x[..., channel, :, :]
        segment = torch.floor(xc.detach() * 64).long()
        place = xc * 64 - segment
        outputs.append(curve[segment] + (curve[segment + 1] - curve[segment]) * place)
    return torch.stack(outputs, -3)


def _channels(take: Sequence[int]) -> Callable[[Tensor, _Theta, _Sites], Tensor]:
    """A bypass: output channel k is input channel ``take[k]``."""
    return lambda x, theta, sites: x[..., list(take), :, :]


_STAGES: dict[str, Callable[[Tensor, _Theta, _Sites], Tensor]] = {
    "black_level": _black_level,
    "white_balance": _white_balance,
    "bilinear": _bilinear,
    "hamilton_adams_green": _hamilton_adams_green,
    "hamilton_adams_chroma": _hamilton_adams_chroma,
    "filter_bank": _filter_bank,
    "ccm": _ccm,
    "tone_curve": _tone_curve,
}
_BYPASS = {
    "black_level": _channels([0]),
    "white_balance": _channels([0]),
    "bilinear": _channels([0, 0, 0]),
    "hamilton_adams_green": _channels([0, 0]),
    "hamilton_adams_chroma": _channels([0, 0, 0]),
    "filter_bank": _channels([0, 0, 0]),
    "ccm": _channels([0, 1, 2]),
    "tone_curve": _channels([0, 1, 2]),
}
