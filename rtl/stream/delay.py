"""Values a fixed number of clocks later."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["delayed"]


def delayed(
    m: Module, name: str, value: Value, clocks: int, *, reset: bool = False, clear: Value | None = None
) -> Value:
    """``value`` some clocks later, in registers ``name_1``, ``name_2`` and so on.

    With ``reset`` they start from zero, as what says that something is there must; without, they start from anything.
    All are zero behind a clock of ``clear``: a reset that comes another way, as one for all would reach too far.
    """
    for k in range(1, clocks + 1):
        register = Signal.like(value, name=f"{name}_{k}", init=0, reset_less=not reset)
        m.d.sync += register.eq(value if clear is None else Mux(clear, 0, value))
        value = register
    return value
