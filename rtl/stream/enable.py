"""Enables of registers that lie far apart."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value

__all__ = ["COPIES", "copies", "enables"]

COPIES = 3
"""Registers of one value that differ for synthesis, which makes one of equal ones: in what reset does to them."""

_IN_RESET = (0, 1, None)
"""What reset makes of them; None: nothing."""


def enables(m: Module, name: str, before: Value, count: int, *, inverts: bool = True) -> list[Value]:
    """``count`` enables, each ``before`` one clock later, out of up to six registers: one alone would have to reach
    every register of a window. Neighbours share a register.

    Three of the registers differ in what reset does to them. Three more hold the complement, which a look-up table or
    a clock enable inverts at no cost; a RAM's address does not, so ``inverts=False`` keeps to the first three.

    In reset an enable may be 1: what it enables must not matter until ticks come.
    """
    kinds = [(False, init) for init in _IN_RESET]
    if inverts:
        kinds += [(True, init) for init in _IN_RESET]
    kinds = kinds[:count]
    registers: list[Value] = []
    for k, (inverted, init) in enumerate(kinds):
        register = Signal(name=f"{name}_{k}", init=init or 0, reset_less=init is None)
        m.d.sync += register.eq(~before if inverted else before)
        registers.append(~register if inverted else register)
    return [registers[k * len(kinds) // count] for k in range(count)]


def copies(m: Module, name: str, before: Value, count: int, *, inverts: bool = True) -> list[Value]:
    """``count`` copies of a word, each ``before`` one clock later: `enables` of every bit of it."""
    bits = [enables(m, f"{name}_{n}", bit, count, inverts=inverts) for n, bit in enumerate(before)]
    return [Cat(bit[k] for bit in bits) for k in range(count)]
