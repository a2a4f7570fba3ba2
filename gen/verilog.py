"""Verilog out of a component, and a description of its ports.

A component becomes text twice, from one elaboration:

* **plain Verilog** (`verilog`) for synthesis and for people: readable names, one module per part, no
  source paths, so the same design gives the same text on every machine;
* **the copy for simulators** (`simulation_verilog`): the same netlist, whose ``always @*`` blocks have a trigger
  that fires once at time zero under the rules of every standard. Plain Verilog's fires under Verilog-2005's only:
  under Icarus' ``-g2012`` a block whose inputs never change would stay X for ever. ``always_comb`` is no way out:
  in Icarus 11 any such block that runs wakes all others, at best slowly and at worst for ever.

Only the yosys that comes with Amaranth (``amaranth[builtin-yosys]``) is used, never one found on ``PATH``:
what is generated must not depend on what else is installed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from amaranth._toolchain.yosys import YosysError, find_yosys
from amaranth.back import rtlil as _rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Fragment, ResetSignal, Value, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import Component, In

__all__ = ["Port", "YosysError", "ports", "ports_json", "rtlil", "simulation_verilog", "verilog"]

# The attributes that Amaranth leaves for its own tools. `src` would carry the paths of this machine.
_INTERNAL = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Port:
    """A port of a generated module.

    Attributes
    ----------
    direction : str
        ``"in"`` or ``"out"``, as the module sees it.
    width : int
        Bits.
    signed : bool
        Whether the bits are two's complement.
    """

    direction: str
    width: int
    signed: bool

    def __iter__(self) -> Iterator[Any]:
        """Unpacks as ``direction, width, signed``."""
        return iter((self.direction, self.width, self.signed))


def _members(component: Component) -> Iterator[tuple[str, Value, bool]]:
    """Flat name, value and whether it is an input, for every port that has bits, in the signature's order."""
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        if not isinstance(value, Value):
            continue  # a constant member: nothing to connect
        if value.shape().width:  # yosys would write a port of no bits as `[-1:0]`, which is two
            yield "__".join(map(str, path)), value, member.flow == In


def ports(component: Component) -> dict[str, Port]:
    """Ports of the module that `verilog` writes: flat name -> `Port`, ``clk`` and ``rst`` first.

    Nested interfaces are joined with ``__``; ports of no bits are left out. Nothing is elaborated.
    """
    described = {"clk": Port("in", 1, False), "rst": Port("in", 1, False)}
    for name, value, is_input in _members(component):
        shape = value.shape()
        described[name] = Port("in" if is_input else "out", shape.width, shape.signed)
    return described


def ports_json(component: Component, name: str = "core") -> str:
    """``{"module": name, "ports": {port: {"direction", "width", "signed"}}}`` as JSON."""
    description = {"module": name, "ports": {port: asdict(p) for port, p in ports(component).items()}}
    return json.dumps(description, indent=2) + "\n"


def rtlil(component: Component, name: str = "core") -> str:
    """RTLIL of a component as a module ``name`` with a clock ``clk`` and a synchronous reset ``rst``.

    The two are ports even of a purely combinational component, so that every module is driven alike.

    Raises
    ------
    ValueError
        If ``name`` is not a Verilog identifier.
    """
    if not _IDENTIFIER.match(name):
        raise ValueError(f"module name {name!r} is no Verilog identifier; use letters, digits, underscores")
    fragment = Fragment.get(component, None)
    if "sync" not in fragment.domains:
        fragment.add_domains(ClockDomain("sync"))
    connections: dict[str, Any] = {
        "clk": (ClockSignal("sync"), PortDirection.Input),
        "rst": (ResetSignal("sync"), PortDirection.Input),
    }
    for port, value, is_input in _members(component):
        connections[port] = (value, PortDirection.Input if is_input else PortDirection.Output)
    text, _ = _rtlil.convert_fragment(fragment, connections, name, emit_src=False)
    return text


@contextmanager
def _builtin_yosys() -> Iterator[None]:
    """Has Amaranth look for its own yosys only, and puts the environment back."""
    before = os.environ.get("AMARANTH_USE_YOSYS")
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    try:
        yield
    finally:
        if before is None:
            del os.environ["AMARANTH_USE_YOSYS"]
        else:
            os.environ["AMARANTH_USE_YOSYS"] = before


_READABLE = ("proc -nomux -norom", "memory_collect")
"""One module per part, decisions as ``case``."""

_FLAT = ("proc -norom", "flatten", "opt", "memory_collect")
"""One module, constants folded, registers that keep their value under an enable."""


def _write(text: str, passes: tuple[str, ...] = _READABLE) -> str:
    removed = " ".join(f"-remove {attribute}" for attribute in _INTERNAL)
    script = [
        f"read_rtlil <<rtlil\n{text}\nrtlil",
        *passes,
        f"attrmap {removed}",
        f"attrmap -modattr {removed}",
        "write_verilog -norename",
    ]
    with _builtin_yosys():
        yosys = find_yosys(lambda version: version >= (0, 40))  # Amaranth 0.5's own bound
        # yosys warns that not every process can be written; Amaranth emits only those that can.
        return _replicated(yosys.run(["-q", "-"], "\n".join(script), ignore_warnings=True))


# What yosys has every block of plain Verilog depend on, so that it runs once: `reg trigger = 0;`.
_TRIGGER = re.compile(r"^  reg (\\\$auto\$verilog_backend\S+ ) = 0;$", re.MULTILINE)


def _triggered(text: str) -> str:
    """Triggers set by a non-blocking assignment: it comes when every block waits for a change already."""
    return "// verilator lint_off INITIALDLY\n" + _TRIGGER.sub(r"  reg \1;\n  initial \1 <= 1'h1;", text)


# A name with its bit, as often as it follows itself in a concatenation.
_REPEATED = re.compile(r"(?<=[{,] )(\\\S+ (?:\[\d+\])?|[A-Za-z_]\w*(?:\[\d+\])?)((?:, \1)+)(?= ?[,}])")


def _replicated(text: str) -> str:
    """``{ a[7], a[7], a[7], a }`` as ``{ {3{a[7]}}, a }``.

    That is how yosys writes every sign extension. Nobody reads a line of sixty-four equal bits, and Verilator
    picks and shifts each of them by itself.
    """
    return _REPEATED.sub(lambda m: f"{{{1 + m[2].count(', ')}{{{m[1]}}}}}", text)


def verilog(component: Component | str, name: str = "core") -> str:
    """Plain Verilog of a component (or of the text that `rtlil` gave), with a top module ``name``.

    The same design gives the same text, byte for byte. Names of signals and of submodules are those of the
    Amaranth source.
    """
    return _write(component if isinstance(component, str) else rtlil(component, name))


def simulation_verilog(component: Component | str, name: str = "core", *, flat: bool = False) -> str:
    """Verilog for Icarus and Verilator, under any standard, of a component (or of the text that `rtlil` gave).

    ``flat`` gives one optimised module that nobody wants to read: a compiled model of it runs a fifth faster.
    """
    text = component if isinstance(component, str) else rtlil(component, name)
    return _triggered(_write(text, passes=_FLAT if flat else _READABLE))
