"""Tuning: gradient descent on a pipeline's parameters, with gradients from whatever backend computes them.

Each step quantises float *masters* to codes, runs forward and pullback over one patch with the squared loss
fused in, and lets Adam move the masters:

    ``theta_k = round(master_k 2^f)``, ``g_k = thetabar_k 2^-f' / (scale 3 N)``, ``master -= rate Adam(g)``

``f'`` are the fractional bits of the exact parameter cotangent, N the pixels of the patch, and the derivative
of quantising a master is 1 (straight-through). Nothing here is random but the place of a patch, which is a
function of (seed, step); so two backends that agree to the bit walk the same trajectory to the bit.

**Loss scale.** A power of two, as in mixed-precision training: halved when more than 1/1000 of a boundary's
cotangents saturate, doubled after 32 steps in a row in which fewer than 1/10000 do. It stays within UQ(8, 8).

**Held out.** The bottom quarter of the frame takes no part in the training; PSNR is measured there, on whole
renditions, so its upper edge has its true neighbours. Training uses the upper three quarters as one frame or,
where they have more than :data:`WHOLE_FRAME` sites or are wider than the core, one patch per step from them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pullback import files
from pullback.backend import SCALE, Backend, Frame, Pipeline, Result, Theta, psnr
from pullback.errors import UsageError
from pullback.raw import Crop, Raw

__all__ = [
    "BackendObjective",
    "Fit",
    "Measure",
    "Objective",
    "Settings",
    "Split",
    "fit",
    "held_out_psnr",
    "identity",
    "neutral",
    "pullback_of",
    "render",
]

WHOLE_FRAME = 1 << 17
"""Up to so many sites a step runs over the whole training region."""

PATCH = 256
"""Side of a patch, where a step does not."""

Real = NDArray[np.float64]
Masters = dict[str, Real]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to descend.

    Attributes
    ----------
    steps : int
        Gradient steps; the learning rate falls to 1/50 of its start along half a cosine.
    seed : int
        Where patches lie.
    rates : mapping
        Learning rate by parameter key: about the largest change of a value in one step.
    warmup : int
        Steps over which the rate rises.
    every : int
        Steps between two measurements of the held-out PSNR and between two saved states.
    """

    steps: int = 240
    seed: int = 0
    rates: Mapping[str, float] = field(
        default_factory=lambda: {
            "black_level.black": 0.0005,
            "white_balance.gain": 0.02,
            "filter_bank.coefficient": 0.04,
            "ccm.matrix": 0.02,
            "ccm.offset": 0.002,
            "tone_curve.knots": 0.02,
        }
    )
    warmup: int = 5
    every: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps are none; give at least 1")

    def rate(self, parameter, step: int) -> float:
        """Learning rate of a parameter at a step. A parameter without one moves by 1/64 of the larger of 1 and
        1/16 of its format's range."""
        base = self.rates.get(
            parameter.key, max(1.0, (parameter.format.max - parameter.format.min) / 16) / 64
        )
        fall = 0.02 + 0.98 * (1 + np.cos(np.pi * min(1.0, step / self.steps))) / 2
        return base * min(1.0, (step + 1) / self.warmup) * float(fall)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which part of a frame trains and which is held out."""

    width: int
    height: int
    max_width: int

    def __post_init__(self) -> None:
        if self.width < 8 or self.height < 8:
            raise UsageError(f"the frame is {self.width}x{self.height}; tuning needs at least 8x8 sites")

    @property
    def training(self) -> Crop:
        """The upper three quarters, whole Bayer cells."""
        return Crop(width=self.width, height=(self.height * 3 // 4) & ~1)

    @property
    def held_out(self) -> Crop:
        """The rest."""
        top = self.training.height
        return Crop(width=self.width, height=self.height - top, y=top)

    @property
    def whole(self) -> bool:
        """Whether a step takes the whole training region."""
        return self.width <= self.max_width and self.width * self.training.height <= WHOLE_FRAME

    def patch(self, seed: int, step: int) -> Crop:
        """What a step trains on."""
        region = self.training
        if self.whole:
            return region
        width, height = min(PATCH, region.width, self.max_width & ~1), min(PATCH, region.height)
        random = np.random.default_rng([seed, step])
        x = 2 * int(random.integers((region.width - width) // 2 + 1))
        y = 2 * int(random.integers((region.height - height) // 2 + 1))
        return Crop(width=width, height=height, x=x, y=y)

    def probes(self) -> list[Crop]:
        """Where the held-out PSNR is measured: all of it, or six patches spread over it."""
        region = self.held_out
        if region.width * region.height <= WHOLE_FRAME:
            return [region]
        width, height = min(PATCH, region.width), min(PATCH, region.height)
        return [
            Crop(
                width=width,
                height=height,
                x=(region.width - width) * column // 2 & ~1,
                y=region.y + ((region.height - height) * row & ~1),
            )
            for row in range(2)
            for column in range(3)
        ]

    def view(self) -> Crop:
        """The part whose gradient is drawn: the frame, or a piece from its middle."""
        if self.width <= self.max_width and self.width * self.height <= 2 * WHOLE_FRAME:
            return Crop(width=self.width, height=self.height)
        width, height = min(512, self.width, self.max_width & ~1), min(512, self.height)
        return Crop(
            width=width, height=height, x=(self.width - width) // 2 & ~1, y=(self.height - height) // 2 & ~1
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure:
    """What an objective says about one point.

    Attributes
    ----------
    loss : float
        Mean over pixels and channels of ``(y - target)^2 / 2``.
    gradient : dict
        Of the mean loss, per parameter, in real units.
    saturated : float
        Largest fraction of saturated cotangents of any boundary.
    cycles : int or None
        Clock cycles.
    """

    loss: float
    gradient: Masters
    saturated: float = 0.0
    cycles: int | None = None

    @property
    def psnr(self) -> float:
        """The loss as PSNR; white is 4095/4096."""
        return psnr(2 * self.loss * 4096**2, 1)


class Objective(Protocol):
    """A loss with its gradient at real-valued masters."""

    pipeline: Pipeline

    def measure(self, masters: Masters, patch: Crop, scale: int) -> Measure:
        """Loss and gradient over a patch; ``scale`` is a code of UQ(8, 8)."""
        ...


class BackendObjective:
    """The squared loss of a backend's picture against the target."""

    def __init__(self, backend: Backend, raw: Raw) -> None:
        self.backend, self.raw = backend, raw
        self.pipeline = backend.pipeline
        self._target = np.ascontiguousarray(np.moveaxis(raw.target, -1, 0))

    def measure(self, masters: Masters, patch: Crop, scale: int) -> Measure:
        """See :class:`Objective`."""
        rows, columns = slice(patch.y, patch.y + patch.height), slice(patch.x, patch.x + patch.width)
        result = self.backend.vjp(
            np.ascontiguousarray(self.raw.codes[rows, columns]),
            self.pipeline.encode(masters),
            Frame(cfa=self.raw.cfa, scale=scale),
            target=np.ascontiguousarray(self._target[:, rows, columns]),
        )
        samples = 3 * patch.width * patch.height
        unit = 1 / (samples * SCALE.decode(scale))
        return Measure(
            loss=result.loss_real / samples,
            gradient={p.key: np.ldexp(result.thetabar[p.key].astype(np.float64), -p.f) * unit
                      for p in self.pipeline.parameters},
            saturated=max(result.cotangent_saturated.values()) / samples,
            cycles=result.cycles,
        )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Fit:
    """The state of a descent, and all that it has seen. ``save`` and ``load`` keep it in a file.

    Attributes
    ----------
    masters, first, second : dict
        The masters and Adam's two moments.
    best : dict of int64
        Codes with the lowest training loss so far (with patches: at the last step of the best 16 in a row).
    loss, scales : list of float, list of int
        Before each step.
    held_out : list of (step, PSNR)
        PSNR of the held-out part at the codes reached after so many steps.
    trajectory : list of int64 arrays
        All codes, in the order of the parameter memory, after each step.
    """

    masters: Masters
    first: Masters
    second: Masters
    best: Theta
    best_loss: float = float("inf")
    scale: int = 1 << SCALE.f
    quiet: int = 0
    loss: list[float] = field(default_factory=list)
    scales: list[int] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    trajectory: list[NDArray[np.int64]] = field(default_factory=list)
    cycles: int = 0

    @classmethod
    def start(cls, pipeline: Pipeline, theta: Theta) -> Fit:
        """Before the first step, at given codes."""
        masters = pipeline.decode(theta)
        return cls(
            masters=masters,
            first={key: np.zeros_like(value) for key, value in masters.items()},
            second={key: np.zeros_like(value) for key, value in masters.items()},
            best={key: np.array(value) for key, value in theta.items()},
        )

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.trajectory)

    def save(self, path: Path, identity: Mapping[str, object]) -> None:
        """Write the state in one step, with what it belongs to."""
        arrays: dict[str, NDArray] = {
            "identity": np.array(json.dumps(identity, sort_keys=True)),
            "best_loss": np.array(self.best_loss),
            "counters": np.array([self.scale, self.quiet, self.cycles], np.int64),
            "loss": np.array(self.loss),
            "scales": np.array(self.scales, np.int64),
            "held_out": np.array(self.held_out, np.float64).reshape(-1, 2),
            "trajectory": np.array(self.trajectory, np.int64),
        }
        for name in ("masters", "first", "second", "best"):
            arrays |= {f"{name}/{key}": value for key, value in getattr(self, name).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        files.write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, object]) -> Fit:
        """Read a state that belongs to ``identity``.

        Raises
        ------
        UsageError
            No such file, unreadable, or of another frame, target, pipeline, start or seed.
        """
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
            found = json.loads(str(arrays["identity"]))
        except FileNotFoundError as error:
            raise UsageError(
                f"{path} does not exist, so there is nothing to resume; leave --resume out"
            ) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} is not a saved state; leave --resume out to start afresh") from error
        for key, value in json.loads(json.dumps(identity)).items():
            if found.get(key) != value:
                raise UsageError(
                    f"{path} was made with another {key} ({_short(found.get(key))}, now {_short(value)}); "
                    f"give the same one or leave --resume out"
                )
        groups: dict[str, dict] = {"masters": {}, "first": {}, "second": {}, "best": {}}
        for name, value in arrays.items():
            group, _, key = name.partition("/")
            if key:
                groups[group][key] = value
        scale, quiet, cycles = (int(n) for n in arrays["counters"])
        return cls(
            **groups,
            best_loss=float(arrays["best_loss"]),
            scale=scale,
            quiet=quiet,
            cycles=cycles,
            loss=[float(x) for x in arrays["loss"]],
            scales=[int(x) for x in arrays["scales"]],
            held_out=[(int(step), float(value)) for step, value in arrays["held_out"]],
            trajectory=list(arrays["trajectory"]),
        )


def neutral(pipeline: Pipeline, raw: Raw) -> Theta:
    """Where tuning starts: the file's black level, one gain that brings its white to 1, defaults elsewhere."""
    theta = pipeline.defaults()
    values = {
        "black_level.black": np.array(raw.black_real),
        "white_balance.gain": 1 / (raw.white_real - np.array(raw.black_real)),
    }
    return theta | {p.key: p.encode(values[p.key]) for p in pipeline.parameters if p.key in values}


def identity(raw: Raw, pipeline: Pipeline, start: Theta, seed: int) -> dict[str, object]:
    """What a saved state belongs to."""
    return {
        "frame": _digest(raw.codes) + f"-{raw.cfa}",
        "target": _digest(raw.target),
        "pipeline": [[stage.name for stage in pipeline.stages], pipeline.border, pipeline.max_width],
        "start": _digest(pipeline.words(start)),
        "seed": seed,
    }


def fit(
    objective: Objective,
    state: Fit,
    split: Split,
    settings: Settings,
    *,
    after: Callable[[Fit, Measure], None] = lambda state, measure: None,
    stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """Descend from ``state``, changing it in place, until ``settings.steps`` steps are taken or ``stop()`` says so.

    ``after`` is called after each step. With the whole training region in every step, the codes after the last
    step are measured too.
    """
    while state.step < settings.steps and not stop():
        step = state.step
        measure = objective.measure(state.masters, split.patch(settings.seed, step), state.scale)
        codes = objective.pipeline.encode(state.masters)
        masters, first, second = _adam(objective.pipeline, state, measure.gradient, settings, step)
        scale, quiet = _rescale(state.scale, state.quiet, measure.saturated)
        words = objective.pipeline.words(objective.pipeline.encode(masters))
        _remember(state, codes, measure.loss, split)
        state.scales.append(state.scale)
        state.masters, state.first, state.second = masters, first, second
        state.scale, state.quiet = scale, quiet
        state.cycles += measure.cycles or 0
        state.trajectory.append(words)
        after(state, measure)
    if split.whole:
        last = objective.measure(state.masters, split.patch(settings.seed, state.step), state.scale)
        if last.loss < state.best_loss:
            state.best_loss, state.best = last.loss, objective.pipeline.encode(state.masters)
    return state


def render(backend: Backend, raw: Raw, theta: Theta, crop: Crop | None = None) -> NDArray[np.int64]:
    """The picture [height, width, 3], UQ(0, 12), in pieces that fit the core; each piece sees its neighbours."""
    crop = crop or Crop(width=raw.width, height=raw.height)
    halo = (sum(stage.radius for stage in backend.pipeline.stages) + 1) & ~1
    # Narrower pieces would be mostly halo; a frame as wide as the core needs none.
    step_x = (
        crop.width
        if raw.width <= backend.pipeline.max_width
        else (backend.pipeline.max_width - 2 * halo) & ~1
    )
    if step_x < 2:
        raise UsageError(
            f"a core of max_width={backend.pipeline.max_width} is too narrow for pieces of a frame "
            f"{raw.width} wide; give max_width of at least {2 * halo + 2}"
        )
    step_y = 1024
    picture = np.empty((crop.height, crop.width, 3), np.int64)
    for top in range(crop.y, crop.y + crop.height, step_y):
        for left in range(crop.x, crop.x + crop.width, step_x):
            bottom, right = min(top + step_y, crop.y + crop.height), min(left + step_x, crop.x + crop.width)
            y0, x0 = max(0, top - halo), max(0, left - halo)
            piece = raw.codes[y0 : min(raw.height, bottom + halo), x0 : min(raw.width, right + halo)]
            y = backend.forward(np.ascontiguousarray(piece), theta, Frame(cfa=raw.cfa)).y
            part = np.moveaxis(y, 0, -1)[top - y0 : bottom - y0, left - x0 : right - x0]
            picture[top - crop.y : bottom - crop.y, left - crop.x : right - crop.x] = part
    return picture


def held_out_psnr(backend: Backend, raw: Raw, theta: Theta, split: Split) -> float:
    """PSNR against the target over the held-out part."""
    squares = samples = 0
    for crop in split.probes():
        difference = render(backend, raw, theta, crop) - crop.of(raw.target)
        squares += int((difference * difference).sum())
        samples += difference.size
    return psnr(squares, samples)


def pullback_of(backend: Backend, raw: Raw, theta: Theta, crop: Crop) -> Result:
    """Picture, loss and pullback over a part of the frame. ``|xbar|`` says how much the loss depends on each site."""
    return backend.vjp(
        np.ascontiguousarray(crop.of(raw.codes)),
        theta,
        Frame(cfa=raw.cfa),
        target=np.ascontiguousarray(np.moveaxis(crop.of(raw.target), -1, 0)),
    )


def _adam(pipeline: Pipeline, state: Fit, gradient: Masters, settings: Settings, step: int):
    """One step of Adam (beta 0.9, 0.99); a master stays where its format can hold it."""
    masters, first, second = {}, {}, {}
    for parameter in pipeline.parameters:
        key = parameter.key
        first[key] = 0.9 * state.first[key] + 0.1 * gradient[key]
        second[key] = 0.99 * state.second[key] + 0.01 * gradient[key] ** 2
        mean = first[key] / (1 - 0.9 ** (step + 1))
        square = second[key] / (1 - 0.99 ** (step + 1))
        moved = state.masters[key] - settings.rate(parameter, step) * mean / (np.sqrt(square) + 1e-9)
        masters[key] = np.clip(moved, parameter.format.min, parameter.format.max)
    return masters, first, second


def _rescale(scale: int, quiet: int, saturated: float) -> tuple[int, int]:
    if saturated > 1e-3:
        return max(1, scale // 2), 0
    if saturated > 1e-4:
        return scale, 0
    return (min(scale * 2, 1 << (SCALE.width - 1)), 0) if quiet + 1 >= 32 else (scale, quiet + 1)


def _remember(state: Fit, codes: Theta, loss: float, split: Split) -> None:
    """Append the loss of ``codes``; keep them if they are the best. Patches differ, so 16 of them are averaged."""
    state.loss.append(loss)
    window = 1 if split.whole else 16
    if len(state.loss) >= min(window, 1 if not np.isfinite(state.best_loss) else window):
        mean = float(np.mean(state.loss[-window:]))
        if mean < state.best_loss:
            state.best_loss, state.best = mean, codes


def _digest(codes: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(codes).tobytes()).hexdigest()[:16]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
