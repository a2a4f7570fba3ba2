"""The golden model: every stage's forward, vjp and jvp in exact integers, written by hand from its equation.

``isp()`` makes the default pipeline; ``Golden`` chains stages of your own. Nothing here reads the RTL.
"""

from .cut import CLIP_MODES, Cut, cut
from .pipeline import DEMOSAICS, Golden, Gradient, Picture, Tangent, isp
from .stage import Frame, Parameter, Pullback, Stage

__all__ = [
    "CLIP_MODES",
    "DEMOSAICS",
    "Cut",
    "Frame",
    "Golden",
    "Gradient",
    "Parameter",
    "Picture",
    "Pullback",
    "Stage",
    "Tangent",
    "cut",
    "isp",
]
