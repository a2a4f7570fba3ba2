"""Enables of registers that lie far apart."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value

__all__ = ["COPIES", "enables"]

COPIES = 3
"""Registers that differ for synthesis, of which `enables` makes copies."""


def enables(m: Module, name: str, before: Value, count: int) -> list[Signal]:
    """``count`` enables, each ``before`` one clock later, out of up to three registers: one alone would have to reach
    every register of a window.

    The three differ in what reset does to them, since synthesis makes one register of equal ones. So in reset an
    enable may be 1: what it enables must not matter until ticks come.
    """
    registers = [
        Signal(name=f"{name}_0"),
        Signal(name=f"{name}_1", init=1),
        Signal(name=f"{name}_2", reset_less=True),
    ]
    m.d.sync += [register.eq(before) for register in registers[:count]]
    return [registers[k % len(registers)] for k in range(count)]
