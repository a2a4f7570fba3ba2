"""What synthesis is told about a RAM."""

from __future__ import annotations

from typing import Any

__all__ = ["BLOCK", "DISTRIBUTED", "NEVER_MEETS"]

BLOCK: dict[str, Any] = {"ram_style": "block"}
"""Block RAM, however few rows there are."""

DISTRIBUTED: dict[str, Any] = {"ram_style": "distributed"}
"""Look-up tables as RAM, whose output register is an ordinary one: a block RAM's is slow."""

NEVER_MEETS: dict[str, Any] = {"no_rw_check": True}
"""No row that is being written is read in the same clock by anyone who looks at what he reads.

Synthesis otherwise builds what a block RAM does not do, the old word of such a row: a comparator, a copy of
the word, and a multiplexer behind the RAM's outputs, which are slow already.
"""
