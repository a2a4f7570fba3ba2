# amaranth: UnusedElaboratable=no
"""Tables: knots by exact integers, values within the stated bound for every argument, RTL equal to the golden."""

from __future__ import annotations

from math import isqrt

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from pullback.gen.verilog import simulation_verilog
from pullback.rtl.companion.function_table import FUNCTIONS, LOG2_E, FunctionTable, Normalise, knots
from pullback.sim.bench.waves import play
from pullback.sim.golden.normalise import interpolated, mantissa

WIDTHS = (2, 17, 18, 23, 44)

BOUND = 1.25  # units of 2**-16

REAL = {
    "power": lambda w: 2.0**-w,
    "reciprocal": lambda w: 1 / (1 + w),
    "reciprocal_root": lambda w: 1 / np.sqrt((1 + w % 1) * 2.0 ** np.floor(w)),
}


def arguments(function: str) -> np.ndarray:
    return np.arange(FUNCTIONS[function].span << 16)


def test_knots_by_exact_integers():
    """K is the nearest code of f: compared in powers that are integers, without any root or logarithm."""
    # 2**-(k/256) 2**16 in [K - 1/2, K + 1/2), both sides doubled and to the 256th power.
    for k, knot in enumerate(knots("power")):
        assert (2 * knot - 1) ** 256 <= 2 ** (17 * 256 - k) < (2 * knot + 1) ** 256
    for k, knot in enumerate(knots("reciprocal")):
        assert knot == ((256 << 17) // (256 + k) + 1) // 2
    for k, knot in enumerate(knots("reciprocal_root")):
        # m = (256 + k mod 256) 2**octave / 256, and 2**17 / sqrt(m) = sqrt(2**34 / m)
        octave, place = divmod(k, 256)
        assert knot == (isqrt((256 << 34) // ((256 + place) << octave)) + 1) // 2
    assert len(knots("reciprocal_root")) == 513 and len(knots("power")) == len(knots("reciprocal")) == 257


def test_log2_e():
    """2**(L - 1/2) < e**(2**16) < 2**(L + 1/2), e between two of its partial sums."""
    # e to 40 decimal digits, cut off; e**65536 by squaring keeps more than 30 of them.
    e = 27182818284590452353602874713526624977572
    power, digits = e, 40
    scale = 10**digits
    for _ in range(16):
        power = power * power // scale
    twice = power * power // scale  # e**(2**17), to be between 2**(2 L - 1) and 2**(2 L + 1)
    assert 2 ** (2 * LOG2_E - 1) < twice // scale < 2 ** (2 * LOG2_E + 1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_argument_within_the_bound(function):
    w = arguments(function)
    error = np.abs(interpolated(function, w) - REAL[function](w / 65536) * 65536)
    print(f"{function}: largest error {error.max():.4f} of 2**-16 at {w[error.argmax()]}")
    assert error.max() < BOUND


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_knot_is_noticed(function, monkeypatch):
    """The bound is tight enough to see a knot that is two units off."""
    changed = list(knots(function))
    changed[100] += 2
    monkeypatch.setattr("pullback.sim.golden.normalise.knots", lambda _: changed)
    w = arguments(function)
    assert np.abs(interpolated(function, w) - REAL[function](w / 65536) * 65536).max() > BOUND


class Functions(wiring.Component):
    """Every table, and normalisations of several widths, side by side."""

    def __init__(self) -> None:
        self.parts = {function: FunctionTable(function) for function in FUNCTIONS}
        self.parts |= {f"normalise_{width}": Normalise(width) for width in WIDTHS}
        super().__init__({name: Out(part.signature) for name, part in self.parts.items()})

    def elaborate(self, platform) -> Module:
        m = Module()
        for name, part in self.parts.items():
            m.submodules[name] = part
            wiring.connect(m, wiring.flipped(getattr(self, name)), part)
        return m


def significands(rng: np.random.Generator, width: int) -> np.ndarray:
    """Every exponent; mantissas that round down, up, at the tie, and to two, which saturates."""
    values = [v for e in range(width) for v in (1 << e, (2 << e) - 1, int(rng.integers(1 << e, 2 << e)))]
    for e in range(18, width):
        unit = 1 << (e - 16)
        tie = (1 << e) + 5 * unit + unit // 2
        values += [tie, tie - 1, tie + 1, (2 << e) - unit // 2, (2 << e) - unit // 2 - 1]
    return np.array(values, np.int64)


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_equals_golden(simulator):
    """Tables on both sides of every knot and between; on Verilator at every argument."""
    rng = np.random.default_rng(1)
    dut = Functions()
    given = {}
    for function in FUNCTIONS:
        w = arguments(function)
        near = np.concatenate([w[::256], w[255::256], w[128::256]])
        some = rng.permutation(np.concatenate([near, rng.choice(w, 700)]))
        given[function] = some if simulator == "icarus" else w
    given |= {f"normalise_{width}": significands(rng, width) for width in WIDTHS}
    clocks = max(map(len, given.values())) + 10
    inputs = {f"{name}__i": np.resize(values, clocks).tolist() for name, values in given.items()}
    outputs = [f"{function}__o" for function in FUNCTIONS]
    outputs += [f"normalise_{width}__{port}" for width in WIDTHS for port in ("exponent", "fraction")]
    shown = play({"core.sv": simulation_verilog(dut)}, inputs, outputs, simulator)
    for function in FUNCTIONS:
        w = given[function]
        got = shown[f"{function}__o"][FunctionTable.latency :][: len(w)]
        assert got == interpolated(function, w).tolist()
    for width in WIDTHS:
        name = f"normalise_{width}"
        v, tail = given[name], dut.parts[name].latency
        exponent, fraction = mantissa(v)
        assert shown[f"{name}__exponent"][tail:][: len(v)] == exponent.tolist()
        assert shown[f"{name}__fraction"][tail:][: len(v)] == fraction.tolist()


@pytest.mark.parametrize("width", WIDTHS)
def test_mantissa(width):
    """The golden normalisation against the value itself."""
    v = significands(np.random.default_rng(width), width)
    exponent, fraction = mantissa(v)
    m = v / 2.0**exponent
    assert ((m >= 1) & (m < 2)).all()
    saturated = (m - 1) * 65536 + 0.5 >= 65536
    assert (fraction[~saturated] == np.floor((m[~saturated] - 1) * 65536 + 0.5)).all()
    assert (fraction[saturated] == 65535).all() and (width < 19 or saturated.any())


def test_bad_parameters():
    with pytest.raises(
        ValueError, match="function 'sine' is unknown; give power or reciprocal or reciprocal_root"
    ):
        FunctionTable("sine")
    with pytest.raises(ValueError, match="family 'tin' is unknown"):
        FunctionTable("power", family="tin")
    with pytest.raises(ValueError, match="width=1; give at least 2"):
        Normalise(1)
