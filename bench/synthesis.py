"""Area and clock on an ECP5 over five seeds: stages and cores, 1920 wide; the array, bare and as a unit; companions.

    python bench/synthesis.py                       everything: hours
    python bench/synthesis.py 'forward.*' --seeds 1 some of it
    python bench/synthesis.py --forget              drops what was measured of designs that have changed since

Writes ``out/bench/synthesis.json`` after every result and takes up what is there, else what the repository holds in
``docs/figures``: it can be stopped and called again, here or on another machine, or called for a few targets more. A
seed counts as measured if all that the tools were told is the same to the letter. What it measures, and how, is told
in ``pullback.gen.synthesis``.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pullback import files
from pullback.gen.flow import Device, SynthesisError, tool_versions
from pullback.gen.synthesis import (
    PLACEMENT,
    Aim,
    Netlist,
    Route,
    Synthesis,
    netlist,
    route,
    stamp,
)
from pullback.rtl.bus.control import LOAD
from pullback.rtl.companion.build import RowBuild
from pullback.rtl.companion.layer_norm import LayerNorm, LayerNormAdjoint
from pullback.rtl.companion.softmax import Softmax, SoftmaxAdjoint
from pullback.rtl.isp.pipeline import CURVES, DEMOSAICS, isp
from pullback.rtl.numeric import Format
from pullback.rtl.pipeline import Build, Stage
from pullback.rtl.pipeline.adjoint import AdjointUnit
from pullback.rtl.pipeline.core import ForwardCore, VJPCore
from pullback.rtl.pipeline.forward import ForwardUnit
from pullback.rtl.pipeline.loss import LossUnit
from pullback.rtl.pipeline.parameters import StageParameters
from pullback.rtl.pipeline.pipeline import OUTPUT_COTANGENT
from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import UnitBuild
from pullback.rtl.systolic.placement import largest, sites
from pullback.rtl.systolic.unit import ArrayUnit

PARTS = {"25f": Device(size="25k", package="CABGA381"), "85f": Device()}
"""Parts that arrays are measured on, one with every multiplier of the part."""

COMPANIONS: dict[str, Callable[[RowBuild], wiring.Component]] = {
    "softmax": Softmax,
    "softmax_adjoint": SoftmaxAdjoint,
    "layer_norm": LayerNorm,
    "layer_norm_adjoint": LayerNormAdjoint,
}

KEPT = Path(__file__).parent.parent / "docs/figures"
"""Where `bench/table.py` keeps what docs/figures.md was made of."""


class Unit(wiring.Component):
    """A unit of a stage with the registers of its parameters: what a stage costs."""

    def __init__(self, unit: ForwardUnit | AdjointUnit, parameters: StageParameters) -> None:
        self._unit, self._parameters = unit, parameters
        super().__init__({"unit": Out(unit.signature), "load": In(LOAD)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules["unit"] = self._unit
        m.submodules["parameters"] = self._parameters
        wiring.connect(m, self._unit, wiring.flipped(self.unit))
        wiring.connect(m, wiring.flipped(self.load), self._parameters.load)
        return m


def forward(stage: Stage, build: Build) -> wiring.Component:
    """The forward unit of a stage alone."""
    parameters = StageParameters(stage, 16)
    return Unit(ForwardUnit(stage.trace(), build, parameters), parameters)


def adjoint(stage: Stage, cotangent: Format, build: Build) -> wiring.Component:
    """The adjoint unit of a stage alone, without its tape."""
    parameters = StageParameters(stage, 16)
    return Unit(AdjointUnit(stage.trace(), cotangent, build, parameters), parameters)


def stages() -> dict[str, tuple[Stage, Format]]:
    """Every stage of every ISP, with the format of its output's cotangent."""
    found: dict[str, tuple[Stage, Format]] = {}
    for curve in CURVES:
        for demosaic in DEMOSAICS:
            pipeline = isp(demosaic, curve=curve)
            for k, stage in enumerate(pipeline):
                last = k == len(pipeline) - 1
                name = stage.name + (f".{curve}" if last and curve != "shared" else "")
                found.setdefault(name, (stage, pipeline.output_cotangent(k)))
    return found


def array(part: str, packed: bool) -> wiring.Component:
    """The bare array with every multiplier of a part."""
    build = largest(PARTS[part].size, packed=packed)
    return SystolicArray(build, site=sites(PARTS[part].size, build))


def unit(part: str, packed: bool) -> wiring.Component:
    """The same array with its memories, partial sums, requantisation, pools and programme."""
    build = largest(PARTS[part].size, packed=packed)
    around = UnitBuild(array=build, memory=1024, sums=512, masks=1024, programme=512, ram="ecp5")
    return ArrayUnit(around, site=sites(PARTS[part].size, build))


@dataclass(frozen=True)
class Target:
    """What can be measured.

    Attributes
    ----------
    make : callable
        Makes the component.
    aim : Aim
    device : Device
    apart, controls : str, int
        As `netlist` has them.
    """

    make: Callable[[], wiring.Component]
    aim: Aim = Aim()  # noqa: RUF009  (frozen)
    device: Device = Device()  # noqa: RUF009
    apart: str = ""
    controls: int = 1


def targets(build: Build) -> dict[str, Target]:
    """Everything that can be measured, by name."""
    made: dict[str, Target] = {}
    for name, (stage, _) in stages().items():
        made[f"forward.{name}"] = Target(partial(forward, stage, build))
    for name, (stage, cotangent) in stages().items():
        made[f"adjoint.{name}"] = Target(partial(adjoint, stage, cotangent, build))
    made["loss"] = Target(lambda: LossUnit(isp().o, OUTPUT_COTANGENT, build))
    for demosaic in DEMOSAICS:
        made[f"forward_core.{demosaic}"] = Target(partial(ForwardCore, isp(demosaic), build))
    for demosaic in DEMOSAICS:
        made[f"vjp_core.{demosaic}"] = Target(
            partial(VJPCore, isp(demosaic), build), aim=Aim(96, insist=True)
        )
    rows = RowBuild(longest=512, family="ecp5", ram="ecp5")
    for name, companion in COMPANIONS.items():
        made[f"companion.{name}"] = Target(partial(companion, rows))
    for part, packed in (("25f", False), ("85f", False), ("85f", True)):
        for name, make, frequency, controls in (
            ("array", array, 180 if packed else 230, 8),
            ("unit", unit, 200, 24),
        ):
            made[f"{name}.{part}" + (".packed" if packed else "")] = Target(
                partial(make, part, packed),
                aim=Aim(frequency, placer="heap"),
                device=PARTS[part],
                apart="element_*",
                controls=controls,
            )
    return made


class Table:
    """The results so far, on disk after each one."""

    def __init__(self, path: Path, kept: Path, setting: dict[str, Any]) -> None:
        self._path, self._lock = path, threading.Lock()
        self._content: dict[str, Any] = {**setting, "results": {}}
        found = next((each for each in (path, kept) if each.exists()), None)
        if found is not None:
            before = json.loads(found.read_text())
            if {k: before.get(k) for k in setting} == setting:
                self._content = before
            else:
                print(
                    f"{found} holds results of another setting or other tools; starting anew", file=sys.stderr
                )

    @property
    def names(self) -> list[str]:
        """What there is a result of."""
        return list(self._content["results"])

    def get(self, name: str, stamp: str, target: Target) -> dict[str, Any]:
        """The result of a design, empty if there is none of this stamp, aim and device."""
        entry = self._content["results"].get(name, {})
        found = entry.get("stamp"), entry.get("aim"), entry.get("device")
        return entry if found == (stamp, asdict(target.aim), str(target.device)) else {}

    def put(self, name: str, entry: dict[str, Any]) -> None:
        """Keeps a result, or what went wrong."""
        with self._lock:
            self._content["results"][name] = entry
            self._write()

    def drop(self, name: str) -> None:
        """Forgets a result."""
        with self._lock:
            del self._content["results"][name]
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.write(self._path, json.dumps(self._content, indent=2) + "\n")


def mark(target: Target) -> str:
    """The stamp of what it makes."""
    return stamp(target.make(), apart=target.apart, controls=target.controls)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="targets, with * and ?")
    parser.add_argument("--list", action="store_true", help="print the names of the targets and stop")
    parser.add_argument("--forget", action="store_true", help="drop the results of changed designs and stop")
    parser.add_argument("--seeds", type=int, default=5, help="placement seeds 1..N (5)")
    parser.add_argument("--workers", type=int, default=2, help="tools at a time (2)")
    parser.add_argument("--width", type=int, default=1920, help="widest line (1920)")
    parser.add_argument("--lanes", type=int, default=1, help="pixels per clock (1)")
    parser.add_argument(
        "--frequency",
        type=float,
        help="MHz to aim at, without insisting (150; VJP cores 96, units 200, arrays 230, packed 180)",
    )
    parser.add_argument(
        "--clock", type=float, default=175.0, help="MHz that registers are inserted for (175)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()

    build = Build(lanes=options.lanes, max_width=options.width, clock=options.clock * 1e6, family="ecp5")
    known = targets(build)
    chosen = [name for name in known if any(fnmatch(name, pattern) for pattern in options.patterns)]
    if options.list:
        print("\n".join(chosen))
        return 0
    if not chosen:
        print(f"no target matches {' '.join(options.patterns)}; --list shows them", file=sys.stderr)
        return 2
    if options.frequency is not None:
        known = {
            name: replace(each, aim=replace(each.aim, frequency=options.frequency, insist=False))
            for name, each in known.items()
        }
    setting = {
        "tools": tool_versions(),
        "build": asdict(build),
        "placement": PLACEMENT,
    }
    plain = options.lanes == 1 and options.width == 1920
    variant = "" if plain else f"-{options.width}x{options.lanes}"
    table = Table(options.out / f"synthesis{variant}.json", KEPT / f"synthesis{variant}.json", setting)
    work = options.out / f"synthesis{variant}"

    if options.forget:
        for name in table.names:
            if name not in known or not table.get(name, mark(known[name]), known[name]):
                table.drop(name)
                print(f"{name}: dropped")
        return 0

    def one(name: str, pool: ThreadPoolExecutor) -> None:
        began, target = time.monotonic(), known[name]
        try:
            stamped = mark(target)
            before = table.get(name, stamped, target)
            routes = [Route(**each) for each in before.get("routes", ())]
            missing = set(range(1, options.seeds + 1)) - {each.seed for each in routes}
            if not missing:
                print(f"{name}: {len(routes)} seeds are there", flush=True)
                return
            component = target.make()
            made: Netlist = netlist(
                component,
                directory=work / name,
                workers=options.workers,
                apart=target.apart,
                controls=target.controls,
            )
            entry: dict[str, Any] = {
                "stamp": stamped,
                "device": str(target.device),
                "aim": asdict(target.aim),
                "area": asdict(made.area),
            }
            if isinstance(component, ForwardCore | VJPCore):
                entry["memory_bits"] = component.memory()
            table.put(name, before or entry)
            print(f"{name}: synthesised in {time.monotonic() - began:.0f} s: {made.area}", flush=True)
        except SynthesisError as error:
            table.put(name, {"error": str(error)})
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return

        def place(seed: int) -> None:
            try:
                result = route(made, seed, aim=target.aim, device=target.device)
            except SynthesisError as error:
                table.put(name, {**entry, "error": str(error)})
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                return
            routes.append(result)
            in_order = tuple(sorted(routes, key=lambda r: r.seed))
            done = Synthesis(name=name, device=str(target.device), area=made.packed(result), routes=in_order)
            table.put(name, entry | done.as_json())
            print(f"{name}: seed {seed}: {result.fmax:.1f} MHz, {result.path}", flush=True)

        jobs.extend(pool.submit(place, seed) for seed in sorted(missing))

    jobs: list[Any] = []
    with ThreadPoolExecutor(options.workers) as pool:
        jobs += [pool.submit(one, name, pool) for name in chosen]
        for job in jobs:  # grows while it is walked: every netlist adds its seeds
            job.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
