"""Who drives the nets of a netlist: nobody twice."""

from __future__ import annotations

import json
from pathlib import Path

from .flow import SynthesisError

__all__ = ["check_drivers"]


def check_drivers(netlist: Path) -> None:
    """Makes sure that no net of a netlist's top has two drivers: outputs of cells, and input ports.

    What is inside a pad (an ``inout``) is not looked at.

    Parameters
    ----------
    netlist : Path
        As yosys' ``write_json`` writes it.

    Raises
    ------
    SynthesisError
        If a net has two; the message names it and both.
    """
    modules = json.loads(netlist.read_text())["modules"]
    (top,) = (m for m in modules.values() if int(m["attributes"].get("top", "0"), 2))
    driver: dict[int | str, str] = {}

    def drives(bits: list[int | str], who: str) -> None:
        for k, bit in enumerate(bits):
            here = f"{who}[{k}]" if len(bits) > 1 else who
            if bit in driver:
                raise SynthesisError(
                    f"{netlist}: net {_name(top['netnames'], bit)} has two drivers, {driver[bit]} and {here}"
                )
            driver[bit] = here

    for name, port in top["ports"].items():
        if port["direction"] == "input":
            drives(port["bits"], f"port {name}")
    for name, cell in top["cells"].items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                drives(bits, f"{name}.{port}")


def _name(netnames: dict, bit: int | str) -> str:
    """The shortest name of a net, which is the one nearest to the top."""
    names = [
        f"{name}[{net['bits'].index(bit)}]" if len(net["bits"]) > 1 else name
        for name, net in netnames.items()
        if bit in net["bits"]
    ]
    return min(names, key=len, default=str(bit))
