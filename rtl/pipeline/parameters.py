"""Active parameters of a stage: registers that the load bus fills while no pixel is in flight."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..bus.control import LOAD
from ..kernel.primitives.source import Entry
from .stage import Stage

__all__ = ["StageParameters"]


class StageParameters(wiring.Component):
    """Registers of parameter entries, and the load bus that fills them.

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
    words : dict of str to int
        First word of each parameter.
    """

    def __init__(self, stage: Stage, base: int) -> None:
        self.stage = stage
        self.words: dict[str, int] = {}
        self._entries: dict[str, Signal] = {}
        for name, parameter in stage.parameters.items():
            self.words[name] = base
            base += parameter.entries
        super().__init__({"load": In(LOAD)})

    def entry(self, source: Entry) -> Signal:
        """The code of an entry. Entries that nobody asks for have no register; ask before elaboration."""
        register = Signal(source.format.shape, name=f"{self.stage.name}_{source.label}", reset_less=True)
        return self._entries.setdefault(source.label, register)

    def elaborate(self, platform) -> Module:
        m = Module()
        for name, parameter in self.stage.parameters.items():
            labels = [f"{name}_{k}" for k in range(parameter.entries)]
            if not any(label in self._entries for label in labels):
                continue
            token = Signal(parameter.entries, name=f"{name}_token")
            word = Signal(parameter.format.shape, name=f"{name}_word", reset_less=True)
            starts = self.load.valid & (self.load.address == self.words[name])
            m.d.sync += [token.eq(Cat(starts, token[:-1])), word.eq(self.load.data)]
            for label, mine in zip(labels, token, strict=True):
                if label in self._entries:
                    with m.If(mine):
                        m.d.sync += self._entries[label].eq(word)
        return m
