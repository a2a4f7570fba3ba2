"""Trains a small network on scikit-learn's digits, forward and backward in integers by the array.

    python examples/digits.py                              # numpy: accuracy beside float32, several seeds, a picture
    python examples/digits.py --backend rtl --epochs 1 --seeds 1 --check    # the simulated array, against numpy

Needs `pip install 'pullback[examples]'`, and for ``rtl`` a C++ compiler.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import pullback
from pullback.products import GoldenProducts, Products, RtlProducts

BATCH = 32
RATE, MOMENTUM = 0.05, 0.9

DATA = {
    "digits": "1797 pictures of 8 x 8, ten digits: two convolutions and a matrix",
    "cancer": "569 samples of 30 numbers, two classes: two matrices",
}

console = Console()


def load(name: str) -> tuple[Tensor, Tensor, int]:
    """Samples scaled to [-1, 1], labels, and the number of classes."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise SystemExit("this needs scikit-learn: pip install 'pullback[examples]'") from error
    if name == "digits":
        bunch: Any = datasets.load_digits()
        return torch.tensor(bunch.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(bunch.target), 10
    bunch = datasets.load_breast_cancer()
    scaled = (bunch.data - bunch.data.mean(0)) / (3 * bunch.data.std(0))
    return torch.tensor(np.clip(scaled, -1, 1), dtype=torch.float32), torch.tensor(bunch.target), 2


def network(name: str, seed: int) -> nn.Sequential:
    """The same network for float32 and the array, with the same first weights."""
    torch.manual_seed(seed)
    if name == "digits":
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 4 * 4, 10),
        )  # fmt: skip
    return nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 2))


def train(
    models: list[nn.Sequential], data: tuple[Tensor, Tensor], seed: int, epochs: int, step: Any = lambda: None
) -> list[list[float]]:
    """Accuracy on held-out samples after every epoch, of each model; all see the same batches in the same order.

    With several models their parameters are compared after every step.
    """
    samples, labels = data
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator)
    held_out, training = order[: len(order) // 5], order[len(order) // 5 :]
    optimisers = [torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM) for model in models]
    curves: list[list[float]] = [[] for _ in models]
    for _ in range(epochs):
        shuffled = training[torch.randperm(len(training), generator=generator)]
        for batch in shuffled.split(BATCH):
            for model, optimiser in zip(models, optimisers, strict=True):
                model.train()
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(samples[batch]), labels[batch]).backward()
                optimiser.step()
            for model in models[1:]:
                for (name, one), other in zip(models[0].named_parameters(), model.parameters(), strict=True):
                    if not torch.equal(one, other):
                        raise SystemExit(f"{name} differs between the backends")
            step()
        for model, curve in zip(models, curves, strict=True):
            model.eval()
            with torch.no_grad():
                right = model(samples[held_out]).argmax(1) == labels[held_out]
            curve.append(right.float().mean().item())
    return curves


def draw(found: dict[str, list[list[float]]], path: Path, title: str) -> None:
    """Learning curves: every seed thin, their mean thick."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot()
    for (name, curves), colour in zip(found.items(), ("tab:gray", "tab:orange"), strict=True):
        epochs = np.arange(1, len(curves[0]) + 1)
        for curve in curves:
            axes.plot(epochs, 100 * np.array(curve), color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(
            epochs,
            100 * np.mean(curves, axis=0),
            color=colour,
            linewidth=2,
            label=f"{name}, mean of {len(curves)}",
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on held-out samples, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main(
    data: Annotated[str, typer.Option(help="; ".join(f"{k}: {v}" for k, v in DATA.items()))] = "digits",
    backend: Annotated[str, typer.Option(help="golden (numpy) or rtl (the simulated array)")] = "golden",
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seeds: Annotated[int, typer.Option(min=1, help="trainings, with seeds 0, 1 ..")] = 5,
    check: Annotated[
        bool, typer.Option(help="train in numpy beside it and compare every weight after every step")
    ] = False,
    out: Annotated[Path, typer.Option(help="folder for curves.png and result.json")] = Path("out/digits"),
) -> None:
    """Trains a network in integers by the array and in float32, and compares their accuracy."""
    if data not in DATA:
        raise typer.BadParameter(f"{data!r} is unknown; choose {' or '.join(DATA)}")
    if backend not in ("golden", "rtl"):
        raise typer.BadParameter(f"{backend!r} is unknown; choose golden or rtl")
    samples, labels, _ = load(data)
    found: dict[str, list[list[float]]] = {"float32": [], f"8-bit integers ({backend})": []}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    steps = epochs * -(-(len(samples) - len(samples) // 5) // BATCH)
    seconds, cycles, macs = 0.0, 0, 0
    with Progress(*columns, console=console) as progress:
        products: Products = GoldenProducts() if backend == "golden" else RtlProducts()
        if isinstance(products, RtlProducts):
            task = progress.add_task("building the model", total=None)
            products.prepare()
            progress.remove_task(task)
        for seed in range(seeds):
            task = progress.add_task(f"seed {seed}", total=steps)
            found["float32"] += train([network(data, seed)], (samples, labels), seed, epochs)
            models = [pullback.convert(network(data, seed), backend=products)]
            if check:
                models.append(pullback.convert(network(data, seed), backend=GoldenProducts()))
            begin = time.perf_counter()
            found[f"8-bit integers ({backend})"].append(
                train(models, (samples, labels), seed, epochs, lambda task=task: progress.advance(task))[0]
            )
            seconds += time.perf_counter() - begin
    if isinstance(products, RtlProducts):
        cycles, macs = products.cycles, products.macs
    last = {name: [curve[-1] for curve in curves] for name, curves in found.items()}
    for name, values in last.items():
        console.print(
            f"{name}: {100 * np.mean(values):.2f} % ({', '.join(f'{100 * v:.2f}' for v in values)})"
        )
    float32, integers = (float(np.mean(values)) for values in last.values())
    console.print(f"difference of the means: {100 * (integers - float32):+.2f} %")
    console.print(
        f"{seconds / (steps * seeds):.4f} s a step"
        + (", every weight equal after every step" if check else "")
    )
    if cycles:
        console.print(
            f"{macs / 1e6:.1f} M products in {cycles / 1e6:.2f} M clocks, {macs / seconds / 1e6:.3f} M a second"
        )
    out.mkdir(parents=True, exist_ok=True)
    draw(found, out / "curves.png", f"{data}: {DATA[data].split(': ')[1]}")
    result = {
        "data": data, "backend": backend, "epochs": epochs, "seeds": seeds, "accuracy": found,
        "seconds_a_step": seconds / (steps * seeds), "cycles": cycles, "macs": macs, "checked": check,
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"{out / 'curves.png'} and {out / 'result.json'}")


if __name__ == "__main__":
    typer.run(main)
