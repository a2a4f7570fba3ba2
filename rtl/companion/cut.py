"""Cuts by an amount that changes with every row."""

from __future__ import annotations

from amaranth.hdl import Module, Value, ValueLike

from ..numeric import Format
from ..stream.delay import delayed
from ..systolic.requantise import Requantise

__all__ = ["CUT_LATENCY", "cut"]

CUT_LATENCY = Requantise.lead + Requantise.latency


def cut(m: Module, name: str, value: Value, amount: ValueLike, to: Format) -> tuple[Value, Value]:
    """``min(max(floor(value 2**-amount + 1/2), lo), hi)``, and whether it saturated, `CUT_LATENCY` clocks later.

    The datapath is that of the array's results, one lane of :class:`~pullback.rtl.systolic.requantise.Requantise`.
    ``amount`` is 0 to the bits of ``value``; of an unsigned format ``value`` must not be negative.
    """
    code = to.width + (not to.signed)
    total = max(len(value) + (not value.shape().signed), code + 1)
    m.submodules[name] = requantise = Requantise(1, total, code)
    how = requantise.how
    m.d.comb += [
        requantise.sums[0].eq(delayed(m, f"{name}_value", value, Requantise.lead)),
        how.upper.eq(amount),
        how.lower.eq(amount),
        how.top.eq(to.hi),
    ]
    narrowed = requantise.codes[0]
    return (narrowed if to.signed else narrowed[: to.width]), requantise.clipped[0]
