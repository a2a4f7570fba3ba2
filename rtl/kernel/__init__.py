"""The kernel: a stage's arithmetic, written once, read three ways (value, VJP, JVP), made into hardware."""

from .decisions import tape_decisions
from .differentiate import jvp, vjp
from .evaluate import evaluate
from .graph import Graph, Node, substitute
from .lower import Datapath, Load
from .primitives import bit, clips, cut, given, maximum, minimum, segment, select, total, where
from .trace import CFA_COLOURS, Kernel, Parameter, Site, Taps, Theta, trace

__all__ = [
    "CFA_COLOURS", "Datapath", "Graph", "Kernel", "Load", "Node", "Parameter", "Site", "Taps", "Theta", "bit", "clips",
    "cut", "evaluate", "given", "jvp", "maximum", "minimum", "segment", "select", "substitute", "tape_decisions",
    "total", "trace", "vjp", "where",
]  # fmt: skip
