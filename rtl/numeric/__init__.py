"""Formats, cuts and multipliers: the numeric contract in hardware."""

from .format import SQ, UQ, Format

__all__ = ["SQ", "UQ", "Format"]
