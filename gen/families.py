"""Area and clock of a component on an iCE40, a Gowin GW2A or a Lattice Nexus, by the open flow that pip installs.

What is measured is the component alone, in the harness of `synthesis`: its ports come from registers and go into some.
yosys maps it, nextpnr of the family places and routes it. Hard blocks get their sites from nextpnr, and boundaries
between submodules stay through synthesis only where the caller says so: figures to compare builds with, not the last
word on a part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from amaranth.lib.wiring import Component

from .flow import SynthesisError, run_tool, tool_versions
from .synthesis import critical_path, harness
from .units import run_yosys, unambiguous
from .verilog import ports, verilog

__all__ = ["FAMILIES", "Family", "Placed", "place", "stamp"]

_CORE, _HARNESS, _NETLIST = "core", "harness", "netlist.json"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A part of a family, and what its tools are told of it.

    Attributes
    ----------
    part : str
    synthesis : str
        yosys' command.
    tool : str
        nextpnr of the family, as `flow.run_tool` has it.
    device : tuple of str
        Its arguments for the part.
    pads : str
        What puts pads around the harness where yosys would put them around every module that keeps its boundary.
    pins : str
        Constraints, in the file ``pins``, of the harness' three pins, where nextpnr does not choose any itself.
    """

    part: str
    synthesis: str
    tool: str
    device: tuple[str, ...]
    pads: str = ""
    pins: str = ""


FAMILIES = {
    "ice40": Family(
        part="iCE40UP5K",
        synthesis="synth_ice40 -device u",
        tool="nextpnr-ice40",
        device=("--up5k", "--package", "sg48"),
    ),
    "gowin": Family(
        part="GW2A-18C (C8/I7)",
        synthesis="synth_gowin -family gw2a -noiopads",
        tool="nextpnr-gowin",
        device=(
            *("--device", "GW2A-LV18PG256C8/I7"),
            *("--vopt", "family=GW2A-18C"),
            *("--vopt", "cst=pins"),
        ),
        pads="iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O",
        pins='IO_LOC "pin" H11;\nIO_LOC "si" T13;\nIO_LOC "so" M11;\n',
    ),
    "nexus": Family(
        part="LIFCL-40-9",
        synthesis="synth_nexus -noiopad",
        tool="nextpnr-nexus",
        device=("--device", "LIFCL-40-9BG400C", "--pdc", "pins"),
        pads="iopadmap -bits -inpad IB O:I -outpad OB I:O",
        pins="".join(
            f"ldc_set_location -site {{{site}}} [get_ports {pin}]\n"
            for pin, site in {"pin": "E11", "si": "F17", "so": "G13"}.items()
        ),
    ),
}
"""What is measured of each family."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A component on a part.

    Attributes
    ----------
    cells : dict of str to int
        Cells of the component by their type, without the harness.
    fmax : float
        MHz.
    path : str
        From where to where the longest path goes.
    """

    cells: dict[str, int]
    fmax: float
    path: str


def _told(component: Component, family: str, apart: str) -> dict[str, str]:
    core = unambiguous(verilog(component, _CORE))
    keep = [f"setattr -mod -set keep_hierarchy 1 {_CORE}"]
    if apart:
        keep.append(f"setattr -mod -set keep_hierarchy 1 {apart}")
    script = [
        "read_verilog core.v harness.v",
        f"hierarchy -top {_HARNESS}",
        *keep,
        f"{FAMILIES[family].synthesis} -top {_HARNESS}",
        "tee -o cells.json stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
        *filter(None, [FAMILIES[family].pads]),
        f"write_json {_NETLIST}",
    ]
    return {
        "core.v": core,
        "harness.v": harness(ports(component)),
        "script.ys": "\n".join(script) + "\n",
        "pins": FAMILIES[family].pins,
    }


def _open_carries(netlist: Path) -> None:
    """Leaves open where a carry chain of a Nexus begins with the constant 0, which is what it then begins with: nextpnr
    0.11.1 takes nothing there but another carry, and yosys 0.70 ties it to a cell that is low.
    """
    design = json.loads(netlist.read_text())
    cells = design["modules"][_HARNESS]["cells"].values()
    low = {bit for cell in cells if cell["type"] == "VLO" for bit in cell["connections"]["Z"]}
    for cell in cells:
        if cell["type"] == "CCU2" and cell["connections"]["CIN"][0] in low:
            cell["connections"]["CIN"] = []
    netlist.write_text(json.dumps(design))


def stamp(component: Component, family: str, *, apart: str = "") -> str:
    """Hash of all that the tools are told, and of their versions.

    Raises
    ------
    SynthesisError
        If a tool is not installed.
    """
    tools = tool_versions("yosys", FAMILIES[family].tool)
    return hashlib.sha256(f"{_told(component, family, apart)}{FAMILIES[family]}{tools}".encode()).hexdigest()


def place(
    component: Component, family: str, seed: int, *, frequency: float, directory: Path, apart: str = ""
) -> Placed:
    """Synthesises, places and routes a component with one seed.

    Parameters
    ----------
    frequency : float
        MHz that nextpnr aims at.
    directory : Path
        Receives all files; made if it is not there. A netlist of the same stamp is taken as it is.
    apart : str
        Names of modules, as yosys' selections have them, whose boundaries stay through synthesis.

    Raises
    ------
    ValueError
        If the family is unknown.
    SynthesisError
        If a tool fails, for one as the component does not fit, or is not there.
    """
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is unknown; give {' or '.join(FAMILIES)}")
    of = FAMILIES[family]
    directory.mkdir(parents=True, exist_ok=True)
    stamped, mark = directory / "netlist.stamp", stamp(component, family, apart=apart)
    if not stamped.exists() or stamped.read_text() != mark:
        stamped.unlink(missing_ok=True)
        for name, text in _told(component, family, apart).items():
            (directory / name).write_text(text)
        run_yosys((directory / "script.ys").read_text(), directory, stem="script", log="yosys.log")
        if family == "nexus":
            _open_carries(directory / _NETLIST)
        stamped.write_text(mark)
    modules = json.loads((directory / "cells.json").read_text())["modules"]
    modules.pop(f"\\{_HARNESS}")
    instances = sum((Counter(module["num_cells_by_type"]) for module in modules.values()), Counter())
    names = {name.lstrip("\\") for name in modules}
    report = f"route-{seed}.json"
    run_tool(
        of.tool,
        *of.device,
        *("--json", _NETLIST),
        *("--freq", str(frequency)),
        *("--seed", str(seed)),
        "--timing-allow-fail",
        *("--report", report),
        directory=directory,
        log=f"route-{seed}.log",
    )
    found = json.loads((directory / report).read_text())
    if len(found["fmax"]) != 1:
        raise SynthesisError(
            f"{directory / report} has {len(found['fmax'])} clocks with paths; a core has one, clk"
        )
    ((clock, reached),) = found["fmax"].items()
    return Placed(
        cells={
            kind: count for kind, count in sorted(instances.items()) if kind not in names | {"$scopeinfo"}
        },
        fmax=round(reached["achieved"], 2),
        path=critical_path(found, clock),
    )
