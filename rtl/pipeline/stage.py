"""A stage: one kernel with its formats and parameters, and the graphs that are made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ..kernel import Node, Parameter, Site, Taps, Theta, clips, cut, jvp, total, trace, vjp, where
from ..kernel.differentiate import Pullback, Pushforward
from ..kernel.primitives import ClipMode
from ..kernel.primitives.cut import Saturate
from ..kernel.primitives.source import Entry, Tap
from ..kernel.trace import bypass_flag
from ..numeric import SQ, Format
from ..stream.pixel import Pixel

__all__ = ["Stage", "StageGraph"]


class StageGraph:
    """A stage's traced kernel, with bypass and final cut.

    Members
    -------
    graph : Graph
    outputs : dict of str to Node
        Codes of the output channels, cut to the stage's output formats.
    saturated : Node or None
        How many cuts of this pixel clipped; None if none can.
    """

    def __init__(self, stage: Stage) -> None:
        kernel = trace(stage.kernel, channels=dict(stage.i.channels), parameters=stage.parameters,
                       radius=stage.radius)  # fmt: skip
        if tuple(kernel.outputs) != stage.o.names:
            raise ValueError(
                f"the kernel of {stage.name} returned channels {', '.join(kernel.outputs)}; its output is declared "
                f"with {', '.join(stage.o.names)}, in this order"
            )
        self.stage, self.graph = stage, kernel.graph
        flag = bypass_flag(self.graph)
        passed = stage.bypass(Taps(self.graph, dict(stage.i.channels), stage.radius))
        self.outputs: dict[str, Node] = {}
        for channel, form in stage.o.channels:
            value = where(flag, passed[channel], kernel.outputs[channel])
            self.outputs[channel] = cut(value, form, stage.clip_mode).named(channel)
        flags = [
            clips(node.arguments[0], node.primitive.format)
            for node in self.graph.live(list(self.outputs.values()))
            if isinstance(node.primitive, Saturate)
        ]
        self.saturated = total(flags) if flags else None

    def pullback(self, cotangents: Mapping[str, Format]) -> Pullback:
        """Cotangents of taps and parameters, exact, given the formats of the outputs' cotangents."""
        return vjp(self.graph, self.outputs, cotangents)

    def pushforward(self, format: Format) -> Pushforward:
        """Tangents of the outputs, exact, along the taps and the parameters."""
        return jvp(self.graph, self.outputs, format, along={Tap, Entry})


class Stage:
    """``y = cut(kernel(x, theta, site))``: what every stage declares, and nothing else.

    Subclasses give the class attributes and :meth:`kernel`.

    Members
    -------
    i, o : Pixel
        Channels and formats of input and output.
    radius : int
        Taps reach this many pixels in every direction; 0 is pointwise.
    parameters : mapping of str to Parameter
        In the order of their words. Tables come last.
    cotangent : Format
        In which the cotangent leaves the stage at its input, every channel alike.
    clip_mode : str
        Derivative of the final cut where it saturates.
    """

    i: ClassVar[Pixel]
    o: ClassVar[Pixel]
    radius: ClassVar[int] = 0
    parameters: Mapping[str, Parameter] = {}
    cotangent: ClassVar[Format] = SQ(4, 14)
    clip_mode: ClassVar[ClipMode] = "disconnected"

    @property
    def name(self) -> str:
        """The class's name in lower case with underscores: the stage's name in registers and files."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        """The exact value of each output channel, before the final cut."""
        raise TypeError(f"{type(self).__name__} defines no kernel(x, theta, site)")

    def bypass(self, x: Taps) -> dict[str, Node]:
        """What the output is while the stage is bypassed: by default the input, channel by channel."""
        if self.i.names != self.o.names:
            raise TypeError(f"{type(self).__name__} changes its channels, so it must define bypass(x)")
        return {channel: x[channel] for channel in self.i.names}

    def trace(self) -> StageGraph:
        """The kernel as a graph."""
        return StageGraph(self)
