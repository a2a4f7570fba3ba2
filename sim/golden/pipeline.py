"""A chain of golden stages: forward, the whole gradient, tangents, and the words a core's memories hold.

``y = (S_n o ... o S_1)(x0)`` with ``x0 = raw << (16 - depth)``. The VJP runs the stages backwards and cuts
the cotangent once where it leaves each of them; parameter cotangents are never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pullback.rtl.numeric import Format

from .bilinear import Bilinear
from .black_level import BlackLevel
from .border import BORDERS
from .ccm import CCM
from .cfa import PHASES
from .cut import Cut, cut
from .filter_bank import FilterBank
from .hamilton_adams import HamiltonAdamsChroma, HamiltonAdamsGreen
from .loss import DELTA, KINDS, SCALE, TARGET, loss
from .stage import Frame, Stage
from .tone_curve import ToneCurve
from .white_balance import WhiteBalance

__all__ = ["DEMOSAICS", "FRAME_WORDS", "Golden", "Gradient", "Picture", "Tangent", "isp"]

DEMOSAICS = ("filter_bank", "bilinear", "hamilton_adams")
FRAME_WORDS = 16
"""Words of the parameter memory before the first stage's parameters."""
RAW_BITS = 16
MAX_SITES = 1 << 28
"""Sites in one gradient: an 18-bit cotangent times an 18-bit factor, summed over these, fits 63 bits."""
WORD = Format(True, 64, 0)

Codes = Mapping[str, np.ndarray]
"""``"stage.parameter"`` -> integer codes."""


@dataclass(frozen=True)
class Picture:
    """Result of a forward pass.

    Members
    -------
    y : int64 [..., 3, H, W]
        Output codes.
    saturated : dict
        ``"<stage>.saturated"`` -> clipped output codes (int, or int64 ``[...]`` per frame).
    inputs : dict
        Stage name -> input codes ``[..., C, H, W]``.
    """

    y: np.ndarray
    saturated: dict[str, Any]
    inputs: dict[str, np.ndarray]

    def result_words(self) -> list[int]:
        """The forward core's result memory: ``saturated`` of each stage, last stage first."""
        return [int(self.saturated[f"{name}.saturated"]) for name in reversed(self.inputs)]


@dataclass(frozen=True)
class Gradient:
    """Result of a VJP pass. Counts, loss and parameter cotangents are sums over the batch (one gradient
    group), or have the batch axes in front if asked for per frame.

    Members
    -------
    y : int64 [..., 3, H, W]
        Output codes.
    loss : int
        Units of ``2**-25``; 0 for the external kind.
    xbar, xbar_f
        Cotangent of the raw, ``[..., H, W]``, and its fractional bits (13 after the cut).
    thetabar, thetabar_f : dict
        ``"stage.parameter"`` -> exact integers ``[entries]``, and their fractional bits.
    saturated : dict
        ``"loss.cotangent_saturated"``, ``"<stage>.saturated"``, ``"<stage>.cotangent_saturated"`` -> counts.
    cotangents : dict
        Stage name -> cotangent codes at its *output*.
    cuts : dict
        Stage name -> the Cut of the cotangent where it leaves the stage at its input (empty if not cut).
    """

    y: np.ndarray
    loss: Any
    xbar: np.ndarray
    xbar_f: int
    thetabar: dict[str, np.ndarray]
    thetabar_f: dict[str, int]
    saturated: dict[str, Any]
    cotangents: dict[str, np.ndarray]
    cuts: dict[str, Cut]

    def result_words(self) -> list[int]:
        """The VJP core's result memory: loss, its saturations, then from the last stage to the first its
        parameter cotangents in declaration order, ``saturated`` and ``cotangent_saturated``."""
        words = [int(self.loss), int(self.saturated["loss.cotangent_saturated"])]
        for stage in self.cotangents:  # last stage first
            for name, value in self.thetabar.items():
                if name.startswith(f"{stage}."):
                    words += [int(v) for v in value]
            words += [int(self.saturated[f"{stage}.{k}"]) for k in ("saturated", "cotangent_saturated")]
        assert all(WORD.lo <= word <= WORD.hi for word in words)
        return words


@dataclass(frozen=True)
class Tangent:
    """Result of a JVP pass, exact.

    Members
    -------
    y, f
        Tangent of the output ``[..., 3, H, W]`` and its fractional bits.
    inputs : dict
        Stage name -> (tangent at its input ``[..., C, H, W]``, fractional bits).
    """

    y: np.ndarray
    f: int
    inputs: dict[str, tuple[np.ndarray, int]]


class Golden:
    """A pipeline of golden stages.

    Parameters
    ----------
    stages : sequence of Stage
        In order; a stage's output channels and formats are the next one's input.
    border : str
        What taps outside the frame read, one of ``border.BORDERS``.

    Raises
    ------
    ValueError
        If neighbours do not fit together, a name occurs twice, or the border is unknown.
    """

    def __init__(self, stages: Sequence[Stage], *, border: str = "mirror"):
        if border not in BORDERS:
            raise ValueError(f"border {border!r} is unknown; give one of {', '.join(BORDERS)}")
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages {names} repeat a name; parameters are addressed by it")
        for left, right in pairwise(stages):
            if left.o != right.i or left.cotangent_o != right.cotangent_i:
                sides = f"{dict(left.o)}, {left.cotangent_o} / {dict(right.i)}, {right.cotangent_i}"
                raise ValueError(f"{left.name} does not fit {right.name}: {sides}; give stages that agree")
        self.stages = tuple(stages)
        self.border = border

    # Parameters -------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Stage names in order."""
        return [stage.name for stage in self.stages]

    @property
    def parameters(self) -> dict:
        """``"stage.parameter"`` -> Parameter, in pipeline and declaration order."""
        return {f"{s.name}.{name}": p for s in self.stages for name, p in s.parameters.items()}

    @property
    def theta(self) -> dict[str, np.ndarray]:
        """Default codes of every parameter."""
        return {name: np.array(p.default, np.int64) for name, p in self.parameters.items()}

    # The three passes -------------------------------------------------------------------------------------

    def forward(
        self,
        raw: np.ndarray,
        theta: Codes | None = None,
        *,
        cfa: int = 0,
        depth: int = RAW_BITS,
        bypass: Iterable[str] = (),
        per_frame: bool = False,
    ) -> Picture:
        """``raw [..., H, W]`` codes of ``depth`` bits -> picture. Missing parameters have their defaults."""
        theta, frame = self._theta(theta), self._frame(cfa, bypass)
        x, inputs, saturated = self._raw(raw, depth), {}, {}
        for stage in self.stages:
            inputs[stage.name] = x
            result = stage.forward(x, _local(theta, stage), frame)
            saturated[f"{stage.name}.saturated"] = result.clipped.sum((-3, -2, -1))
            x = result.code
        return Picture(x, {k: _group(v, per_frame) for k, v in saturated.items()}, inputs)

    def vjp(
        self,
        raw: np.ndarray,
        theta: Codes | None = None,
        *,
        target: np.ndarray | None = None,
        kind: str = "squared",
        delta: int = DELTA.hi,
        scale: int = 1 << SCALE.f,
        cotangent: np.ndarray | None = None,
        cfa: int = 0,
        depth: int = RAW_BITS,
        bypass: Iterable[str] = (),
        per_frame: bool = False,
        cotangents: str = "cut",
    ) -> Gradient:
        """The whole gradient: of the loss against ``target``, or from a given ``cotangent`` of the output.

        Parameters
        ----------
        target : [..., 3, H, W]
            UQ(0, 12) codes; with ``kind``, ``delta`` (UQ(0, 12) code) and ``scale`` (UQ(8, 8) code).
        cotangent : [..., 3, H, W]
            SQ(2, 16) codes; the kind is then ``external``.
        cotangents : str
            ``"cut"``: the deployed build. ``"exact"``: nothing is cut, Python integers. ``"ring"``: nothing
            is cut, int64 modulo 2**64; here ``cotangent`` may be any int64.
        """
        if (target is None) == (cotangent is None):
            raise ValueError("give either a target (fused loss) or a cotangent (external): exactly one")
        if cotangents not in ("cut", "exact", "ring"):
            raise ValueError(f"cotangents {cotangents!r} is unknown; give cut, exact or ring")
        theta, frame = self._theta(theta), self._frame(cfa, bypass)
        picture = self.forward(raw, theta, cfa=cfa, depth=depth, bypass=bypass, per_frame=True)
        frames = picture.y.shape[:-3]
        last = self.stages[-1]
        f = last.cotangent_o.f
        saturated = dict(picture.saturated)
        if target is None:
            ybar = np.asarray(cotangent)
            if cotangents != "ring":
                _check("cotangent", ybar, last.cotangent_o)
            total, clipped = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
        else:
            target = np.asarray(target)
            _check("target", target, TARGET)
            _check("delta", np.asarray(delta), DELTA)
            _check("scale", np.asarray(scale), SCALE)
            total, started = loss(picture.y, target.astype(np.int64), kind=kind, delta=delta, scale=scale)
            ybar, clipped = started.code, started.clipped.sum((-3, -2, -1))
        if ybar.shape != picture.y.shape:
            raise ValueError(f"target or cotangent has shape {ybar.shape}; the picture has {picture.y.shape}")
        if (sites := picture.y[..., 0, :, :].size) >= MAX_SITES:
            raise ValueError(f"{sites} sites in one gradient; give fewer than {MAX_SITES}")
        ybar = ybar.astype(object if cotangents == "exact" else np.int64)
        saturated["loss.cotangent_saturated"] = clipped

        thetabar, thetabar_f, ybars, cuts = {}, {}, {}, {}
        for stage in reversed(self.stages):
            ybars[stage.name] = ybar
            pulled = stage.vjp(picture.inputs[stage.name], _local(theta, stage), frame, ybar, f=f)
            for name, value in pulled.thetabar.items():
                thetabar[f"{stage.name}.{name}"] = value
                thetabar_f[f"{stage.name}.{name}"] = stage.parameters[name].f + f - stage.cotangent_o.f
            ybar, f = pulled.xbar, pulled.f
            count = np.zeros(frames, np.int64)
            if cotangents == "cut":
                leaving = cuts[stage.name] = cut(ybar, f, stage.cotangent_i)
                ybar, f = leaving.code, stage.cotangent_i.f
                count = leaving.clipped.sum((-3, -2, -1))
            saturated[f"{stage.name}.cotangent_saturated"] = count
        return Gradient(
            y=picture.y,
            loss=_group(total, per_frame),
            xbar=ybar[..., 0, :, :],
            xbar_f=f,
            thetabar={name: _group(thetabar[name], per_frame, keep=1) for name in self.parameters},
            thetabar_f={name: thetabar_f[name] for name in self.parameters},
            saturated={k: _group(v, per_frame) for k, v in saturated.items()},
            cotangents=ybars,
            cuts=cuts,
        )

    def jvp(
        self,
        raw: np.ndarray,
        theta: Codes | None = None,
        *,
        v: np.ndarray | None = None,
        dtheta: Codes | None = None,
        cfa: int = 0,
        depth: int = RAW_BITS,
        bypass: Iterable[str] = (),
        towards: Gradient | None = None,
        ring: bool = False,
    ) -> Tangent:
        """The exact tangent for ``v [..., H, W]`` (of x0, the left-aligned 16-bit raw, in its codes) and
        ``dtheta`` (in codes); what is missing is 0.

        ``ring``: int64 modulo 2**64 instead of Python integers. ``towards``: a gradient at the same place,
        which clip mode ``identity_if_towards`` needs, since its derivative depends on the cotangent's sign.
        """
        theta, frame = self._theta(theta), self._frame(cfa, bypass)
        picture = self.forward(raw, theta, cfa=cfa, depth=depth, bypass=bypass)
        dtype = np.int64 if ring else object
        tangent = np.zeros(np.shape(raw), dtype) if v is None else np.asarray(v).astype(dtype)
        tangent = tangent[..., None, :, :]
        directions = {name: np.zeros(p.entries, dtype) for name, p in self.parameters.items()}
        for name, value in (dtheta or {}).items():
            if name not in directions:
                raise ValueError(f"parameter {name!r} is unknown; the pipeline has {', '.join(directions)}")
            directions[name] = np.asarray(value).astype(dtype)
        inputs, extra = {}, 0  # the tangent counts units of 2**-extra codes
        for stage in self.stages:
            inputs[stage.name] = tangent, stage.i_f + extra
            tangent = stage.jvp(
                picture.inputs[stage.name],
                _local(theta, stage),
                frame,
                tangent,
                {name: direction << extra for name, direction in _local(directions, stage).items()},
                towards=None if towards is None else towards.cotangents[stage.name],
            )
            extra += stage.f - stage.o_format.f
        return Tangent(tangent, self.stages[-1].o_format.f + extra, inputs)

    # Words ------------------------------------------------------------------------------------------------

    def parameter_words(
        self,
        width: int,
        height: int,
        theta: Codes | None = None,
        *,
        cfa: int = 0,
        depth: int = RAW_BITS,
        frames: int = 1,
        bypass: Iterable[str] = (),
        kind: str = "squared",
        delta: int = DELTA.hi,
        scale: int = 1 << SCALE.f,
    ) -> list[int]:
        """The parameter memory: frame words, then every stage's codes in pipeline order (signed ints)."""
        if kind not in KINDS:
            raise ValueError(f"loss kind {kind!r} is unknown; give one of {', '.join(KINDS)}")
        theta, skipped = self._theta(theta), self._frame(cfa, bypass).bypass
        mask = sum(1 << k for k, name in enumerate(self.names) if name in skipped)
        head = [width, height, cfa, depth, frames, mask, KINDS.index(kind), delta, scale]
        body = [int(code) for name in self.parameters for code in theta[name]]
        return head + [0] * (FRAME_WORDS - len(head)) + body

    def result_names(self, *, vjp: bool = True) -> list[str]:
        """The name of every word of the result memory: ``result_words`` of a Gradient, or of a Picture."""
        names = ["loss", "loss.cotangent_saturated"] if vjp else []
        for stage in reversed(self.stages):
            if vjp:
                for name, parameter in stage.parameters.items():
                    names += [f"{stage.name}.{name}[{k}]" for k in range(parameter.entries)]
            names.append(f"{stage.name}.saturated")
            if vjp:
                names.append(f"{stage.name}.cotangent_saturated")
        return names

    # ------------------------------------------------------------------------------------------------------

    def _frame(self, cfa: int, bypass: Iterable[str]) -> Frame:
        bypass = frozenset(bypass)
        if unknown := bypass - set(self.names):
            known = ", ".join(self.names)
            raise ValueError(f"bypass of {sorted(unknown)} is unknown; the pipeline has {known}")
        if cfa not in range(4):
            raise ValueError(f"cfa is {cfa}; give 0..3, the index in {', '.join(PHASES)}")
        return Frame(cfa=int(cfa), border=self.border, bypass=bypass)

    def _theta(self, theta: Codes | None) -> dict[str, np.ndarray]:
        complete = self.theta
        for name, codes in (theta or {}).items():
            if name not in complete:
                raise ValueError(f"parameter {name!r} is unknown; the pipeline has {', '.join(complete)}")
            codes, parameter = np.asarray(codes), self.parameters[name]
            if codes.shape != (parameter.entries,):
                raise ValueError(f"{name} has shape {codes.shape}; give ({parameter.entries},)")
            _check(name, codes, parameter.format)
            complete[name] = codes.astype(np.int64)
        return complete

    def _raw(self, raw: np.ndarray, depth: int) -> np.ndarray:
        if depth not in range(8, RAW_BITS + 1):
            raise ValueError(f"depth is {depth}; give 8..{RAW_BITS}")
        raw = np.asarray(raw)
        if raw.ndim < 2 or raw.size == 0:
            raise ValueError(f"raw has shape {raw.shape}; give [..., height, width], not empty")
        _check("raw", raw, Format(False, depth, 0))
        return raw.astype(np.int64)[..., None, :, :] << (RAW_BITS - depth)


def isp(
    demosaic: str = "filter_bank",
    *,
    curve: str = "shared",
    border: str = "mirror",
    clip: str | Mapping[str, str] = "disconnected",
) -> Golden:
    """The five-stage ISP: black level, white balance, demosaicking, colour correction, tone curve.

    Parameters
    ----------
    demosaic : str
        ``"filter_bank"``, ``"bilinear"`` or ``"hamilton_adams"`` (which makes two stages).
    curve : str
        ``"shared"`` or ``"per_channel"`` tone curve.
    border : str
        ``"mirror"``, ``"replicate"`` or ``"zero"``.
    clip : str or mapping
        Derivative of saturation, for all stages or per stage name.
    """
    modes: Mapping[str, str] = {} if isinstance(clip, str) else clip
    default = clip if isinstance(clip, str) else "disconnected"

    def make(stage: type[Stage], **options: str) -> Stage:
        return stage(clip=modes.get(stage.name, default), **options)

    choices = {
        "filter_bank": (FilterBank,),
        "bilinear": (Bilinear,),
        "hamilton_adams": (HamiltonAdamsGreen, HamiltonAdamsChroma),
    }
    if demosaic not in choices:
        raise ValueError(f"demosaic {demosaic!r} is unknown; give one of {', '.join(DEMOSAICS)}")
    golden = Golden(
        [
            make(BlackLevel),
            make(WhiteBalance),
            *(make(stage) for stage in choices[demosaic]),
            make(CCM),
            make(ToneCurve, curve=curve),
        ],
        border=border,
    )
    if unknown := set(modes) - set(golden.names):
        raise ValueError(f"clip of {sorted(unknown)} is unknown; the pipeline has {', '.join(golden.names)}")
    return golden


def _local(values: Codes, stage: Stage) -> dict[str, np.ndarray]:
    """The stage's own parameters, by their short names."""
    return {name: values[f"{stage.name}.{name}"] for name in stage.parameters}


def _group(values: np.ndarray, per_frame: bool, keep: int = 0) -> Any:
    """Sum over the frame axes unless they are wanted; scalars become Python ints."""
    values = np.asarray(values)
    if not per_frame:
        values = values.sum(tuple(range(values.ndim - keep)))
        return values if keep else int(values)
    return values


def _check(name: str, codes: np.ndarray, fmt: Format) -> None:
    """Codes must be integers of the format."""
    if codes.dtype.kind not in "iuO":
        raise ValueError(f"{name} has dtype {codes.dtype}; give integer codes of {fmt}")
    if codes.size and (codes.min() < fmt.lo or codes.max() > fmt.hi):
        raise ValueError(f"{name} has codes {codes.min()}..{codes.max()}; {fmt} holds {fmt.lo}..{fmt.hi}")
