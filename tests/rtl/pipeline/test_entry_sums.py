# amaranth: UnusedElaboratable=no
"""Which entries of a parameter share an adder: those that the CFA colour chooses among, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.rtl.isp import BlackLevel, FilterBank, WhiteBalance
from pullback.rtl.kernel import Parameter, evaluate, select
from pullback.rtl.numeric import SQ, UQ
from pullback.rtl.pipeline import Build, Stage
from pullback.rtl.pipeline.adjoint import AdjointUnit
from pullback.rtl.pipeline.entry_sums import EntrySums
from pullback.rtl.pipeline.parameters import StageParameters
from pullback.rtl.stream.pixel import Pixel

X = Pixel((("x", SQ(2, 6)),))


class Mixed(Stage):
    """Two entries per colour, laid out by ``at(colour, k)``; the second is read at every site if ``always``."""

    i, o = X, X
    parameters = {"w": Parameter(8, SQ(2, 6), (0,) * 8, "")}  # noqa: RUF012
    always = False

    def at(self, colour: int, k: int) -> int:
        return 2 * colour + k

    def kernel(self, x, theta, site):
        first, second = (select(site.colour, [theta["w", self.at(c, k)] for c in range(4)]) for k in range(2))
        y = first * x.x + second
        return {"x": y + theta["w", 5] if self.always else y}


class Interleaved(Mixed):
    def at(self, colour: int, k: int) -> int:
        return 4 * k + colour


class Always(Mixed):
    always = True


def sums_of(stage: Stage, name: str) -> tuple[list, EntrySums]:
    """What a pixel gives to each entry, and the sums made of it."""
    pullback = stage.trace().pullback(dict.fromkeys(stage.o.names, SQ(4, 6)))
    entries = [pullback.entries[name, k] for k in range(stage.parameters[name].entries)]
    return entries, EntrySums(name, entries, Build())


@pytest.mark.parametrize(
    ("stage", "name", "adders"),
    [
        (BlackLevel(), "black", 1),
        (WhiteBalance(), "gain", 1),
        (FilterBank(), "coefficient", 18),
        (Mixed(), "w", 2),
        (Interleaved(), "w", 8),
        (Always(), "w", 8),
    ],
    ids=lambda v: v.name if isinstance(v, Stage) else None,
)
def test_values_are_the_entries_of_the_sites_colour(stage, name, adders):
    entries, sums = sums_of(stage, name)
    assert sums.words == len(entries)
    assert len([label for label in sums.nodes if label != "colour"]) == adders
    if "colour" not in sums.nodes:
        return
    values = list(sums.nodes.values())[:adders]
    graph = entries[0].graph
    rng = np.random.default_rng(adders)
    drawn = {
        node.primitive.label: rng.integers(node.range.lo, node.range.hi, 200, endpoint=True)
        for node in graph.live([*entries, sums.nodes["colour"]])
        if hasattr(node.primitive, "label")
    }
    got, wanted = evaluate(values, drawn), evaluate(entries, drawn)
    for k, entry in enumerate(wanted):
        chosen = drawn["site_colour"] == k // adders
        assert np.array_equal(
            np.where(chosen, got[k % adders] << entries[k].f, 0), entry << values[k % adders].f
        )


def test_tables_need_not_come_last():
    """Results follow the order of declaration, which is the order of the register map."""

    class TableFirst(Stage):
        i, o = Pixel((("x", UQ(0, 2)),)), X
        parameters = {  # noqa: RUF012
            "curve": Parameter(5, SQ(2, 6), (0,) * 5, "", table=5),
            "offset": Parameter(1, SQ(2, 6), (0,), ""),
        }

        def kernel(self, x, theta, site):
            low, high = theta.knots("curve", 0, x.x)
            return {"x": low + high + theta["offset", 0]}

        def bypass(self, x):
            return {"x": x.x}

    unit = AdjointUnit(TableFirst().trace(), SQ(4, 6), Build(), StageParameters(TableFirst(), 16))
    assert [words for _, words in unit.results] == [5, 1]
    assert [id(stream) for stream, _ in unit.results] == [id(unit.curve_bar), id(unit.offset_bar)]
