"""The five-stage ISP as a pipeline: RAW to picture."""

from __future__ import annotations

from ..pipeline.pipeline import Pipeline
from .black_level import BlackLevel
from .ccm import CCM
from .demosaic import Bilinear, FilterBank, HamiltonAdamsChroma, HamiltonAdamsGreen
from .tone_curve import ToneCurve
from .white_balance import WhiteBalance

__all__ = ["CURVES", "DEMOSAICS", "isp"]

DEMOSAICS = {
    "bilinear": (Bilinear,),
    "hamilton_adams": (HamiltonAdamsGreen, HamiltonAdamsChroma),
    "filter_bank": (FilterBank,),
}
"""Demosaickers by name, each one stage or two."""

CURVES = ("shared", "per_channel")
"""One tone curve for all channels, or one each."""


def isp(demosaic: str = "filter_bank", *, curve: str = "shared", name: str = "isp") -> Pipeline:
    """Black level, white balance, demosaic, CCM, tone curve.

    Raises
    ------
    ValueError
        If a name is none of :data:`DEMOSAICS` or :data:`CURVES`.
    """
    if demosaic not in DEMOSAICS:
        raise ValueError(f"demosaic {demosaic!r}; choose one of {', '.join(DEMOSAICS)}")
    if curve not in CURVES:
        raise ValueError(f"curve {curve!r}; choose one of {', '.join(CURVES)}")
    middle = [stage() for stage in DEMOSAICS[demosaic]]
    return Pipeline(
        [BlackLevel(), WhiteBalance(), *middle, CCM(), ToneCurve(per_channel=curve == "per_channel")],
        name=name,
    )
