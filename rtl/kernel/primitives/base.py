"""What a primitive is: its range, its three readings (value, VJP, JVP), its cost and its hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ..graph import Node, Range
    from ..lower import Lowering

__all__ = ["Delay", "Primitive"]


class Delay:
    """Combinational delay in nanoseconds on an ECP5 of speed grade 6, routing included.

    Fitted to nextpnr's reports on full designs: a LUT level with its net costs about 1.1 ns, a carry chain 2.2 ns
    to enter and leave, nets included, and 0.05 ns a bit. They only steer where registers go; results never
    depend on them.
    """

    LUT = 1.1
    MULTIPLIER = 3.5
    """The net into a multiplier: its blocks stand in few rows of the chip, so it is long."""

    @staticmethod
    def carry(width: int) -> float:
        """An adder or comparator of so many bits."""
        return 2.2 + 0.05 * width


@dataclass(frozen=True)
class Primitive:
    """One operation. A new one is a file in this folder: a subclass, and a function that applies it.

    Subclasses are frozen dataclasses: their fields are the static attributes, and equal primitives of equal
    arguments are one node.
    """

    mnemonic: ClassVar[str] = "?"
    latency: ClassVar[int] = 0
    """Clock cycles from arguments to result; 0 is combinational."""

    def range(self, *arguments: Node) -> Range:
        """Exact bounds of the result."""
        raise TypeError(f"primitive {self.mnemonic} states no range")

    def evaluate(self, node: Node, *codes: Any) -> Any:
        """The result's codes from the arguments' codes (numpy integers)."""
        raise TypeError(f"primitive {self.mnemonic} cannot be evaluated")

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        """The cotangents of the arguments; None where the derivative is zero."""
        return [None] * len(node.arguments)

    def jvp(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        """The tangent of the result; None where it is zero."""
        return None

    def delay(self, node: Node) -> float:
        """Combinational delay, or that of the path into the first register."""
        return 0.0

    def lower(self, lowering: Lowering, node: Node, *values: Any) -> Any:
        """The result as an Amaranth value; submodules go to ``lowering``."""
        raise TypeError(f"primitive {self.mnemonic} has no hardware")
