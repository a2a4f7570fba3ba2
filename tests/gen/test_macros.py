"""Sites for hard blocks: attraction against springs solved by hand, annealing against every arrangement there is."""

import itertools
import json

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pullback.gen.flow import Device, SynthesisError, run_tool
from pullback.gen.macros import Attraction, Site, anneal, attraction, fix_macros, sites
from pullback.gen.synthesis import netlist, route
from pullback.rtl.numeric.multiplier import Multiplier

RAM, MULTIPLIER = "DP16KD", "MULT18X18D"


def written(path, cells):
    """A netlist: cell name -> its type and the nets it is on."""
    described = {
        name: {"type": kind, "attributes": {}, "connections": {"PORT": list(nets)}}
        for name, (kind, nets) in cells.items()
    }
    other = {"attributes": {"blackbox": "1"}, "cells": {}}
    top = {"attributes": {"top": "1"}, "cells": described}
    path.write_text(json.dumps({"modules": {"LUT4": other, "top": top}}))
    return path


def test_springs_in_series(tmp_path):
    # ram -net 2- a -net 3- b -net 4- mult: three springs of 1 in a row pull with 1/3.
    cells = {
        "b": ("LUT4", [3, 4]),
        "mult": (MULTIPLIER, [4]),
        "a": ("LUT4", [2, 3, "0"]),
        "ram": (RAM, [2, 2]),
    }
    found = attraction(written(tmp_path / "n.json", cells))
    assert sorted(zip(found.cells, found.kinds, strict=True)) == [("mult", MULTIPLIER), ("ram", RAM)]
    # In units of 1e-4, less what the loose spring of 1e-4 at either of the two cells takes away.
    assert found.weight.tolist() in ([[0, 3332], [3332, 0]], [[0, 3333], [3333, 0]])


def test_springs_side_by_side_and_nets_of_more_than_two(tmp_path):
    cells = {
        "p": (RAM, [2, 3, 5]),
        "q": (MULTIPLIER, [2, 3]),
        "r": ("PDPW16KD", [5]),
        "s": (RAM, [5]),
        "apart": ("LUT4", [9]),
    }
    found = attraction(written(tmp_path / "n.json", cells))
    at = {name: k for k, name in enumerate(found.cells)}
    assert found.kinds[at["r"]] == RAM  # either mode of a block RAM lies on the same sites
    pairs = {
        frozenset(pair): found.weight[at[pair[0]], at[pair[1]]] for pair in itertools.combinations("pqrs", 2)
    }
    expected = {"pq": 20000, "pr": 5000, "ps": 5000, "rs": 5000, "qr": 0, "qs": 0}
    assert pairs == {frozenset(pair): value for pair, value in expected.items()}


def test_a_star_of_springs(tmp_path):
    # One cell tied to three macros by a net of all four: the net pulls every pair with 1/3, and through the cell
    # each pair gains (1/3)(1/3) / (3/3).
    cells = {"hub": ("LUT4", [2]), "p": (RAM, [2]), "q": (RAM, [2]), "r": (RAM, [2])}
    found = attraction(written(tmp_path / "n.json", cells))
    off = found.weight[~np.eye(3, dtype=bool)]
    assert set(off.tolist()) <= {4443, 4444}


def test_a_wide_net_pulls_nothing(tmp_path):
    cells = {f"r{k}": (RAM, [2]) for k in range(41)}
    assert not attraction(written(tmp_path / "n.json", cells)).weight.any()
    cells.popitem()
    assert attraction(written(tmp_path / "n.json", cells)).weight.any()


def test_attraction_is_kept(tmp_path):
    made = Attraction(("a", "b"), (RAM, MULTIPLIER), np.array([[0, 7], [7, 0]]), ("", "X1/Y2/Z"))
    made.save(tmp_path / "a.json")
    again = Attraction.load(tmp_path / "a.json")
    assert (again.cells, again.kinds, again.weight.tolist()) == (made.cells, made.kinds, [[0, 7], [7, 0]])
    none = Attraction((), (), np.zeros((0, 0), dtype=np.int64), ())
    none.save(tmp_path / "a.json")
    assert Attraction.load(tmp_path / "a.json").weight.shape == (0, 0)
    assert anneal(none, {}, 1) == []


AVAILABLE = {
    RAM: tuple(Site(f"R{x}", x, 7) for x in (0, 3, 4, 9)),
    MULTIPLIER: tuple(Site(f"M{x}", x, y) for x, y in ((1, 0), (8, 0), (2, 20))),
}


@pytest.mark.parametrize("case", range(6))
def test_annealing_finds_the_shortest_arrangement(case):
    kinds = (RAM, MULTIPLIER, RAM, MULTIPLIER, RAM)
    random = np.random.default_rng(case)
    half = np.triu(random.integers(0, 50, (5, 5)), 1)
    pull = Attraction(tuple("abcde"), kinds, half + half.T, ("",) * 5)

    def length(arranged):
        return sum(
            int(pull.weight[i, j]) * (abs(arranged[i].x - arranged[j].x) + abs(arranged[i].y - arranged[j].y))
            for i, j in itertools.combinations(range(5), 2)
        )

    every = [
        length((rams[0], multipliers[0], rams[1], multipliers[1], rams[2]))
        for rams in itertools.permutations(AVAILABLE[RAM], 3)
        for multipliers in itertools.permutations(AVAILABLE[MULTIPLIER], 2)
    ]
    # A random walk may end in a valley beside the deepest one; of eight, one finds it.
    walks = [anneal(pull, AVAILABLE, seed, moves=4000) for seed in range(8)]
    for chosen in walks:
        assert all(site in AVAILABLE[kind] for kind, site in zip(kinds, chosen, strict=True))
        assert len(set(chosen)) == 5
    assert min(length(chosen) for chosen in walks) == min(every)
    assert [anneal(pull, AVAILABLE, seed, moves=4000) for seed in range(8)] == walks


def test_too_many_macros_are_refused():
    pull = Attraction(tuple("abcd"), (MULTIPLIER,) * 4, np.zeros((4, 4), dtype=np.int64), ("",) * 4)
    with pytest.raises(SynthesisError, match=r"4 MULT18X18D are more than the part's 3"):
        anneal(pull, AVAILABLE, 1)


def test_a_site_that_the_netlist_asks_for_is_kept():
    kinds = (RAM, MULTIPLIER, RAM, MULTIPLIER, RAM)
    weight = np.ones((5, 5), dtype=np.int64) - np.eye(5, dtype=np.int64)
    bels = ("", "M2", "R9", "", "")
    for seed in range(4):
        chosen = anneal(Attraction(tuple("abcde"), kinds, weight, bels), AVAILABLE, seed, moves=500)
        assert (chosen[1].bel, chosen[2].bel) == ("M2", "R9")
        assert len(set(chosen)) == 5


def test_a_site_that_cannot_be_had_is_refused():
    weight = np.zeros((2, 2), dtype=np.int64)
    with pytest.raises(SynthesisError, match=r"b asks for the site R4, which the part lacks"):
        anneal(Attraction(("a", "b"), (MULTIPLIER,) * 2, weight, ("M2", "R4")), AVAILABLE, 1)
    with pytest.raises(SynthesisError, match=r"b and a ask for the same site M2"):
        anneal(Attraction(("a", "b"), (MULTIPLIER,) * 2, weight, ("M2", "M2")), AVAILABLE, 1)


@pytest.mark.synthesis
@pytest.mark.parametrize(("size", "package"), [("25k", "CABGA256"), ("45k", "CABGA256"), ("85k", "CABGA756")])
def test_sites_of_a_part(tmp_path, size, package):
    device = Device(size=size, package=package)
    found = sites(device, tmp_path)
    assert {kind: len(each) for kind, each in found.items()} == device.macros
    for each in found.values():
        assert len(set(each)) == len(each)
    assert not {s.y for s in found[RAM]} & {s.y for s in found[MULTIPLIER]}  # they have rows of their own
    assert sites(device, tmp_path) == found  # read again


class Two(wiring.Component):
    """Two multipliers, one behind the other."""

    def __init__(self):
        super().__init__({"a": In(signed(18)), "b": In(signed(18)), "p": Out(signed(36))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.one = one = Multiplier(signed(18), signed(18))
        m.submodules.two = two = Multiplier(signed(18), signed(18))
        m.d.comb += [
            one.a.eq(self.a),
            one.b.eq(self.b),
            two.a.eq(one.p[18:]),
            two.b.eq(self.b),
            self.p.eq(two.p),
        ]
        return m


@pytest.mark.synthesis
def test_macros_lie_where_they_were_put(tmp_path):
    made = netlist(Two(), directory=tmp_path)
    pull = Attraction.load(made.attraction)
    assert pull.kinds == (MULTIPLIER, MULTIPLIER)
    assert pull.weight[0, 1] > 0
    chosen = anneal(pull, sites(Device(), tmp_path), 3)
    (one, two) = chosen
    assert abs(one.x - two.x) + abs(one.y - two.y) <= 1  # neighbours
    fix_macros(made.json, tmp_path / "fixed.json", pull, chosen)
    part = ("--85k", "--package", "CABGA756", "--lpf-allow-unconstrained")
    files = ("--json", "fixed.json", "--write", "placed.json")
    run_tool("nextpnr", *part, *files, "--no-route", directory=tmp_path, log="placed.log")
    (top,) = json.loads((tmp_path / "placed.json").read_text())["modules"].values()
    assert [top["cells"][name]["attributes"]["NEXTPNR_BEL"] for name in pull.cells] == [
        site.bel for site in chosen
    ]
    assert route(made, 3).fmax > 100
