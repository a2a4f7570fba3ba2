"""What a hardware engineer gets of a core: Verilog, register map, and a description for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pullback.gen import registers, verilog
from pullback.rtl.pipeline.core import ForwardCore, VJPCore
from pullback.rtl.stream.ram import BlockRam
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.core import ArrayCore
from pullback.rtl.systolic.descriptor import Kind, fields
from pullback.rtl.systolic.placement import largest, sites
from pullback.rtl.systolic.system import ArraySystem

__all__ = ["array", "array_description", "core_description", "documents"]

Core = ForwardCore | VJPCore | ArrayCore | ArraySystem


def documents(top: Core, name: str, described: Mapping[str, Any]) -> dict[str, str]:
    """All files of a core: file name -> text. Verilog, its copy for simulators, the description, the register map."""
    text = verilog.rtlil(top, name)
    return {
        f"{name}.v": verilog.verilog(text, name),
        f"{name}.sv": verilog.simulation_verilog(text, name),
        f"{name}.json": json.dumps(described, indent=2) + "\n",
        **registers.render(top.map),
    }


def core_description(core: ForwardCore | VJPCore, name: str) -> dict[str, Any]:
    """Ports, channel formats and latency of an ISP's core."""
    described = json.loads(verilog.ports_json(core, name))
    described["lanes"] = core.build.lanes
    described["stages"] = [
        {
            "name": stage.name,
            "i": {channel: str(form) for channel, form in stage.i.channels},
            "o": {channel: str(form) for channel, form in stage.o.channels},
            "cotangent_i": str(stage.cotangent),
            "radius": stage.radius,
            "latency": unit.latency,
        }
        for stage, unit in zip(core.pipeline, core.forward, strict=True)
    ]
    described["latency"] = {
        "cycles": sum(unit.latency for unit in core.forward),
        "lines": sum(stage.radius for stage in core.pipeline),
    }
    described["memory_bits"] = core.memory()
    return described


def array(
    given: Mapping[str, int | None],
    around: Mapping[str, int],
    *,
    name: str,
    packed: bool,
    part: str | None,
    family: str,
    longest: int | None,
) -> ArrayCore | ArraySystem:
    """An array's core.

    Parameters
    ----------
    given : mapping
        Sizes of the `ArrayBuild`; None is its default, or all that the part has.
    around : mapping
        Sizes of the `UnitBuild`.
    name : str
        Of the register map.
    packed : bool
    part : str or None
        The size of an ECP5, whose multipliers get their sites.
    family : str
        Whose multipliers and RAM, where there is no part.
    longest : int or None
        Beats of a burst, of a core with a memory port.

    Raises
    ------
    ValueError
        If a size is out of its range, or more than the part has.
    """
    base = largest(part, packed=packed) if part is not None else ArrayBuild(packed=packed, family=family)
    build = base.replace(**{key: value for key, value in given.items() if value is not None})
    ram = build.family if build.family in BlockRam.families else "generic"
    unit = UnitBuild(array=build, ram=ram, **around)
    site = {} if part is None else {"site": sites(part, build)}
    if longest is None:
        return ArrayCore(unit, name=name, **site)
    return ArraySystem(unit, longest=longest, name=name, **site)


def array_description(core: ArrayCore | ArraySystem, name: str) -> dict[str, Any]:
    """Ports, sizes, clocks on the way, and of descriptors the fields as (lowest bit, bits) and the kinds."""
    described = json.loads(verilog.ports_json(core, name))
    described["build"] = asdict(core.build)
    described["lanes"] = core.build.lanes
    described["descriptor"] = {
        "words": core.map.descriptor,
        "kinds": {kind.name: kind.value for kind in Kind},
        "fields": fields(core.build),
    }
    return described
