"""Stages, the units that compute them and pull them back, and the cores made of units."""

from .build import Build
from .pipeline import Pipeline
from .stage import Stage, StageGraph

__all__ = ["Build", "Pipeline", "Stage", "StageGraph"]
