"""Resets of parts that lie far apart."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Elaboratable, Module, ResetSignal, Signal

__all__ = ["ResetLater"]


class ResetLater(Elaboratable):
    """A component whose reset is that of the domain a clock later, out of a register of its own: one reset alone would
    have to reach registers all over the chip in a clock.

    **Contract of the user**: nothing is asked of the component in the clock in which the reset begins, nor in the one
    after it ends. Its ports are used as they are.

    Parameters
    ----------
    component : Component
        In the domain ``sync`` only.
    """

    def __init__(self, component: Any) -> None:
        self._component = component

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.later = ClockDomain(local=True)
        reset = Signal(reset_less=True)
        m.d.sync += reset.eq(ResetSignal())
        m.d.comb += [ClockSignal("later").eq(ClockSignal()), ResetSignal("later").eq(reset)]
        m.submodules.component = DomainRenamer("later")(self._component)
        return m
