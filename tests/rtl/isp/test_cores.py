"""Cores of the whole ISP against the golden model, bit for bit.

As fast models of Verilator, one test a build: pictures, input gradients and every result word; 4 CFA orders,
4 losses, bypasses, sizes from one pixel on, groups of frames, all streams stalling, frames back to back without a
gap; saturation on both sides of every cut; frames that are malformed on the wire. And through the cocotb bench, on
Icarus, whose registers start as X, as well as on Verilator.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pullback.rtl.bus.registers import ERROR_RESULTS_OVERRUN, ID
from pullback.sim.beats import Beats, pack_frames, unpack_frames
from pullback.sim.bench.core import Job, check_core
from pullback.sim.bench.coverage import Coverage
from pullback.sim.generated import generated
from pullback.sim.model import ERROR_NAMES, Model
from pullback.sim.stalls import ALTERNATING, BURSTS, LONG, NONE

DEMOSAICS = ("bilinear", "hamilton_adams", "filter_bank")
BORDERS = ("mirror", "replicate", "zero")
CURVES = ("shared", "per_channel")

# Every demosaicker, border, lane count and curve, and every pair of demosaicker with border and lanes.
QUICK = [
    ("bilinear", "mirror", 1, "per_channel"),
    ("bilinear", "zero", 2, "shared"),
    ("hamilton_adams", "replicate", 1, "shared"),
    ("hamilton_adams", "mirror", 2, "shared"),
    ("filter_bank", "zero", 1, "shared"),
    ("filter_bank", "replicate", 2, "per_channel"),
]
ALL = [(d, b, p, CURVES[(i + p) % 2]) for i, (d, b, p) in enumerate(product(DEMOSAICS, BORDERS, (1, 2)))]
REST = [build for build in ALL if build[:3] not in [quick[:3] for quick in QUICK]]

SIZES = [(2, 2), (1, 1), (1, 7), (6, 1), (3, 2), (5, 4), (7, 9), (2, 11), (16, 15), (33, 20), (48, 64)]
STALLS = {"none": NONE, "bursts": BURSTS, "alternating": ALTERNATING, "long": LONG}
NEVER = {
    # What cannot happen, by range: a difference of unsigned codes fits; averages stay inside; a curve of
    # non-negative knots is not negative; the black level passes its cotangent in the same format.
    "black_level below", "black_level above", "black_level.cotangent below", "black_level.cotangent above",
    "bilinear below", "bilinear above", "tone_curve below",
}  # fmt: skip


def _generated(cases, demosaic, border, lanes, curve):
    """Verilog and ports of a build, and its golden model."""
    sources, ports = generated(
        f"isp {demosaic} {border} {lanes} {curve} 64",
        lambda: cases.isp_core(demosaic, border, lanes, curve)[0],
    )
    return sources, ports, cases.isp_core(demosaic, border, lanes, curve)[1]


def _model(cases, *build):
    """A build as a fast model, and its golden model."""
    sources, ports, golden = _generated(cases, *build)
    return Model.build(sources, ports=ports, optimise="quick"), golden


def _run(cases, *build):
    model, golden = _model(cases, *build)
    cuts = [f"{name}{what} {side}" for name in golden.names for what in ("", ".cotangent")
            for side in ("below", "above")]  # fmt: skip
    coverage = Coverage({
        "cfa": range(4), "loss": cases.KINDS, "stalls": STALLS, "size": SIZES, "depth": (8, 10, 12, 16),
        "frames per group": (1, 3), "back to back": ("no gap",), "bypass": ("none", "all", *golden.names),
        "clipped": [c for c in cuts if c not in NEVER],
    })  # fmt: skip
    bypasses = [(), (), (), *((name,) for name in golden.names), tuple(golden.names)]
    # Every size with every loss; phase, stalls, bypass, depth and group size turn at their own pace.
    for n, (size, kind) in enumerate(product(SIZES, cases.KINDS)):
        cfa, bypass = (n + n // 4) % 4, bypasses[n % len(bypasses)]
        stall = list(STALLS)[(n + n // 4) % 4]
        depth, frames = (8, 10, 12, 16)[n // 3 % 4], (1, 3)[n % 5 == 0]
        spread = (0.02, 0.3)[n % 2]
        case = cases.isp_case(golden, height=size[0], width=size[1], count=3, cfa=cfa, depth=depth, bypass=bypass,
                              kind=kind, frames=frames, spread=spread, seed=n)  # fmt: skip
        label = (
            f"{size} {kind} cfa={cfa} bypass={bypass} stalls={stall} depth={depth} frames={frames} seed={n}"
        )
        model.load_parameters(case.words)
        run = model.run(case.raw, stalls=STALLS[stall], seed=n, **case.inputs)
        np.testing.assert_array_equal(run.picture, case.expected.picture, err_msg=f"picture: {label}")
        np.testing.assert_array_equal(run.gradient, case.expected.gradient, err_msg=f"gradient: {label}")
        for found, expected in zip(run.results.tolist(), case.expected.results, strict=True):
            wrong = [
                (name, e, f)
                for name, e, f in zip(golden.result_names(), expected, found, strict=True)
                if e != f
            ]
            assert not wrong, f"{label}: (word, expected, found) {wrong[:5]}"
        assert model.errors == 0, label
        if stall == "none" and frames == 3:  # no group of the three waits for the results before it
            gaps = run.cycles.first_in[1:] - run.cycles.last_in[:-1] - 1
            assert not gaps.any(), f"{label}: {gaps} cycles between frames"
            coverage.hit("back to back", "no gap")
        met = {
            "cfa": cfa,
            "loss": kind,
            "stalls": stall,
            "size": size,
            "depth": depth,
            "frames per group": frames,
        }
        for group, name in met.items():
            coverage.hit(group, name)
        for name in bypass if len(bypass) < 2 else ("all",):
            coverage.hit("bypass", name)
        if not bypass:
            coverage.hit("bypass", "none")
        for name in case.expected.bins:
            coverage.hit("clipped", name)
    print(coverage.report())
    coverage.require_full()


@pytest.mark.parametrize("build", QUICK, ids=lambda b: "-".join(map(str, b)))
def test_core_is_golden(cases, build):
    """The builds of every run."""
    _run(cases, *build)


@pytest.mark.slow
@pytest.mark.parametrize("build", REST, ids=lambda b: "-".join(map(str, b)))
def test_every_core_is_golden(cases, build):
    """The other combinations of demosaicker, border and lanes."""
    _run(cases, *build)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("demosaic", "border"), [("bilinear", "mirror"), ("hamilton_adams", "replicate"), ("filter_bank", "zero")]
)
def test_four_lanes_are_golden(cases, demosaic, border):
    """Four pixels per clock."""
    _run(cases, demosaic, border, 4, "shared")


PARTS = range(4)


def _bench(cases, build, simulator, part):
    """Every loss and CFA order, bypasses, groups, with and without stalls, through the cocotb bench.

    Two of the eight jobs, one after the other in one core: all of them in Icarus are a quarter of an hour.
    """
    sources, _, golden = _generated(cases, *build)
    sizes = [(2, 2), (3, 5), (1, 3), (6, 7), (5, 4), (2, 3), (4, 6), (7, 1)]
    bypasses = [(), (), golden.names[:1], (), golden.names[1:3], (), golden.names, ()]
    jobs = []
    for n in (2 * part, 2 * part + 1):
        height, width = sizes[n]
        case = cases.isp_case(golden, height=height, width=width, count=3, cfa=n % 4, depth=(16, 10)[n % 2],
                              bypass=tuple(bypasses[n]), kind=cases.KINDS[(n + n // 4) % 4], frames=(3, 1)[n % 3 == 2],
                              spread=(0.02, 0.3)[n % 2], seed=n)  # fmt: skip
        jobs.append(Job(
            words=case.words, raw=case.raw, **case.inputs, picture=case.expected.picture,
            gradient=case.expected.gradient, results=np.array(case.expected.results), lanes=build[2], seed=n,
            stalls=BURSTS if n % 3 == 1 else NONE,
        ))  # fmt: skip
    check_core(sources, jobs, simulator)


@pytest.mark.parametrize(
    "part", [*PARTS[:2], *(pytest.param(part, marks=pytest.mark.slow) for part in PARTS[2:])]
)
def test_core_on_icarus_is_golden(cases, part):
    """The smallest build. The first half has every CFA order, every loss and both depths."""
    _bench(cases, ("bilinear", "mirror", 1, "per_channel"), "icarus", part)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("build", "simulator"),
    [
        (("bilinear", "mirror", 1, "per_channel"), "verilator"),
        (("filter_bank", "replicate", 2, "per_channel"), "icarus"),
        (("hamilton_adams", "replicate", 1, "shared"), "icarus"),
    ],
    ids=str,
)
def test_larger_cores_in_the_bench_are_golden(cases, build, simulator, part):
    """The other demosaickers, two lanes, and the bench on Verilator."""
    _bench(cases, build, simulator, part)


FAULTS = ("line too long", "line too short", "frame out of step")


def _spoilt(beats: Beats, fault: str, per_line: int, height: int) -> Beats:
    """Three frames of beats, the middle one with a fault from its line 2 on."""
    line = (height + 2) * per_line
    end = line + per_line
    user, last = beats.user.copy(), beats.last.copy()
    if fault == "line too long":  # two beats after the end, and only there the mark
        last[end - 1] = 0
        keep = np.r_[:end, end - 2 : end, end : len(beats)]
        spoilt = Beats(beats.data, user, last).select(keep)
        spoilt.data[end : end + 2] ^= 0xA5
        spoilt.last[end + 1] = 1
        return spoilt
    if fault == "line too short":  # two beats are missing
        last[end - 3] = 1
        return Beats(beats.data, user, last).select(np.r_[: end - 2, end : len(beats)])
    return beats.select(np.r_[:line, 2 * height * per_line : len(beats)])  # all further lines are missing


def _mended(frames: np.ndarray, fault: str, lanes: int) -> np.ndarray:
    """What the core makes of them: whole frames; what was missing is 0."""
    frames = frames.copy()
    if fault == "line too short":
        frames[1, :, 2, (-(-frames.shape[-1] // lanes) - 2) * lanes :] = 0
    elif fault == "frame out of step":
        frames[1, :, 2:] = 0
    return frames


@pytest.mark.parametrize("build", QUICK[:2], ids=lambda b: "-".join(map(str, b)))
def test_malformed_frames_are_flagged_and_mended(cases, build):
    """A spoilt frame between two good ones, on each input: its own error bit, whole frames out, none of them sheared;
    and after it, with no reset, the next run is right to the last result word."""
    model, golden = _model(cases, *build)
    lanes, height, width, cfa = build[2], 5, 9, 2
    per_line = -(-width // lanes)
    for number, (stream, fault) in enumerate(product(("raw", "target", "cotangent"), FAULTS)):
        kind = "external" if stream == "cotangent" else "squared"
        case = cases.isp_case(golden, height=height, width=width, cfa=cfa, kind=kind, frames=3, seed=number)
        arrays = {"raw": case.raw, **case.inputs}
        beats = {n: pack_frames(a, lanes=lanes, bits=model.containers[n]) for n, a in arrays.items()}
        beats[stream] = _spoilt(beats[stream], fault, per_line, height)
        arrays[stream] = _mended(arrays[stream], fault, lanes)
        model.load_parameters(case.words)
        run = model.run_beats(
            beats, stalls=STALLS["bursts" if number % 2 else "none"], seed=number, quiet=1000
        )
        flagged = [name for bit, name in enumerate(ERROR_NAMES) if run.errors >> bit & 1]
        assert flagged == [f"{stream} {fault}"]
        assert run.taken == {n: len(b) for n, b in beats.items()}
        expected = cases.isp_pullback(golden, case, arrays)
        found = {
            n: unpack_frames(b, width=width, height=height, lanes=lanes, bits=model.containers[n])
            for n, b in run.outputs.items()
        }
        np.testing.assert_array_equal(found["picture"], expected.y, err_msg=f"{stream} {fault}")
        np.testing.assert_array_equal(found["gradient"][:, 0], expected.xbar, err_msg=f"{stream} {fault}")
        model.clear_errors()
        good = model.run(case.raw, **case.inputs)
        np.testing.assert_array_equal(good.picture, case.expected.picture)
        np.testing.assert_array_equal(good.gradient, case.expected.gradient)
        assert good.results.tolist() == case.expected.results


@pytest.mark.parametrize("build", QUICK, ids=lambda b: "-".join(map(str, b)))
def test_reset_inside_a_frame_leaves_nothing_behind(cases, build):
    """Line buffers and pipelines full of a large frame when reset comes, after a silence or while beats move; the next
    frames are right all the same."""
    model, golden = _model(cases, *build)
    lanes = build[2]
    wild = cases.isp_case(golden, height=20, width=33, kind="external", spread=0.3, seed=1)
    per_line = -(-33 // lanes)
    for n, (height, width) in enumerate([(20, 33), (5, 4), (9, 40)]):
        model.load_parameters(wild.words)
        cut = (11 + n) * per_line + 7 * n  # inside the frame
        beats = {
            name: pack_frames(frames, lanes=lanes, bits=model.containers[name])
            for name, frames in {"raw": wild.raw, **wild.inputs}.items()
        }
        # The shortest silence is the first clock in which all streams stall.
        run = model.run_beats(
            {name: Beats(b.data[:cut], b.user[:cut], b.last[:cut]) for name, b in beats.items()},
            quiet=(1, 500, 1)[n],
            stalls=(STALLS["alternating"], NONE, STALLS["bursts"])[n],
            seed=n,
        )
        assert 0 < run.taken["raw"] <= cut
        model.reset()
        case = cases.isp_case(golden, height=height, width=width, count=2, kind="external", seed=n)
        model.load_parameters(case.words)
        run = model.run(case.raw, **case.inputs)
        np.testing.assert_array_equal(run.picture, case.expected.picture)
        np.testing.assert_array_equal(run.gradient, case.expected.gradient)
        assert run.results.tolist() == case.expected.results
        assert model.errors == 0


@pytest.mark.parametrize("build", QUICK[:2], ids=lambda b: "-".join(map(str, b)))
def test_first_clock_after_reset_loses_nothing(cases, build):
    """Raw and target frames, or a read, that stand there while the defaults are still being loaded."""
    model, golden = _model(cases, *build)
    lanes, width, height = build[2], *model.max_size
    rng = np.random.default_rng(lanes)
    raw = rng.integers(0, 1 << 16, (2, 1, height, width))
    target = rng.integers(0, 1 << 12, (2, 3, height, width))
    expected = golden.vjp(raw[:, 0], target=target, per_frame=True)
    model.reset(wait=False)
    assert model.read(0) == ID
    model.reset(wait=False)
    run = model.run_beats({
        name: pack_frames(frames, lanes=lanes, bits=model.containers[name], rng=rng)
        for name, frames in (("raw", raw), ("target", target))
    })  # fmt: skip
    for name, frames in (("picture", expected.y), ("gradient", expected.xbar[:, None])):
        bits = model.containers[name]
        found = unpack_frames(run.outputs[name], width=width, height=height, lanes=lanes, bits=bits)
        np.testing.assert_array_equal(found, frames, err_msg=name)
    assert run.errors == 1 << ERROR_RESULTS_OVERRUN  # two groups, and nobody took the first one's results


@pytest.mark.parametrize("kind", ["squared", "external"])
def test_commit_between_a_frame_and_its_target(cases, kind):
    """The raw frame is there, a commit comes, and only then the target or cotangent: the frame leaves, and is right;
    then the commit is done."""
    model, golden = _model(cases, *QUICK[0])
    lanes, control, status = QUICK[0][2], 0x008, 0x00C
    case = cases.isp_case(golden, height=5, width=9, count=1, kind=kind, seed=3)
    arrays = {"raw": case.raw, **case.inputs}
    beats = {n: pack_frames(a, lanes=lanes, bits=model.containers[n]) for n, a in arrays.items()}
    late = "cotangent" if kind == "external" else "target"
    model.load_parameters(case.words)
    before = model.run_beats({n: b for n, b in beats.items() if n != late}, quiet=500)
    assert before.taken["raw"] > 0 and not len(before.outputs["gradient"])
    model.write(control, 1)
    for _ in range(300):  # the frame words are checked, then the core holds further frames back
        assert model.read(status) & 1, "the commit did not wait for the frame"
    rest = {n: b.select(np.r_[before.taken.get(n, 0) : len(b)]) for n, b in beats.items()}
    after = model.run_beats({n: b for n, b in rest.items() if len(b)}, quiet=1000)
    assert not model.read(status) & 1
    gradient = np.concatenate([run.outputs["gradient"].data for run in (before, after)])
    whole = pack_frames(case.expected.gradient, lanes=lanes, bits=model.containers["gradient"])
    np.testing.assert_array_equal(gradient, whole.data)
    good = model.run(case.raw, **case.inputs)
    np.testing.assert_array_equal(good.gradient, case.expected.gradient)
    assert model.errors == 0
