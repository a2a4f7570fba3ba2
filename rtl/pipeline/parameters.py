"""Active parameters of a stage: registers that the load bus fills while no pixel is in flight."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..bus.control import LOAD
from .stage import Stage

__all__ = ["StageParameters"]


class StageParameters(wiring.Component):
    """``entry["gain_2"]`` is the code of entry 2 of parameter gain.

    Words come over the load bus in rising order, one per clock, so a token that the first word of a parameter starts
    passes from entry to entry beside the words: no decoder per entry, and no enable that reaches all of them. Tables
    are loaded where they are read.

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
            token = Signal(parameter.entries, name=f"{name}_token")
            word = Signal(parameter.format.shape, name=f"{name}_word", reset_less=True)
            starts = self.load.valid & (self.load.address == self.words[name])
            m.d.sync += [token.eq(Cat(starts, token[:-1])), word.eq(self.load.data)]
            for k in range(parameter.entries):
                with m.If(token[k]):
                    m.d.sync += self.entry[f"{name}_{k}"].eq(word)
        return m
