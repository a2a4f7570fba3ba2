"""Values a fixed number of clocks later."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value

__all__ = ["delayed"]


def delayed(m: Module, name: str, value: Value, clocks: int, *, reset: bool = False) -> Value:
    """``value`` some clocks later, in registers ``name_1``, ``name_2`` and so on.

    With ``reset`` they start from zero, as what says that something is there must; without, they start from anything.
    """
    for k in range(1, clocks + 1):
        register = Signal.like(value, name=f"{name}_{k}", init=0, reset_less=not reset)
        m.d.sync += register.eq(value)
        value = register
    return value
