"""Active parameters of a stage: registers that the load bus fills while no pixel is in flight."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..bus.control import LOAD
from .stage import Stage

__all__ = ["StageParameters"]


class StageParameters(wiring.Component):
    """``entry["gain_2"]`` is the code of entry 2 of parameter gain.

    Words come over the load bus in rising order, so the registers of a parameter are one shift chain: no
    decoder per entry, and the chain is right after any complete load. Tables are loaded where they are read.

    Parameters
    ----------
    stage : Stage
    base : int
        Word of the stage's first parameter.

    Members
    -------
    load : In(LOAD)
    entry : dict of str to Signal
        By the label of the kernel's source.
    words : dict of str to int
        First word of each parameter.
    """

    def __init__(self, stage: Stage, base: int) -> None:
        self._stage = stage
        self.words: dict[str, int] = {}
        self.entry: dict[str, Signal] = {}
        for name, parameter in stage.parameters.items():
            self.words[name] = base
            base += parameter.entries
            if not parameter.table:
                for k in range(parameter.entries):
                    self.entry[f"{name}_{k}"] = Signal(
                        parameter.format.shape, name=f"{stage.name}_{name}_{k}", reset_less=True
                    )
        super().__init__({"load": In(LOAD)})

    def elaborate(self, platform) -> Module:
        m = Module()
        for name, parameter in self._stage.parameters.items():
            if parameter.table:
                continue
            chain = [self.entry[f"{name}_{k}"] for k in range(parameter.entries)]
            first = self.words[name]
            here = Signal(name=f"{name}_here")
            word = Signal.like(chain[0], name=f"{name}_word", reset_less=True)
            m.d.sync += [
                here.eq(
                    self.load.valid & (self.load.address >= first) & (self.load.address < first + len(chain))
                ),
                word.eq(self.load.data),
            ]
            with m.If(here):
                for entry, after in zip(chain, [*chain[1:], word], strict=True):
                    m.d.sync += entry.eq(after)
        return m
