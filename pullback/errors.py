"""The one exception a person meets: what was wrong, where, and what would be right, in one sentence."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """Bad input. The message names the value and the remedy; the command line prints it and exits with 2."""
