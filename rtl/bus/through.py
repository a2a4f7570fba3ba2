"""Ports of a part that are ports of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["through"]


def through(
    m: Module,
    whole: Any,
    part: Any,
    members: Mapping[str, wiring.Member],
    *,
    renamed: tuple[str, str] = ("", ""),
) -> None:
    """Wires members of ``part`` to those of ``whole``, named with the second prefix of ``renamed`` for the first."""
    inside, outside = renamed
    for name, member in members.items():
        inner, outer = getattr(part, name), getattr(whole, outside + name.removeprefix(inside))
        m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
