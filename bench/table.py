"""Makes docs/figures.md out of the results in out/bench.

    python bench/table.py

A figure that was not measured has no row; nothing is filled in by hand. The results go into docs/figures, where
``bench/synthesis.py`` takes them up again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

HEAD = """# Figures

Written by `bench/table.py` from what `make bench` measured; do not edit.
"""

# What the best open designs reach with the same tools and part, each block alone: (block, COMB, Fmax, whose).
PEERS = {
    "forward.black_level": "292, 172 (revela)",
    "forward.white_balance": "70, 118 (Infinite-ISP)",
    "forward.hamilton_adams_green": "1342, 91.8 (revela)",
    "forward.hamilton_adams_chroma": "1119, 92.3 (revela)",
    "forward.filter_bank": "1441, 104.7 (Infinite-ISP, fixed coefficients)",
    "forward.ccm": "324, 137 (Infinite-ISP)",
    "forward.tone_curve": "4854, 118 (revela, 33 knots)",
    "forward_core.hamilton_adams": "7790, 85.9 (revela)",
}


def rows(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body)) + "\n"


def _aim(aim: dict[str, Any]) -> str:
    placer = "" if aim["placer"] == "static" else f" {aim['placer']}"
    return f"{aim['frequency']:g}" + ("!" if aim["insist"] else "") + placer


AREA = ["LUT4", "COMB", "FF", "DPR", "EBR", "MULT", "aim", "MHz", "range", "seeds"]


def measured(results: dict[str, dict[str, Any]], *, last: dict[str, str] | None = None) -> str:
    """Area and clock of some targets, and what limits each; ``last``: of a last column, by name."""
    body, limits = [], []
    for name, entry in results.items():
        area, clocks = entry["area"], [route["fmax"] for route in entry["routes"]]
        body.append(
            [
                f"`{name}`",
                *(str(area[key]) for key in ("lut4", "comb", "ff", "dpr16x4", "ebr", "mult")),
                _aim(entry["aim"]),
                f"**{entry['fmax']:.1f}**",
                f"{min(clocks):.1f}–{max(clocks):.1f}",
                str(len(clocks)),
                *([] if last is None else [last.get(name, "")]),
            ]
        )
        limits.append([f"`{name}`", entry["path"]])
    header = ["", *AREA, *([] if last is None else ["peer: COMB, MHz"])]
    return (
        rows(header, body)
        + "\nWhat limits the clock:\n\n"
        + rows(["", "critical path of the median seed"], limits)
    )


def synthesis(content: dict[str, Any]) -> str:
    """Area and clock of stages and cores, and of arrays."""
    build, tools = content["build"], content["tools"]
    done = {name: entry for name, entry in content["results"].items() if "fmax" in entry}
    arrays = {name: entry for name, entry in done.items() if name.startswith(("array.", "unit."))}
    cameras = {name: entry for name, entry in done.items() if name not in arrays}
    flow = (
        f"yosys {tools['yosys']}, nextpnr {tools['nextpnr']}, {content['placement']}. Aim: what placement and routing "
        "aim at, in MHz, with ! where the router insists on it, and the placer where it is not nextpnr's static one. "
        "MHz is the median over the seeds; every component is measured alone in a harness of registers, whose cells "
        "are not counted. COMB is nextpnr's count with carry cells and distributed RAM."
    )
    parts = []
    if cameras:
        (device,) = {entry["device"] for entry in cameras.values()}
        parts.append(
            f"## Area and clock\n\n{device}, {build['max_width']} wide, {build['lanes']} pixel(s) per clock, {flow} A "
            "peer's figures are of the same tools and part, for narrower lines and 10 bits.\n\n"
            + measured(cameras, last=PEERS)
        )
    if arrays:
        devices = ", ".join(sorted({entry["device"] for entry in arrays.values()}))
        parts.append(
            f"## Area and clock of the array\n\n{devices}. With every multiplier of the part: the bare array, and the "
            "unit, which is the array with three operand memories, partial sums, requantisation, pools and its "
            f"programme; {flow}\n\n" + measured(arrays)
        )
    memories = {name: e["memory_bits"] for name, e in cameras.items() if "memory_bits" in e}
    if memories:
        kinds = ("forward", "adjoint", "tape")
        body = [
            [f"`{name}`", *(f"{bits[k] / 1e6:.3f}" if k in bits else "–" for k in kinds)]
            for name, bits in memories.items()
        ]
        header = ["Mbit", "forward line buffers", "adjoint line buffers", "tape"]
        parts.append("## Memory\n\n" + rows(header, body))
    return "\n".join(parts)


def families(content: dict[str, Any]) -> str:
    """The bare array on other chips."""
    body = []
    for entry in content.values():
        clocks = [route["fmax"] for route in entry["routes"].values()]
        multipliers = sum(n for kind, n in entry["cells"].items() if kind.startswith(("SB_MAC16", "MULT")))
        tables = sum(n for kind, n in entry["cells"].items() if "LUT" in kind)
        carries = sum(entry["cells"].get(kind, 0) for kind in ("SB_CARRY", "ALU", "CCU2"))
        registers = sum(
            n for kind, n in entry["cells"].items() if kind.startswith(("SB_DFF", "DFF", "FD1P3"))
        )
        body.append(
            [
                entry["part"],
                f"{entry['rows']}×{entry['columns']}",
                *(str(n) for n in (tables, carries, registers, multipliers)),
                f"{entry['aim']:g}",
                f"**{entry['fmax']:.1f}**",
                f"{min(clocks):.1f}–{max(clocks):.1f}",
                str(len(clocks)),
            ]
        )
    header = ["part", "array", "LUT", "carry", "FF", "multipliers", "aim", "MHz", "range", "seeds"]
    return (
        "## The bare array on other chips\n\nIn the same harness, by nextpnr of each family. Its delays of these parts "
        "were not checked against a data sheet; the Gowin's clock is more than one should expect of the chip.\n\n"
        + rows(header, body)
    )


def cycles(content: list[dict[str, Any]]) -> str:
    """Cycles per frame and latency."""
    body = [
        [
            f"{row['core']}, {row['demosaic']}",
            str(row["lanes"]),
            f"{row['width']}×{row['height']}",
            f"{row['cycles_per_frame']:.0f}",
            f"{row['ideal']:.0f}",
            f"{row['cycles_per_frame'] - row['ideal']:+.0f}",
            str(row["flush"]),
            str(row["latency"]),
            str(row["results_after_frame"]) if row["core"] == "vjp" else "–",
        ]
        for row in content
    ]
    header = [
        "core",
        "P",
        "frame",
        "cycles a frame",
        "W H / P",
        "difference",
        "flush of the last",
        "first in to first out",
        "results after",
    ]
    return (
        f"## Cycles\n\nCounted in simulated RTL, {content[0]['frames']} frames back to back, no stalls. A VJP core's "
        "output is the cotangent of the raw frame; its results were read over AXI4-Lite that many cycles after the "
        "frame's last beat.\n\n" + rows(header, body)
    )


def throughput(content: dict[str, Any], clocks: dict[str, float]) -> str:
    """The callable beside PyTorch, and what the clock would give."""
    labels = {
        "rtl_1": "RTL, simulated, one pixel per clock",
        "rtl_2": "RTL, simulated, two pixels per clock",
        "rtl_4": "RTL, simulated, four pixels per clock",
        "torch_eager": "PyTorch float32, eager",
        "torch_compile": "PyTorch float32, torch.compile",
    }
    body = []
    for demosaic, entry in content["pipelines"].items():
        rates = entry["pixels_per_second"]
        for name, rate in rates.items():
            over = [
                f"{entry['ratio'][rtl][name]:.3f}" for rtl in entry["ratio"] if name in entry["ratio"][rtl]
            ]
            body.append([f"{demosaic}: {labels[name]}", str(rate), ", ".join(over)])
        if demosaic in clocks:
            body.append(
                [
                    f"{demosaic}: the core at its clock, one pixel per cycle",
                    str(round(clocks[demosaic] * 1e6)),
                    f"{clocks[demosaic] * 1e6 / rates['torch_compile']:.1f} × torch.compile",
                ]
            )
    header = ["forward and whole gradient", "pixels/s", "RTL over it, fewest pixels per clock first"]
    return (
        f"## Throughput\n\nOne core of {content['processor']}, torch {content['torch']}, {content['frames']} frames of "
        f"{content['width']}×{content['height']}, side by side in one run.\n\n" + rows(header, body)
    )


def twin(content: dict[str, Any]) -> str:
    """Tuning through codes beside tuning through real numbers."""
    body = []
    for arm, label in (("codes", f"integers ({content['backend']})"), ("real", "float64 twin")):
        result = content[arm]
        body.append(
            [
                label,
                f"{result['training_psnr'][0]:.3f} → {result['training_psnr'][-1]:.3f}",
                f"{result['held_out_psnr_start']:.3f} → {result['held_out_psnr_final']:.3f}",
            ]
        )
    difference = content["difference"]
    body.append(
        ["difference at the end", *(f"{difference[k]:+.4f}" for k in ("training_final", "held_out_final"))]
    )
    return (
        f"## Tuning beside its float64 twin\n\nThe demo's frame ({content['frame']}), {content['steps']} steps, seed "
        f"{content['seed']}, each arm measured in its own model.\n\n"
        + rows(["PSNR, dB", "training", "held out"], body)
    )


# What the best open array says of itself.
ARRAY_PEERS = "OpenGeMM is 81.9 to 99.3 % busy by its own account, forward only."


def utilisation(content: dict[str, Any]) -> str:
    """How busy the array is."""
    body = [
        [
            row["products"].replace("+", ", "),
            f"{row['m']}×{row['k']}×{row['n']}",
            str(row["rows"]),
            str(row["span"]),
            f"{100 * row['busy']:.2f}",
            f"{row['macs_per_clock']:.1f}",
        ]
        for row in content["results"]
    ]
    header = ["products, one programme", "M×K×N", "rows of operands", "clocks", "busy, %", "products a clock"]
    return (
        f"## Utilisation of the array\n\n{content['array']}, with memories, partial sums and requantisation, in "
        "simulated RTL, every result compared with numpy. Clocks are those from the first operand's address at its "
        "memory to the last result written; a row of operands is a clock of the array. Of tiles that are not full the "
        f"rows count as well, so the last column says what is lost by them (most: 156). {ARRAY_PEERS}\n\n"
        + rows(header, body)
    )


def training(content: dict[str, Any]) -> str:
    """Steps of training, simulated and not."""
    names = {"rtl": "RTL, simulated", "golden": "numpy, the same bits", "float32": "PyTorch, float32"}
    body = [
        [
            title,
            f"{1000 * content['seconds_a_step'][name]:.1f}",
            f"{content['products_a_second'][name] / 1e6:.2f}",
        ]
        for name, title in names.items()
    ]
    return (
        "## Training through the array\n\nA network of two convolutions, a max pool and a matrix, batches of "
        f"{content['batch']} pictures of 8×8, forward, backward and a step of gradient descent; side by side in one "
        f"run on one core ({content['processor']}, PyTorch {content['torch']}), every weight of the first two equal "
        f"after every step. The simulated array has {content['array'].replace('x', '×')} elements and takes "
        f"{content['cycles_a_step']} clocks a step for {content['products_a_step']} products, so "
        f"{content['products_a_clock']:.1f} a clock, what loads and leaves included. That a simulation of every clock "
        f"is {content['ratio']['float32']:.0f} times slower than PyTorch says how fast one can train through bit-exact "
        "hardware before there is any, and nothing of the hardware.\n\n"
        + rows(["", "ms a step", "million products a second"], body)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("out/bench"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures.md"))
    options = parser.parse_args()
    read = {}
    for name in ("cycles", "throughput", "twin", "synthesis", "families", "utilisation", "training"):
        path = options.results / f"{name}.json"
        if path.exists():
            read[name] = json.loads(path.read_text())
            kept = options.out.with_suffix("") / path.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)
    if not read:
        print(f"no results in {options.results}; run make bench", file=sys.stderr)
        return 2
    parts = [HEAD]
    if "cycles" in read:
        parts.append(cycles(read["cycles"]))
    if "throughput" in read:
        results = read.get("synthesis", {}).get("results", {})
        cores = {
            name.removeprefix("vjp_core."): e for name, e in results.items() if name.startswith("vjp_core.")
        }
        parts.append(throughput(read["throughput"], {n: e["fmax"] for n, e in cores.items() if "fmax" in e}))
    if "twin" in read:
        parts.append(twin(read["twin"]))
    if "synthesis" in read:
        parts.append(synthesis(read["synthesis"]))
    if "families" in read:
        parts.append(families(read["families"]))
    if "utilisation" in read:
        parts.append(utilisation(read["utilisation"]))
    if "training" in read:
        parts.append(training(read["training"]))
    options.out.write_text("\n".join(parts))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
