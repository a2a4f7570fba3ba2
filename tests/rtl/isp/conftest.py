"""Cores of the ISP and of single stages as simulated models, with stimulus and expectation from the golden model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pullback.rtl.bus.registers import RegisterMap
from pullback.rtl.isp import isp
from pullback.rtl.numeric import Format
from pullback.rtl.pipeline import Build, Pipeline, VJPCore
from pullback.sim.golden.cut import cut
from pullback.sim.golden.pipeline import Golden
from pullback.sim.golden.pipeline import isp as golden_isp
from pullback.sim.golden.stage import Frame
from pullback.sim.golden.stage import Stage as GoldenStage

KINDS = ("squared", "l1", "huber", "external")


def codes(rng: np.random.Generator, form: Format, shape: tuple[int, ...]) -> np.ndarray:
    """Codes of a format: uniform, with the extremes and zero mixed in, and flat patches so that ties occur."""
    uniform = rng.integers(form.lo, form.hi + 1, size=shape)
    special = rng.choice([form.lo, form.hi, 0], size=shape)
    mixed = np.where(rng.random(shape) < 0.25, special, uniform)
    flat = np.full(shape, rng.integers(form.lo, form.hi + 1))
    return np.where(rng.random(shape) < 0.25, flat, mixed)


def near(rng: np.random.Generator, form: Format, default: Iterable[int], spread: float) -> np.ndarray:
    """Parameter codes around their defaults; a spread of 1 reaches the whole format."""
    default = np.array(list(default), dtype=np.int64)
    change = rng.normal(size=default.shape) * spread * (form.hi - form.lo)
    return np.clip(default + change.astype(np.int64), form.lo, form.hi)


@dataclass
class Expectation:
    """What one run must give, and which saturations it met."""

    picture: np.ndarray
    gradient: np.ndarray
    results: list[list[int]]
    bins: set[str] = field(default_factory=set)


@dataclass
class IspCase:
    """A stimulus for a core of the ISP."""

    words: list[int]
    raw: np.ndarray
    inputs: dict[str, Any]
    expected: Expectation
    options: dict[str, Any] = field(default_factory=dict)


def isp_case(
    golden: Golden, *, height: int, width: int, count: int = 3, cfa: int = 0, depth: int = 16,
    bypass: tuple[str, ...] = (), kind: str = "squared", frames: int = 1, spread: float = 0.05, seed: int = 0,
) -> IspCase:  # fmt: skip
    """Random frames, parameters, target or cotangent; and what the golden model makes of them."""
    rng = np.random.default_rng([seed, height, width, cfa, KINDS.index(kind)])
    raw = codes(rng, Format(False, 0, depth), (count, height, width))
    theta = {n: near(rng, p.format, p.default, spread) for n, p in golden.parameters.items()}
    delta, scale = int(rng.integers(0, 4096)), int(rng.choice([64, 256, 2048, 65535]))
    pixels = (count, 3, height, width)
    target = codes(rng, Format(False, 0, 12), pixels)
    cotangent = codes(rng, Format(True, 2, 16), pixels)
    words = golden.parameter_words(width, height, theta, cfa=cfa, depth=depth, frames=frames, bypass=bypass,
                                   kind=kind, delta=delta, scale=scale)  # fmt: skip
    external = kind == "external"
    expected = Expectation(np.zeros(pixels, np.int64), np.zeros((count, 1, height, width), np.int64), [])
    for first in range(0, count, frames):
        group = slice(first, first + frames)
        loss = {"cotangent": cotangent[group]} if external else {
            "target": target[group], "kind": kind, "delta": delta, "scale": scale
        }  # fmt: skip
        gradient = golden.vjp(raw[group], theta, cfa=cfa, depth=depth, bypass=bypass, **loss)
        expected.picture[group] = gradient.y
        expected.gradient[group, 0] = gradient.xbar
        expected.results.append(gradient.result_words())
        picture = golden.forward(raw[group], theta, cfa=cfa, depth=depth, bypass=bypass)
        for stage in golden.stages:
            local = {n: theta[f"{stage.name}.{n}"] for n in stage.parameters}
            forward = stage.forward(picture.inputs[stage.name], local, Frame(cfa=cfa, border=golden.border,
                                                                             bypass=frozenset(bypass)))  # fmt: skip
            for what, record in (
                (stage.name, forward),
                (f"{stage.name}.cotangent", gradient.cuts[stage.name]),
            ):
                expected.bins |= {
                    f"{what} {side}" for side in ("below", "above") if getattr(record, side).any()
                }
    given = {"cotangent": cotangent.astype(np.int32)} if external else {"target": target.astype(np.uint16)}
    options = {"theta": theta, "cfa": cfa, "depth": depth, "bypass": bypass}
    options |= {} if external else {"kind": kind, "delta": delta, "scale": scale}
    return IspCase(words, raw[:, None].astype(np.uint16), given, expected, options)


def isp_pullback(golden: Golden, case: IspCase, arrays: dict[str, np.ndarray]) -> Any:
    """What the golden model makes of other frames with a case's parameters."""
    given = {name: array.astype(np.int64) for name, array in arrays.items()}
    return golden.vjp(given.pop("raw")[:, 0], **case.options, **given)


def stage_case(
    stage: GoldenStage, map: RegisterMap, *, height: int, width: int, border: str, count: int = 3, cfa: int = 0,
    frames: int = 1, bypass: bool = False, spread: float = 0.05, seed: int = 0,
) -> IspCase:  # fmt: skip
    """The same for a core of one stage; the cotangent comes from outside."""
    rng = np.random.default_rng([seed, height, width, cfa, bypass])
    frame = Frame(cfa=cfa, border=border, bypass=frozenset([stage.name] if bypass else []))
    x = np.stack([codes(rng, form, (count, height, width)) for form in stage.i.values()], axis=1)
    theta = {n: near(rng, p.format, p.default, spread) for n, p in stage.parameters.items()}
    # A core's output takes cotangents of one format, whatever stage comes last.
    arriving = Format(True, 2, 16)
    ybar = codes(rng, arriving, (count, len(stage.o), height, width))
    forward = stage.forward(x, theta, frame)
    pulled = stage.vjp(x, theta, frame, ybar, f=arriving.f)
    leaving = cut(pulled.xbar, pulled.f, stage.cotangent_i)
    words = list(map.defaults)
    given = {
        "width": width,
        "height": height,
        "cfa": cfa,
        "frames": frames,
        "bypass": int(bypass),
        "loss.kind": 3,
    }
    for name, value in given.items():
        words[map.parameter(name).index] = value
    for name, value in theta.items():
        place = map.parameter(f"{stage.name}.{name}")
        words[place.index : place.index + place.entries] = [int(v) for v in value]
    results = []
    for first in range(0, count, frames):
        group = slice(first, first + frames)
        row = [0, 0]
        for name in stage.parameters:
            row += [int(v) for v in pulled.thetabar[name][group].sum(0)]
        results.append([*row, int(forward.clipped[group].sum()), int(leaving.clipped[group].sum())])
    bins = {
        f"{what} {side}"
        for what, record in ((stage.name, forward), (f"{stage.name}.cotangent", leaving))
        for side in ("below", "above")
        if getattr(record, side).any()
    }
    wide = any(form.width > 16 for form in stage.i.values())
    raw = x.astype(np.int32) if wide else (x & 0xFFFF).astype(np.uint16)
    return IspCase(words, raw, {"cotangent": ybar.astype(np.int32)},
                   Expectation(forward.code, leaving.code, results, bins))  # fmt: skip


def signed16(picture: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """A picture as it came over 16-bit containers, with the sign that the expectation has."""
    return (
        picture.astype(np.int16).astype(np.int64) if expected.min(initial=0) < 0 else picture.astype(np.int64)
    )


class Cases:
    """What the tests of this folder share; a fixture, because test folders are no packages."""

    KINDS = KINDS
    isp_case = staticmethod(isp_case)
    isp_pullback = staticmethod(isp_pullback)
    stage_case = staticmethod(stage_case)
    signed16 = staticmethod(signed16)

    @staticmethod
    def isp_core(demosaic: str, border: str, lanes: int, curve: str) -> tuple[VJPCore, Golden]:
        """A core of the ISP for pictures up to 64 x 64, and its golden model."""
        build = Build(lanes=lanes, border=border, max_width=64, max_height=64)
        return VJPCore(isp(demosaic, curve=curve), build), golden_isp(demosaic, curve=curve, border=border)

    @staticmethod
    def stage_core(stage: Any, border: str, lanes: int) -> VJPCore:
        """A core of one stage."""
        build = Build(lanes=lanes, border=border, max_width=64, max_height=64)
        return VJPCore(Pipeline([stage], name=stage.name), build)


@pytest.fixture(scope="session")
def cases() -> type[Cases]:
    """Stimulus and expectation for cores."""
    return Cases
