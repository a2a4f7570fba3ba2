"""Area and clock of a component on an ECP5, by the open flow that pip installs (yosys, nextpnr).

What is measured is the component alone, as it would sit inside a larger design. Its ports are far more than
a package has pins, so it is wrapped in a *harness* with three: every input bit comes from a register of one
long shift chain, every output bit goes into a register, and the registered outputs are folded into one pin
by a pipelined tree of XORs. Every path into, out of and inside the component therefore starts and ends in a
register, with nothing but a wire added: pins never limit the clock, and nothing can be optimised away. The
harness' own cells are subtracted from the area.

A clock is quoted as the median over several placement seeds, because one seed says little: a spread of
10 % between seeds is usual.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amaranth.lib.wiring import Component

from .drivers import check_drivers
from .flow import Device, SynthesisError, run_tool, tool_versions
from .macros import Attraction, anneal, attraction, fix_macros, sites
from .units import Units, run_yosys, unambiguous
from .verilog import Port, ports, verilog

__all__ = [
    "PLACEMENT",
    "Aim",
    "Area",
    "Netlist",
    "Route",
    "Synthesis",
    "critical_path",
    "harness",
    "netlist",
    "route",
    "stamp",
    "synthesise",
]

_PLACERS: dict[str, tuple[str, ...]] = {
    "static": (),
    "heap": ("--placer-heap-beta", "0.5", "--placer-heap-timingweight", "300"),
}
"""nextpnr's placers, and what each is told. Of a VJP core (Hamilton-Adams, seed 1), "heap" as nextpnr has it made 71.9
MHz, "static" 97.7. Of arrays it is the other way round, if told to weigh clocks more and to leave more room: 12 x 13
elements on an LFE5U-85F (seed 2) 197.39 MHz, "static" 156.81; where two products share a multiplier, what "static" had
placed was still not routed after half an hour. With a third of the weight the array's unit on an LFE5U-25F (seed 1)
made 133.56 instead of 140.65."""

PLACEMENT = "annealed macros"
"""How cells get their sites: macros as `macros` says, all else by the placer that the aim has."""

_CLOCK = "clock"
"""The cell of the harness' clock pin. Left to itself, refinement moves it to where the clock network is not reached,
now and then; so it has a site, in the netlist that of the default part, and on any other one its own."""

_CORE = "core"
_HARNESS = "harness"
_NETLIST = "netlist.json"
_ATTRACTION = "attraction.json"


@dataclass(frozen=True, kw_only=True)
class Area:
    """Cells of a component, without its harness.

    Attributes
    ----------
    lut4, carry, ff : int
        Four-input look-up tables, two-bit carry cells and flip-flops, as yosys maps them.
    dpr16x4 : int
        Distributed RAMs of 16 words of 4 bits.
    ebr : int
        Block RAMs of 18 kbit (DP16KD and PDPW16KD).
    mult : int
        MULT18X18D.
    comb : int or None
        What nextpnr's COMB comes to: look-up tables with those that carry cells and distributed RAMs
        take up. Known once the netlist was packed.
    """

    lut4: int
    carry: int
    ff: int
    dpr16x4: int
    ebr: int
    mult: int
    comb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """One placed and routed seed.

    Attributes
    ----------
    seed : int
    fmax : float
        MHz that the core's clock reaches.
    path : str
        The critical path: ``from -> to``, its levels, and how its time divides into logic and wire.
    comb : int
        COMB cells of harness and core together.
    """

    seed: int
    fmax: float
    path: str
    comb: int


@dataclass(frozen=True, kw_only=True)
class Netlist:
    """A synthesised component in its harness.

    Attributes
    ----------
    json : Path
        What yosys wrote.
    attraction : Path
        How its macros attract each other, as `macros.Attraction` keeps it.
    area : Area
        Of the component alone.
    harness_lut4 : int
        Look-up tables of the harness alone.
    """

    json: Path
    attraction: Path
    area: Area
    harness_lut4: int

    def packed(self, route: Route) -> Area:
        """The area with nextpnr's COMB, from any of its routes."""
        return replace(self.area, comb=route.comb - self.harness_lut4)


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Area and clock of a component.

    Attributes
    ----------
    name, device : str
    area : Area
    routes : tuple of Route
        One per seed, in the order of the seeds.
    """

    name: str
    device: str
    area: Area
    routes: tuple[Route, ...]

    @property
    def fmax(self) -> float:
        """Median over the seeds, MHz."""
        return statistics.median(r.fmax for r in self.routes)

    @property
    def path(self) -> str:
        """Critical path of the seed whose clock is the median (the lower one of the middle two)."""
        return sorted(self.routes, key=lambda r: r.fmax)[(len(self.routes) - 1) // 2].path

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, the median and its critical path among them."""
        return asdict(self) | {"fmax": self.fmax, "path": self.path}


def harness(described: dict[str, Port], *, clock_site: str = "") -> str:
    """The Verilog around a core: module ``harness`` with three pins. ``clock_site``: of an ECP5, that of its clock."""
    inputs = {n: p.width for n, p in described.items() if p.direction == "in" and n != "clk"}
    outputs = {n: p.width for n, p in described.items() if p.direction == "out"}
    n_in, n_out = sum(inputs.values()), sum(outputs.values())
    connections, at = [".clk(clk)"], 0
    for name, width in inputs.items():
        connections.append(f".{name}(chain[{at + width - 1}:{at}])")
        at += width
    at = 0
    for name, width in outputs.items():
        connections.append(f".{name}(result[{at + width - 1}:{at}])")
        at += width
    lines = [
        f"module {_HARNESS}(input pin, input si, output so);",
        "  wire clk;",
        f'  (* BEL = "{clock_site}" *) TRELLIS_IO #(.DIR("INPUT")) {_CLOCK} (.B(pin), .O(clk), .T(1\'b1), .I(1\'b0));'
        if clock_site
        else "  assign clk = pin;",
        f"  reg [{n_in - 1}:0] chain = 0;",
        "  always @(posedge clk) chain <= {chain, si};",
        f"  wire [{max(n_out, 1) - 1}:0] result;",
        f"  {_CORE} {_CORE}({', '.join(connections)});",
        f"  reg [{max(n_out, 1) - 1}:0] fold0 = 0;",
        f"  always @(posedge clk) fold0 <= {'result' if n_out else '1' + chr(39) + 'b0'};",
    ]
    width, level = max(n_out, 1), 0
    while width > 1:
        narrower = (width + 3) // 4
        lines.append(f"  reg [{narrower - 1}:0] fold{level + 1} = 0;")
        lines.append("  always @(posedge clk) begin")
        for k in range(narrower):
            high = min(4 * k + 3, width - 1)
            lines.append(f"    fold{level + 1}[{k}] <= ^fold{level}[{high}:{4 * k}];")
        lines.append("  end")
        width, level = narrower, level + 1
    lines += [f"  assign so = fold{level};", "endmodule", ""]
    return "\n".join(lines)


def _area(cells: dict[str, int]) -> Area:
    return Area(
        lut4=cells.get("LUT4", 0),
        carry=cells.get("CCU2C", 0),
        ff=cells.get("TRELLIS_FF", 0),
        dpr16x4=cells.get("TRELLIS_DPR16X4", 0),
        ebr=cells.get("DP16KD", 0) + cells.get("PDPW16KD", 0),
        mult=cells.get("MULT18X18D", 0),
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """All that yosys is told of a component, and hashes of it and of the tools' versions."""

    units: Units
    texts: dict[str, str]
    stamp: str

    @classmethod
    def of(cls, component: Component, apart: str, controls: int) -> _Told:
        core = unambiguous(verilog(component, _CORE))
        units = Units.of(core, apart, controls)
        around, script = harness(ports(component), clock_site=Device().clock_site), _script(units)
        texts = {"core.v": core, "harness.v": around, "script.ys": script}
        whole = hashlib.sha256(f"{texts}{tool_versions()}".encode()).hexdigest()
        return cls(units=units, texts=texts, stamp=whole)


def stamp(component: Component, *, apart: str = "", controls: int = 1) -> str:
    """Hash of all that yosys is told of a component, and of the tools' versions: figures of one stamp are the same on
    every machine. Parameters are those of `netlist`.

    Raises
    ------
    SynthesisError
        If yosys or nextpnr is not installed.
    """
    return _Told.of(component, apart, controls).stamp


def netlist(
    component: Component, *, directory: Path, workers: int = 1, apart: str = "", controls: int = 1
) -> Netlist:
    """Synthesises a component in its harness with yosys' ``synth_ecp5``, ``workers`` of its units at a time.

    The core keeps its boundary through synthesis, so that its cells can be counted and nothing of the harness is
    merged into it. Its units keep theirs too, and each is mapped by a yosys of its own (`units`).

    The directory (made if it is not there) receives ``core.v``, ``harness.v``, ``script.ys``,
    ``netlist.json``, ``attraction.json`` and ``yosys.log``, and mapped units in its folder ``units``. Where it holds
    the netlist or a unit of the same text by the same yosys, that is taken as it is; where it holds another netlist,
    its routes are removed.

    Submodules whose own name matches ``apart`` (with * and ?) are units of their own wherever they are: of elements
    side by side synthesis would merge registers that hold the same, and wire the one that is left across the chip.

    Clears and enables of fewer than ``controls`` registers of a unit become logic in front of these. The registers of a
    tile share two of each, so a clear of its own drives a register away from what it belongs to, to where one is free.

    Raises
    ------
    SynthesisError
        If yosys fails or is not there, or lets two cells drive one net.
    """
    told = _Told.of(component, apart, controls)
    directory.mkdir(parents=True, exist_ok=True)
    stamped = directory / "netlist.stamp"
    if not stamped.exists() or stamped.read_text() != told.stamp:
        stamped.unlink(missing_ok=True)
        for old in directory.glob("route-*"):
            old.unlink()
        for name, text in told.texts.items():
            (directory / name).write_text(text)
        told.units.map(directory, workers)
        run_yosys(told.texts["script.ys"], directory, stem="script", log="yosys.log")
        check_drivers(directory / _NETLIST)
        attraction(directory / _NETLIST).save(directory / _ATTRACTION)
        stamped.write_text(told.stamp)
    modules = json.loads((directory / "cells.json").read_text())["modules"]
    cells = {name.lstrip("\\"): Counter(module["num_cells_by_type"]) for name, module in modules.items()}
    around = cells.pop(_HARNESS)
    return Netlist(
        json=directory / _NETLIST,
        attraction=directory / _ATTRACTION,
        # Every module is there once.
        area=_area(sum(cells.values(), Counter())),
        harness_lut4=around.get("LUT4", 0),
    )


def _script(units: Units) -> str:
    """What yosys is told of a core: its units are black boxes until all around them is mapped."""
    lines = [
        "read_verilog core.v harness.v",
        *units.out,
        f"hierarchy -top {_HARNESS}",
        f"setattr -mod -set keep_hierarchy 1 {_CORE}",
        f"synth_ecp5 -top {_HARNESS}",
        *units.back,
        "tee -o cells.json stat -json",
        f"setattr -mod -unset keep_hierarchy {_CORE}",
        "flatten",
        "opt_clean",
        f"write_json {_NETLIST}",
    ]
    return "\n".join(lines) + "\n"


def critical_path(report: dict[str, Any], clock: str) -> str:
    """One line about the critical path of a clock, out of a report of nextpnr."""
    for critical in report["critical_paths"]:
        if critical["from"] != f"posedge {clock}" or critical["to"] != f"posedge {clock}":
            continue
        steps = critical["path"]
        wire = sum(s["delay"] for s in steps if s["type"] == "routing")
        logic = sum(s["delay"] for s in steps if s["type"] != "routing")
        levels = sum(1 for s in steps if s["type"] == "logic")
        source, sink = steps[0]["from"]["cell"], steps[-1]["to"]["cell"]
        time = f"{logic + wire:.2f} ns = {logic:.2f} logic + {wire:.2f} wire"
        return f"{source} -> {sink}: {levels} levels, {time}"
    return "no path between registers"


@dataclass(frozen=True)
class Aim:
    """The clock that place and route aims at.

    Attributes
    ----------
    frequency : float
        MHz.
    insist : bool
        The router rips up connections again and again until no path misses the aim. Only for an aim within reach: if
        it is not, nextpnr takes what it has after 1500 rounds, of a second or two each in a VJP core. Without, a few
        wires of a large core take a detour that costs the whole core 10 MHz.
    placer : str
        nextpnr's, ``"static"`` or ``"heap"``. What static makes does not depend on the frequency.

    Raises
    ------
    ValueError
        If there is no such placer.
    """

    frequency: float = 150.0
    insist: bool = False
    placer: str = "static"

    def __post_init__(self) -> None:
        if self.placer not in _PLACERS:
            raise ValueError(f"placer {self.placer!r} is unknown; give {' or '.join(_PLACERS)}")

    def __str__(self) -> str:
        return f"{self.placer}-{self.frequency:g}" + ("-insist" if self.insist else "")


def route(made: Netlist, seed: int, *, aim: Aim | None = None, device: Device | None = None) -> Route:
    """Places and routes a netlist with one seed.

    Macros get their sites first, see `macros`. Beside the netlist it leaves nextpnr's report and log; a report that
    is there already is taken as it is.

    Raises
    ------
    SynthesisError
        If nextpnr fails (the design does not fit, for one) or is not there.
    """
    device, aim = device or Device(), aim or Aim()
    directory = made.json.parent
    stem = f"route-{device.size}-{device.package}-{device.speed}-{aim}-{seed}"
    report_path = directory / f"{stem}.json"
    if not report_path.exists():
        _place(made, seed, aim, device, stem)
    report = json.loads(report_path.read_text())
    if len(report["fmax"]) != 1:
        raise SynthesisError(f"{made.json} has {len(report['fmax'])} clocks with paths; a core has one, clk")
    ((clock, reached),) = report["fmax"].items()
    return Route(
        seed=seed,
        fmax=round(reached["achieved"], 2),
        path=critical_path(report, clock),
        comb=report["utilization"]["TRELLIS_COMB"]["used"],
    )


def _place(made: Netlist, seed: int, aim: Aim, device: Device, stem: str) -> None:
    directory = made.json.parent
    pull = Attraction.load(made.attraction)
    chosen = anneal(pull, sites(device, directory), seed)
    sited = directory / f"{stem}-netlist.json"
    fix_macros(made.json, sited, pull, chosen, others={_CLOCK: device.clock_site})
    run_tool(
        "nextpnr",
        f"--{device.size}",
        *("--package", device.package),
        *("--speed", str(device.speed)),
        *("--json", sited.name),
        *("--freq", str(aim.frequency)),
        *("--seed", str(seed)),
        *("--placer", aim.placer, *_PLACERS[aim.placer]),
        *("--router", "router2"),
        *(["--tmg-ripup"] if aim.insist else []),
        "--timing-allow-fail",
        "--lpf-allow-unconstrained",
        *("--report", f"{stem}.part"),
        directory=directory,
        log=f"{stem}.log",
    )
    sited.unlink()
    # Under its own name only once it is whole, as it is what says that this seed is done.
    (directory / f"{stem}.part").rename(directory / f"{stem}.json")


def synthesise(
    component: Component,
    name: str,
    *,
    directory: Path,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    aim: Aim | None = None,
    device: Device | None = None,
    workers: int = 1,
) -> Synthesis:
    """Area of a component, and its clock for every seed, ``workers`` seeds at a time.

    Raises
    ------
    ValueError
        If there is no seed.
    SynthesisError
        If a tool fails or is not there.
    """
    if not seeds:
        raise ValueError("no seeds to place with; give at least one")
    device = device or Device()
    made = netlist(component, directory=directory, workers=workers)
    with ThreadPoolExecutor(workers) as pool:
        routes = list(pool.map(lambda s: route(made, s, aim=aim, device=device), seeds))
    return Synthesis(name=name, device=str(device), area=made.packed(routes[0]), routes=tuple(routes))
