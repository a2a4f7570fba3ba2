"""Verilog of cores, generated once: elaborating a large core takes longer than anything that reads its Verilog."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pullback.gen.verilog
import pullback.rtl
from pullback.sim.cache import digest, once

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

__all__ = ["generated"]


@cache
def _sources() -> str:
    """Everything that a core's Verilog can depend on besides what is asked for."""
    files = [*sorted(Path(pullback.rtl.__file__).parent.rglob("*.py")), Path(pullback.gen.verilog.__file__)]
    return "".join(f"{file.name}\n{file.read_text()}" for file in files) + version("amaranth")


def generated(
    configuration: str, make: Callable[[], Component], *, flat: bool = False
) -> tuple[dict[str, str], dict[str, tuple[str, int]]]:
    """Sources and ports of a core for simulation, from the cache if it was generated before.

    Parameters
    ----------
    configuration : str
        Says all that ``make`` depends on, apart from the sources of :mod:`pullback.rtl`. Stages that are
        defined elsewhere must not be cached: call :func:`pullback.gen.verilog.simulation_verilog` for them.
    make : callable
        Gives the core; not called if it is in the cache.
    flat : bool
        One optimised module, as :func:`pullback.gen.verilog.simulation_verilog` makes it.

    Returns
    -------
    File name -> Verilog text, and port name -> (direction, width).
    """

    def fill(folder: Path) -> None:
        core = make()
        (folder / "core.sv").write_text(pullback.gen.verilog.simulation_verilog(core, flat=flat))
        described = {name: (p.direction, p.width) for name, p in pullback.gen.verilog.ports(core).items()}
        (folder / "ports.json").write_text(json.dumps(described))

    folder = once(digest("verilog", configuration, str(flat), _sources()), fill)
    ports = {name: tuple(port) for name, port in json.loads((folder / "ports.json").read_text()).items()}
    return {"core.sv": (folder / "core.sv").read_text()}, ports
