"""Stages, the units that compute them and pull them back, and the cores made of units."""

from .build import Build
from .core import Core, ForwardCore, VJPCore
from .pipeline import Pipeline
from .stage import Stage, StageGraph

__all__ = ["Build", "Core", "ForwardCore", "Pipeline", "Stage", "StageGraph", "VJPCore"]
