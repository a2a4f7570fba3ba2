"""The compiled frame loop on the toy core: equality, cycles, results, and every fault it has to notice."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from pullback.sim.beats import Beats, pack_frames
from pullback.sim.model import CoreError, GeometryError, ProtocolError, StreamError, StuckError
from pullback.sim.stalls import BURSTS, PATTERNS, Stall

RAW_LONG, RAW_SHORT, RAW_STEP = 1, 2, 4


def data(*, count: int = 3, height: int = 5, width: int = 7, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "raw": rng.integers(0, 1 << 16, (count, 1, height, width)).astype(np.uint16),
        "target": rng.integers(0, 1 << 16, (count, 3, height, width)).astype(np.uint16),
        "cotangent": rng.integers(-(1 << 23), 1 << 23, (count, 3, height, width)).astype(np.int32),
    }


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_equals_under_stalls(toy: Any, toy_model: Any, lanes: int, pattern: str) -> None:
    model = toy_model(lanes=lanes)
    assert model.lanes == lanes
    for seed, width in enumerate((7, 8, 1)):
        d = data(width=width, seed=seed)
        model.load_parameters(toy.frame_words(width=width, height=5))
        run = model.run(d["raw"], target=d["target"], stalls=PATTERNS[pattern], seed=seed)
        expected = toy.gradient(d["raw"], target=d["target"])
        np.testing.assert_array_equal(run.picture, toy.picture(d["raw"]))
        np.testing.assert_array_equal(run.gradient, expected)
        np.testing.assert_array_equal(run.results, toy.expected_results(expected, 1))


def test_external_cotangent(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(lanes=2), data()
    model.load_parameters(toy.frame_words(width=7, height=5, kind=3))
    run = model.run(d["raw"], cotangent=d["cotangent"], stalls=BURSTS)
    np.testing.assert_array_equal(run.gradient, toy.gradient(d["raw"], cotangent=d["cotangent"]))


def test_streams_that_a_core_lacks(toy: Any, toy_model: Any) -> None:
    d = data()
    forward, blind = toy_model(vjp=False), toy_model(with_picture=False)
    assert (forward.inputs, forward.outputs) == (("raw",), ("picture",))
    assert blind.outputs == ("gradient",)
    for model in (forward, blind):
        model.load_parameters(toy.frame_words(width=7, height=5))
    run = forward.run(d["raw"])
    np.testing.assert_array_equal(run.picture, toy.picture(d["raw"]))
    assert run.gradient is None
    run = blind.run(d["raw"], target=d["target"])
    np.testing.assert_array_equal(run.gradient, toy.gradient(d["raw"], target=d["target"]))
    assert run.picture is None
    with pytest.raises(ValueError, match="no input 'target'"):
        forward.run(d["raw"], target=d["target"])


def test_cycles_are_exact(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(lanes=2), data(count=4)
    model.load_parameters(toy.frame_words(width=7, height=5, frames=4))
    cycles = model.run(d["raw"], target=d["target"]).cycles
    beats = 5 * 4
    assert cycles.per_frame == beats
    assert cycles.total == 4 * beats + 1  # one register
    np.testing.assert_array_equal(cycles.first_in, np.arange(4) * beats + cycles.first_in[0])
    np.testing.assert_array_equal(cycles.last_in - cycles.first_in, beats - 1)
    np.testing.assert_array_equal(cycles.last_out, cycles.last_in + 1)
    assert cycles.results[0] > cycles.last_out[-1]


def test_groups_go_on_over_runs(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(), data(count=9)
    model.load_parameters(toy.frame_words(width=7, height=5, frames=3))
    found = []
    for first, last in ((0, 2), (2, 7), (7, 8), (8, 9)):
        found.append(model.run(d["raw"][first:last], target=d["target"][first:last]).results)
    assert [len(results) for results in found] == [0, 2, 0, 1]
    expected = toy.expected_results(toy.gradient(d["raw"], target=d["target"]), 3)
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_small_frames_overrun_nothing(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(), data(count=30, height=1, width=1)
    model.load_parameters(toy.frame_words(width=1, height=1))
    run = model.run(d["raw"], target=d["target"])  # raises if the core flags an overrun
    expected = toy.expected_results(toy.gradient(d["raw"], target=d["target"]), 1)
    np.testing.assert_array_equal(run.results, expected)


def test_parameters_are_written_once(toy: Any, toy_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, d = toy_model(), data()
    model.load_parameters(toy.frame_words(width=7, height=5))
    written: list[int] = []
    write = model._write
    monkeypatch.setattr(model, "_write", lambda at, values: (written.extend(at), write(at, values)))
    model.load_parameters(toy.frame_words(width=7, height=5, offset=(1, 2, 9)))
    assert written == [0x1000 + 4 * 18, 0x008]
    run = model.run(d["raw"], target=d["target"])
    np.testing.assert_array_equal(run.picture, toy.picture(d["raw"], (1, 2, 9)))


def test_refused_geometry(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(), data()
    model.load_parameters(toy.frame_words(width=7, height=5))
    with pytest.raises(GeometryError, match=r"width 5000, height 5.*width is 1 to 4096"):
        model.load_parameters(toy.frame_words(width=5000, height=5))
    run = model.run(d["raw"], target=d["target"])  # the old values are still active
    np.testing.assert_array_equal(run.picture, toy.picture(d["raw"]))
    with pytest.raises(ValueError, match=r"raw has shape \(3, 1, 4, 7\).*\(3, 1, 5, 7\)"):
        model.run(d["raw"][:, :, :4])


def test_geometry_comes_first(toy_model: Any) -> None:
    with pytest.raises(CoreError, match="load_parameters"):
        toy_model().run(data()["raw"])


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (
            "stuck",
            StuckError,
            r"raw: 1[45] of 105 beats taken, valid 1, ready 0 <- stuck.*gradient: .* <- stuck",
        ),
        ("no_results", StuckError, r"results: 0 of 3 groups ready <- stuck"),
        ("drops_valid", ProtocolError, "picture dropped valid or changed"),
        ("changes_payload", ProtocolError, "picture dropped valid or changed"),
        ("extra_beat", ProtocolError, "picture gave more than 105 beats"),
        ("no_last", StreamError, r"picture: tlast is 0 at beat 6 of line 0 of frame 0 \(15 wrong"),
    ],
)
def test_faults_are_noticed(toy: Any, toy_model: Any, fault: str, error: type[Exception], words: str) -> None:
    model, d = toy_model(), data()
    model.load_parameters(toy.frame_words(width=7, height=5, fault=fault))
    stalls = (
        {"picture": Stall(on=2, off=2, random=False)}
        if error is ProtocolError and fault != "extra_beat"
        else {}
    )
    with pytest.raises(error, match=words):
        model.run(d["raw"], target=d["target"], stalls=stalls, patience=2000)
    if error is not StreamError:
        with pytest.raises(CoreError, match="reset"):
            model.run(d["raw"], target=d["target"])
    model.reset()
    model.load_parameters(toy.frame_words(width=7, height=5))
    run = model.run(d["raw"], target=d["target"], stalls=BURSTS)
    np.testing.assert_array_equal(run.picture, toy.picture(d["raw"]))


def test_dirty_padding_is_noticed(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(lanes=2), data()
    model.load_parameters(toy.frame_words(width=7, height=5, fault="dirty_padding"))
    with pytest.raises(StreamError, match="padding beyond width 7 is not 0"):
        model.run(d["raw"], target=d["target"])


def test_missing_stream_is_named(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(), data()
    model.load_parameters(toy.frame_words(width=7, height=5))
    with pytest.raises(StuckError, match=r"raw: 0 of 105 beats taken.*target: nothing offered"):
        model.run(d["raw"], patience=1000)


def test_malformed_frames(toy: Any, toy_model: Any) -> None:
    model, d = toy_model(vjp=False), data(count=2)
    beats = pack_frames(d["raw"], lanes=1, bits=16)

    def errors(spoilt: Beats) -> int:
        model.reset()
        model.load_parameters(toy.frame_words(width=7, height=5, frames=2))
        run = model.run_beats({"raw": spoilt}, stalls=BURSTS, quiet=500)
        assert run.taken == {"raw": len(spoilt)}
        assert len(run.outputs["picture"]) == len(spoilt)
        return run.errors

    def marked(name: str, position: int, value: int) -> Beats:
        marks = {"user": beats.user.copy(), "last": beats.last.copy()}
        marks[name][position] = value
        return Beats(beats.data, marks["user"], marks["last"])

    assert errors(beats) == 0
    assert errors(marked("last", 6, 0)) == RAW_LONG
    assert errors(marked("last", 3, 1)) == RAW_SHORT
    assert errors(marked("user", 8, 1)) == RAW_STEP
    assert errors(marked("user", 35, 0)) == RAW_STEP
    assert errors(beats.select(np.r_[:4, 3:70])) & RAW_LONG  # one pixel too many


def test_instances_are_independent_in_threads(toy: Any, toy_model: Any) -> None:
    offsets = [(1, 2, 3), (50, 60, 70), (7, 7, 7), (0, 65535, 1)]
    d = data(count=2, height=40, width=60)
    wrong: list[int] = []

    def work(index: int) -> None:
        model = toy_model(lanes=2)
        model.load_parameters(toy.frame_words(width=60, height=40, offset=offsets[index]))
        for seed in range(3):
            run = model.run(d["raw"], target=d["target"], stalls=BURSTS, seed=seed)
            if not np.array_equal(run.picture, toy.picture(d["raw"], offsets[index])):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
