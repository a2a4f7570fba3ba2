"""Area and clock of the bare array on an iCE40, a Gowin GW2A and a Lattice Nexus, by yosys and nextpnr of the family.

    python bench/families.py

On the iCE40 with every multiplier of the part, on the others with some of them. Writes ``out/bench/families.json``
after every result; what was measured of another design or by other tools it measures again. Clocks are nextpnr's word:
how well it knows these parts differs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pullback import files
from pullback.gen.families import FAMILIES, place, stamp
from pullback.rtl.systolic.array import SystolicArray
from pullback.rtl.systolic.build import ArrayBuild

ARRAYS = {
    "ice40": (ArrayBuild(rows=2, columns=4, family="ice40"), 50.0),
    "gowin": (ArrayBuild(rows=4, columns=6, family="gowin"), 200.0),
    "nexus": (ArrayBuild(rows=4, columns=7, family="nexus"), 200.0),
}
"""What is built for a family, and the MHz aimed at."""

APART = "*element_*"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", default=list(ARRAYS), help=", ".join(ARRAYS))
    parser.add_argument("--seeds", type=int, default=5, help="placement seeds 1..N (5)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    if unknown := [name for name in options.families if name not in ARRAYS]:
        print(f"{', '.join(unknown)} is unknown; give {', '.join(ARRAYS)}", file=sys.stderr)
        return 2
    path = options.out / "families.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.families:
        build, frequency = ARRAYS[name]
        mark = stamp(SystolicArray(build), name, apart=APART)
        if results.get(name, {}).get("stamp") != mark:
            results[name] = {
                "stamp": mark,
                "part": FAMILIES[name].part,
                "rows": build.rows,
                "columns": build.columns,
                "aim": frequency,
                "routes": {},
            }
        routes = results[name]["routes"]
        for seed in range(1, options.seeds + 1):
            if str(seed) in routes:
                continue
            placed = place(
                SystolicArray(build),
                name,
                seed,
                frequency=frequency,
                directory=options.out / "families" / name,
                apart=APART,
            )
            result = asdict(placed)
            results[name]["cells"] = result.pop("cells")
            routes[str(seed)] = result
            results[name]["fmax"] = statistics.median(each["fmax"] for each in routes.values())
            options.out.mkdir(parents=True, exist_ok=True)
            files.write(path, json.dumps(results, indent=2) + "\n")
            print(f"{name}: seed {seed}: {placed.fmax:.1f} MHz, {placed.path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
