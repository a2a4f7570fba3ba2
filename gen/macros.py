"""Sites for the hard blocks of an ECP5 netlist, its *macros* (block RAMs and multipliers), before all else is placed.

nextpnr's static placer spreads macros as if they could lie anywhere, and puts them on their few rows of sites in
one step in the middle of its run. On a VJP core with the filter bank (116 block RAMs, 99 multipliers) that step adds
52 to 102 % to the length of the wires, by luck, and the clock follows. So they get their sites first, from the
netlist alone, in the attribute ``BEL`` that nextpnr obeys:

- *Attraction.* Nets are springs between cells: a net of n cells pulls each pair of them with 1 / (n - 1). With every
  other cell at rest where the springs pull it, what is left of the graph's Laplacian L between the macros M is the
  Schur complement L_MM - L_MO L_OO^-1 L_OM; off its diagonal it is minus the attraction of two macros, through
  whatever logic lies between them. The middle is found by conjugate gradients.
- *Annealing.* Macros move to free sites and swap with others of their type, so that the sum of attraction times
  Manhattan distance falls (Metropolis, a seeded random walk).

The springs are those of quadratic placement: Kleinhans et al., "GORDIAN: VLSI placement by quadratic programming and
slicing optimization", IEEE TCAD 10(3), 1991, section II; annealing on sites as in Sechen and Sangiovanni-Vincentelli,
"The TimberWolf placement and routing package", IEEE JSSC 20(2), 1985.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .flow import Device, SynthesisError, run_tool

__all__ = ["Attraction", "Site", "anneal", "attraction", "fix_macros", "sites"]

_KINDS = {"DP16KD": "DP16KD", "PDPW16KD": "DP16KD", "MULT18X18D": "MULT18X18D"}
"""Type of a cell in the netlist -> type of the site it needs."""

_WIDE = 40
"""Nets of more cells than these (clock, enables) say nothing of where a cell belongs."""

_LOOSE = 1e-4
"""Spring from every cell to a point far away, so that parts of a netlist without a macro have a place too."""

_UNIT = 1e-4
"""Attractions are counted in these, as integers: rounding in their last place moves nothing."""

_MOVES = 400_000

_SITES = threading.Lock()
"""Seeds are placed by several threads, and the first of them finds the sites."""


class Site(NamedTuple):
    """Where a macro can lie: nextpnr's name of it, and its column and row on the chip."""

    bel: str
    x: int
    y: int


@dataclass(frozen=True)
class Attraction:
    """Macros of a netlist and how they attract each other.

    Attributes
    ----------
    cells : tuple of str
        Names of the macros.
    kinds : tuple of str
        Type of the site that each needs, ``"DP16KD"`` or ``"MULT18X18D"``.
    weight : int64 [macros, macros]
        Attraction of each pair in units of 1e-4 springs; symmetric, its diagonal zero.
    bels : tuple of str
        nextpnr's name of the site that the netlist itself asks for, empty if it asks for none.
    """

    cells: tuple[str, ...]
    kinds: tuple[str, ...]
    weight: npt.NDArray[np.int64]
    bels: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        content = {
            "cells": self.cells,
            "kinds": self.kinds,
            "weight": self.weight.tolist(),
            "bels": self.bels,
        }
        path.write_text(json.dumps(content))

    @classmethod
    def load(cls, path: Path) -> Attraction:
        """Reads what `save` wrote."""
        content = json.loads(path.read_text())
        weight = np.array(content["weight"], dtype=np.int64).reshape(2 * (len(content["cells"]),))
        return cls(tuple(content["cells"]), tuple(content["kinds"]), weight, tuple(content["bels"]))


def sites(device: Device, directory: Path) -> dict[str, tuple[Site, ...]]:
    """Every macro site of a part, by type: nextpnr places a netlist of nothing but macros, one for each site.

    The directory receives that netlist, what nextpnr made of it and its log; what is there is taken as it is.

    Raises
    ------
    SynthesisError
        If nextpnr fails or is not there.
    """
    stem = f"sites-{device.size}-{device.package}"
    placed = directory / f"{stem}.json"
    with _SITES:
        if not placed.exists():
            _place_sites(device, directory, stem)
    found: dict[str, list[Site]] = {kind: [] for kind in device.macros}
    (module,) = json.loads(placed.read_text())["modules"].values()
    for cell in module["cells"].values():
        if cell["type"] in found:
            bel = cell["attributes"]["NEXTPNR_BEL"]
            x, y = re.fullmatch(r"X(\d+)/Y(\d+)/\w+", bel).groups()  # type: ignore[union-attr]
            found[cell["type"]].append(Site(bel, int(x), int(y)))
    return {kind: tuple(sorted(each, key=lambda s: (s.y, s.x, s.bel))) for kind, each in found.items()}


def _place_sites(device: Device, directory: Path, stem: str) -> None:
    def cell(kind: str) -> dict[str, Any]:
        return {"type": kind, "parameters": {}, "attributes": {}, "port_directions": {}, "connections": {}}

    every = {f"{kind}_{k}": cell(kind) for kind, count in device.macros.items() for k in range(count)}
    top = {"attributes": {"top": "1"}, "ports": {}, "cells": every, "netnames": {}}
    (directory / f"{stem}-in.json").write_text(json.dumps({"creator": "pullback", "modules": {"sites": top}}))
    run_tool(
        "nextpnr",
        f"--{device.size}",
        *("--package", device.package),
        *("--json", f"{stem}-in.json"),
        *("--placer", "heap"),
        "--no-route",
        *("--write", f"{stem}.part"),
        directory=directory,
        log=f"{stem}.log",
    )
    (directory / f"{stem}.part").rename(directory / f"{stem}.json")


def _top_cells(design: dict[str, Any]) -> dict[str, Any]:
    """Cells of the module that is the top; cells of the family itself are modules too, as black boxes."""
    (cells,) = (m["cells"] for m in design["modules"].values() if int(m["attributes"].get("top", "0"), 2))
    return cells


def attraction(netlist: Path) -> Attraction:
    """How the macros of a flat netlist attract each other: minus the Schur complement of the springs' Laplacian.

    Parameters
    ----------
    netlist : Path
        As yosys' ``write_json`` writes it.
    """
    from scipy import sparse

    cells = _top_cells(json.loads(netlist.read_text()))
    # Macros last, so that blocks of the Laplacian are slices.
    order = sorted(cells, key=lambda name: cells[name]["type"] in _KINDS)
    macros = [name for name in order if cells[name]["type"] in _KINDS]
    number = {name: k for k, name in enumerate(order)}
    nets: dict[int, set[int]] = {}
    for name, cell in cells.items():
        for bits in cell["connections"].values():
            for bit in bits:
                if isinstance(bit, int):  # else a constant
                    nets.setdefault(bit, set()).add(number[name])
    ends: tuple[list[int], list[int], list[float]] = ([], [], [])
    for net in nets.values():
        if 2 <= len(net) <= _WIDE:
            pull = 1 / (len(net) - 1)
            members = sorted(net)
            for k, a in enumerate(members):
                for b in members[k + 1 :]:
                    ends[0].append(a)
                    ends[1].append(b)
                    ends[2].append(pull)
    size = len(order)
    springs = sparse.coo_array((ends[2], (ends[0], ends[1])), shape=(size, size)).tocsr()
    springs = springs + springs.T
    laplacian = (sparse.diags_array(springs.sum(axis=1) + _LOOSE) - springs).tocsr()
    others = size - len(macros)
    inner, outer = laplacian[:others, :others], laplacian[:others, others:]
    held = laplacian[others:, others:].toarray()
    if others:
        held = held - outer.T @ _solve(inner, outer.toarray())
    weight = np.rint(-(held + held.T) / (2 * _UNIT)).astype(np.int64)
    np.fill_diagonal(weight, 0)
    return Attraction(
        tuple(macros),
        tuple(_KINDS[cells[m]["type"]] for m in macros),
        np.maximum(weight, 0),
        tuple(cells[m]["attributes"].get("BEL", "") for m in macros),
    )


def _solve(matrix: Any, right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """matrix^-1 right by conjugate gradients with the diagonal as preconditioner, every column at once."""
    diagonal = matrix.diagonal()[:, None]
    x = np.zeros_like(right)
    residual = right.copy()
    z = residual / diagonal
    direction = z.copy()
    rho = (residual * z).sum(axis=0)
    enough = 1e-12 * np.maximum(rho, np.finfo(float).tiny)
    while (rho > enough).any():
        image = matrix @ direction
        step = rho / np.maximum((direction * image).sum(axis=0), np.finfo(float).tiny)
        x += step * direction
        residual -= step * image
        z = residual / diagonal
        before, rho = rho, (residual * z).sum(axis=0)
        direction = z + (rho / np.maximum(before, np.finfo(float).tiny)) * direction
    return x


def anneal(
    pull: Attraction, available: dict[str, tuple[Site, ...]], seed: int, *, moves: int = _MOVES
) -> list[Site]:
    """A site for every macro: the sum of attraction times Manhattan distance, made small by simulated annealing.

    A macro for which the netlist itself asks for a site has it and keeps it.

    Parameters
    ----------
    available : dict
        Sites by type, as `sites` finds them.
    seed : int
        Of the random walk; the same gives the same sites.
    moves : int
        Moves and swaps tried.

    Raises
    ------
    SynthesisError
        If a type has more macros than sites, or the netlist asks for a site that the part lacks or for one twice.
    """
    walk = random.Random(seed)
    taken: dict[Site, int] = {}  # site -> macro
    at: list[Site] = [Site("", 0, 0)] * len(pull.cells)
    for macro, bel in enumerate(pull.bels):
        if bel:
            at[macro] = _asked(pull, macro, available, taken)
            taken[at[macro]] = macro
    movable = [macro for macro, bel in enumerate(pull.bels) if not bel]
    for kind in sorted(set(pull.kinds)):
        mine = [k for k in movable if pull.kinds[k] == kind]
        if (count := pull.kinds.count(kind)) > len(available[kind]):
            raise SynthesisError(
                f"{count} {kind} are more than the part's {len(available[kind])}; take a larger part or fewer lanes"
            )
        middle_x = sum(s.x for s in available[kind]) / len(available[kind])
        middle_y = sum(s.y for s in available[kind]) / len(available[kind])
        free = [site for site in available[kind] if site not in taken]
        near = sorted(free, key=lambda s: abs(s.x - middle_x) + abs(s.y - middle_y))[: len(mine)]
        walk.shuffle(near)
        for macro, site in zip(mine, near, strict=True):
            at[macro] = site
            taken[site] = macro
    if len(at) < 2 or not movable:
        return at
    weight = pull.weight
    x = np.array([s.x for s in at], dtype=np.int64)
    y = np.array([s.y for s in at], dtype=np.int64)

    def length(macro: int, site: Site) -> int:
        return int(weight[macro] @ (np.abs(x - site.x) + np.abs(y - site.y)))

    total = sum(length(k, site) for k, site in enumerate(at)) / 2
    warm = 0.15 * total / len(at)
    for move in range(moves):
        temperature = warm * (1 - move / moves) ** 3
        macro = movable[walk.randrange(len(movable))]
        here, there = at[macro], walk.choice(available[pull.kinds[macro]])
        other = taken.get(there)
        if other is not None and (other == macro or pull.bels[other]):
            continue
        change = length(macro, there) - length(macro, here)
        if other is not None:
            apart = abs(here.x - there.x) + abs(here.y - there.y)
            # Both ends of the pair's own spring swap places: its length stays.
            change += length(other, here) - length(other, there) + 2 * int(weight[macro, other]) * apart
        if change > 0 and (temperature <= 0 or walk.random() >= math.exp(-change / temperature)):
            continue
        del taken[here]
        at[macro], taken[there] = there, macro
        x[macro], y[macro] = there.x, there.y
        if other is not None:
            at[other], taken[here] = here, other
            x[other], y[other] = here.x, here.y
    return at


def _asked(
    pull: Attraction, macro: int, available: dict[str, tuple[Site, ...]], taken: dict[Site, int]
) -> Site:
    """The site that the netlist asks for."""
    bel, cell = pull.bels[macro], pull.cells[macro]
    site = next((s for s in available[pull.kinds[macro]] if s.bel == bel), None)
    if site is None:
        raise SynthesisError(f"{cell} asks for the site {bel}, which the part lacks")
    if site in taken:
        raise SynthesisError(f"{cell} and {pull.cells[taken[site]]} ask for the same site {bel}")
    return site


def fix_macros(
    netlist: Path,
    into: Path,
    pull: Attraction,
    chosen: Sequence[Site],
    *,
    others: dict[str, str] | None = None,
) -> None:
    """Writes a netlist again, as yosys' JSON, with every macro's site in its attribute ``BEL``; ``others``: those of
    cells that are no macros.
    """
    design = json.loads(netlist.read_text())
    cells = _top_cells(design)
    for name, bel in (others or {}).items():
        cells[name]["attributes"]["BEL"] = bel
    for name, site in zip(pull.cells, chosen, strict=True):
        cells[name]["attributes"]["BEL"] = site.bel
    into.write_text(json.dumps(design))
