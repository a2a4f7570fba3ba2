"""The stages of the ISP, RAW to picture, and the pipeline made of them."""

from .black_level import BlackLevel
from .ccm import CCM
from .demosaic import Bilinear, FilterBank, HamiltonAdamsChroma, HamiltonAdamsGreen
from .pipeline import isp
from .tone_curve import ToneCurve
from .white_balance import WhiteBalance

__all__ = [
    "CCM", "Bilinear", "BlackLevel", "FilterBank", "HamiltonAdamsChroma", "HamiltonAdamsGreen", "ToneCurve",
    "WhiteBalance", "isp",
]  # fmt: skip
