"""Where values come from: constants, taps of the window, parameters, the site, cotangents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Const

from ...numeric import Format
from ..graph import Node, Range
from .base import Primitive

__all__ = [
    "Constant", "Cotangent", "Decision", "Entry", "EntryOfColour", "Flag", "SiteValue", "Source", "Tangent", "Tap",
    "constant_like",
]  # fmt: skip


@dataclass(frozen=True)
class Constant(Primitive):
    """The number ``code * 2**-f``, trailing zeros removed."""

    code: int
    f: int
    mnemonic: ClassVar[str] = "constant"

    def range(self) -> Range:
        return Range(self.f, self.code, self.code)

    def evaluate(self, node: Node) -> int:
        return self.code

    def lower(self, lowering: Any, node: Node) -> Const:
        return Const(self.code, node.shape)


@dataclass(frozen=True)
class Source(Primitive):
    """A value that comes from outside the kernel; its fields say which."""

    format: Format
    arrival: ClassVar[int] = 0
    """Steps after the site in which it comes."""

    @property
    def static(self) -> bool:
        """True if the value does not change while pixels are in flight."""
        return False

    @property
    def label(self) -> str:
        """The name of its port."""
        raise TypeError(f"source {self.mnemonic} has no label")

    def range(self) -> Range:
        return Range(self.format.f, self.format.lo, self.format.hi)

    def lower(self, lowering: Any, node: Node) -> Any:
        return lowering.source(self)


def _signed(k: int) -> str:
    return f"m{-k}" if k < 0 else f"p{k}" if k > 0 else "0"


@dataclass(frozen=True)
class Tap(Source):
    """Channel ``channel`` of the pixel ``dy`` lines below and ``dx`` pixels right of the site."""

    channel: str
    dy: int
    dx: int
    mnemonic: ClassVar[str] = "tap"

    @property
    def label(self) -> str:
        return f"{self.channel}_y{_signed(self.dy)}_x{_signed(self.dx)}"


@dataclass(frozen=True)
class Entry(Source):
    """Entry ``index`` of parameter ``parameter``."""

    parameter: str
    index: int
    mnemonic: ClassVar[str] = "entry"

    @property
    def static(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"{self.parameter}_{self.index}"


@dataclass(frozen=True)
class EntryOfColour(Source):
    """Entry ``colour * entries / 4 + k`` of parameter ``parameter``, colour being that of the site."""

    parameter: str
    k: int
    mnemonic: ClassVar[str] = "entry_of_colour"
    arrival: ClassVar[int] = 1

    @property
    def label(self) -> str:
        return f"{self.parameter}_of_colour_{self.k}"


@dataclass(frozen=True)
class Flag(Source):
    """A run-time switch that is constant while pixels are in flight, such as the stage's bypass."""

    flag: str
    mnemonic: ClassVar[str] = "flag"

    @property
    def static(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return self.flag


@dataclass(frozen=True)
class SiteValue(Source):
    """A coordinate of the site, or its CFA colour."""

    what: str
    mnemonic: ClassVar[str] = "site"

    @property
    def label(self) -> str:
        return f"site_{self.what}"


@dataclass(frozen=True)
class Cotangent(Source):
    """The cotangent of output channel ``channel``."""

    channel: str
    mnemonic: ClassVar[str] = "cotangent"

    @property
    def label(self) -> str:
        return f"{self.channel}_bar"


@dataclass(frozen=True)
class Decision(Source):
    """A decision that the forward took at this site."""

    condition: str
    mnemonic: ClassVar[str] = "decision"

    @property
    def label(self) -> str:
        return f"decision_{self.condition}"


@dataclass(frozen=True)
class Tangent(Source):
    """The tangent of another source."""

    of: Source
    mnemonic: ClassVar[str] = "tangent"

    @property
    def static(self) -> bool:
        return self.of.static

    @property
    def label(self) -> str:
        return f"{self.of.label}_dot"


def constant_like(node: Node, value: Any) -> Node:
    """The value itself if it is a node, else a constant of the node's graph."""
    return value if isinstance(value, Node) else node.graph.constant(value)
