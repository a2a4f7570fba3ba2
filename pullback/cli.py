"""The command line: ``pullback tune | generate | generate-array | simulate | info | bench``.

Errors are one sentence on stderr. Exit codes: 0 done, 1 something outside failed (a tool is missing, a disk is
full), 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pullback import __version__, files
from pullback.backend import BACKENDS, Backend, Frame, GoldenBackend, Pipeline, psnr
from pullback.config import Config, PipelineConfig, read
from pullback.errors import UsageError
from pullback.raw import Raw, load

__all__ = ["app", "main"]

app = typer.Typer(
    name="pullback",
    help="Differentiable hardware: fixed-point units that compute y = f(x, theta) and their own pullback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
if not console.is_terminal:
    console = Console(width=160)  # a table in a file or a pipe need not be folded

INTERRUPTED = "stopped; earlier results are whole"

# Options that several commands share.
RawPath = Annotated[
    Path, typer.Argument(help="DNG, NEF, CR2, ARW, ...; or the mosaic as a 16-bit PNG or TIFF.")
]
CfaOption = Annotated[str | None, typer.Option(help="CFA order of a mosaic: RGGB, GRBG, GBRG or BGGR.")]
BlackOption = Annotated[float | None, typer.Option(help="Black level, in the file's own units.")]
WhiteOption = Annotated[float | None, typer.Option(help="White level, in the file's own units.")]
CropOption = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT+X+Y, all even.")]
ConfigOption = Annotated[Path | None, typer.Option(help="TOML file such as tuned.toml.")]
DemosaicOption = Annotated[str | None, typer.Option(help="bilinear, hamilton_adams or filter_bank.")]
CurveOption = Annotated[str | None, typer.Option(help="shared or per_channel tone curve.")]
BorderOption = Annotated[str | None, typer.Option(help="mirror, replicate or zero.")]
LanesOption = Annotated[int | None, typer.Option(help="Pixels per clock: 1, 2 or 4.")]
MaxWidthOption = Annotated[int | None, typer.Option(help="Line buffers are built for this width.")]
BackendOption = Annotated[str, typer.Option(help="rtl: simulated hardware. golden: numpy, the same bits.")]
OutOption = Annotated[Path, typer.Option(help="Directory for the results.")]


class _StoppedError(Exception):
    """Ctrl-C ended the work early, in good order."""


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Differentiable hardware."""
    if version:
        print(f"pullback {__version__}")
        raise typer.Exit()


@app.command()
def tune(
    raw: RawPath,
    target: Annotated[
        Path | None, typer.Option(help="RGB picture to aim at [default: LibRaw's rendition].")
    ] = None,
    backend: BackendOption = "rtl",
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 240,
    out: OutOption = Path("out/tune"),
    cfa: CfaOption = None,
    black: BlackOption = None,
    white: WhiteOption = None,
    crop: CropOption = None,
    config: ConfigOption = None,
    demosaic: DemosaicOption = None,
    curve: CurveOption = None,
    border: BorderOption = None,
    lanes: LanesOption = None,
    max_width: MaxWidthOption = None,
    seed: Annotated[int, typer.Option(help="Where patches lie, if the frame is too large for one step.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the state in the output directory.")
    ] = False,
) -> None:
    """Tune a camera pipeline on a RAW frame with gradients out of the hardware itself."""
    from pullback.job import tune_frame
    from pullback.tune import Fit, Measure, Settings

    if seed < 0:
        raise UsageError(f"seed {seed} is negative; give 0 or more")
    settings = Settings(steps=steps, seed=seed)
    configuration = _configuration(config, demosaic, curve, border, lanes, max_width)
    frame = _load(raw, configuration, target=target, cfa=cfa, black=black, white=white, crop=crop)
    if config is None and max_width is None:
        configuration = _fitted(configuration, frame)
    for note in frame.notes:
        console.print(note, style="dim", highlight=False)
    unit = _open(backend, configuration.pipeline)
    columns = (
        TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    quiet = not console.is_terminal
    with Progress(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task("", total=settings.steps, figures="")

        def show(state: Fit, measure: Measure) -> None:
            held = state.held_out[-1][1] if state.held_out else float("nan")
            figures = f"loss {measure.loss:.6f}  PSNR {measure.psnr:.2f} dB  held out {held:.2f} dB"
            bar.update(task, completed=state.step, figures=figures)
            if quiet and (state.step % settings.every == 0 or state.step == settings.steps):
                print(f"step {state.step}/{settings.steps}  {figures}", flush=True)

        outcome = tune_frame(
            frame, unit, configuration, out, settings, title=raw.name, resume=resume, progress=show
        )
    table = Table("held-out part against the target", "PSNR", box=None, header_style="dim")
    table.add_row("neutral start" if not configuration.parameters else "start", f"{outcome.start:.2f} dB")
    table.add_row("tuned", f"[bold]{outcome.tuned:.2f} dB[/bold]")
    console.print(table)
    print(f"{outcome.steps} steps with gradients from {unit.name} in {outcome.seconds:.1f} s")
    print(f"Parameters: {out / 'tuned.toml'}")
    print(f"Report:     {out / 'report.html'}")
    if outcome.stopped and outcome.steps < settings.steps:
        raise _StoppedError(f"stopped at step {outcome.steps}; the best so far is kept, go on with --resume")


@app.command()
def generate(
    out: OutOption = Path("out/verilog"),
    config: ConfigOption = None,
    demosaic: DemosaicOption = None,
    curve: CurveOption = None,
    border: BorderOption = None,
    lanes: LanesOption = None,
    max_width: MaxWidthOption = None,
    max_height: Annotated[int | None, typer.Option(help="Accumulators are built for this height.")] = None,
    core: Annotated[str, typer.Option(help="vjp: forward and pullback. forward: the picture only.")] = "vjp",
    family: Annotated[str, typer.Option(help="Whose multipliers: generic or ecp5.")] = "generic",
    name: Annotated[str, typer.Option(help="Name of the top module and of the files.")] = "isp",
) -> None:
    """Write a core's Verilog, its simulation copy, its register map and a description of its ports."""
    from pullback.generate import core_description, documents
    from pullback.rtl.isp.pipeline import isp
    from pullback.rtl.pipeline.build import Build
    from pullback.rtl.pipeline.core import ForwardCore, VJPCore

    configuration = _configuration(config, demosaic, curve, border, lanes, max_width, max_height)
    choice = configuration.pipeline
    if core not in ("vjp", "forward"):
        raise UsageError(f"core {core!r} is unknown; give vjp or forward")
    _check_name(name)
    theta = configuration.theta(GoldenBackend(choice).pipeline)
    chain = isp(choice.demosaic, curve=choice.curve, name=name)
    try:
        build = Build(
            lanes=choice.lanes, max_width=choice.max_width, max_height=choice.max_height, border=choice.border,
            family=family,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    top = VJPCore(chain, build) if core == "vjp" else ForwardCore(chain, build)
    described = core_description(top, name)
    described["parameters"] = {key: [int(code) for code in codes] for key, codes in theta.items()}
    _written(out, documents(top, name, described))


@app.command()
def generate_array(
    out: OutOption = Path("out/array"),
    rows: Annotated[int | None, typer.Option(help="Rows of elements: 12, or all that the part has.")] = None,
    columns: Annotated[int | None, typer.Option(help="Columns: 13, or all that the part has.")] = None,
    operand: Annotated[int, typer.Option(help="Bits of an operand.")] = 8,
    accumulator: Annotated[int, typer.Option(help="Bits of a sum inside the mesh.")] = 24,
    total: Annotated[int, typer.Option(help="Bits of a partial sum.")] = 32,
    packed: Annotated[bool, typer.Option("--packed", help="Two columns share a multiplier.")] = False,
    memory: Annotated[int, typer.Option(help="Rows of each of the three operand memories.")] = 1024,
    sums: Annotated[int, typer.Option(help="Rows of partial sums.")] = 512,
    masks: Annotated[int, typer.Option(help="Rows of branches of activations.")] = 1024,
    programme: Annotated[int, typer.Option(help="Words for descriptors.")] = 512,
    part: Annotated[
        str | None, typer.Option(help="25k, 45k or 85k: every multiplier of this ECP5, each in its place.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Whose multipliers, without a part: generic, ecp5, ...")
    ] = None,
    core: Annotated[
        str, typer.Option(help="core: AXI streams. system: an AXI4 port to a memory too.")
    ] = "core",
    longest: Annotated[int, typer.Option(help="Beats of a burst of the system's memory at most.")] = 16,
    name: Annotated[str, typer.Option(help="Name of the top module and of the files.")] = "array",
) -> None:
    """Write an array's Verilog, its simulation copy, its register map, and its ports and descriptors for programs."""
    from pullback.generate import array, array_description, documents

    _check_name(name)
    if core not in ("core", "system"):
        raise UsageError(f"core {core!r} is unknown; give core or system")
    if part is not None and family is not None:
        raise UsageError(f"part {part!r} says whose multipliers; leave out family {family!r}")
    given = {"rows": rows, "columns": columns, "operand": operand, "accumulator": accumulator}
    around = {"total": total, "memory": memory, "sums": sums, "masks": masks, "programme": programme}
    try:
        top = array(
            given, around, name=name, packed=packed, part=part, family=family or "generic",
            longest=longest if core == "system" else None,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    _written(out, documents(top, name, array_description(top, name)))


@app.command()
def simulate(
    raw: RawPath,
    backend: BackendOption = "rtl",
    out: OutOption = Path("out/simulate"),
    cfa: CfaOption = None,
    black: BlackOption = None,
    white: WhiteOption = None,
    crop: CropOption = None,
    config: ConfigOption = None,
    demosaic: DemosaicOption = None,
    curve: CurveOption = None,
    border: BorderOption = None,
    lanes: LanesOption = None,
    max_width: MaxWidthOption = None,
) -> None:
    """Run a RAW frame through the core, forward and pullback, and compare every bit with the golden model."""
    import numpy as np

    from pullback.report import eight_bit, png
    from pullback.tune import neutral

    configuration = _configuration(config, demosaic, curve, border, lanes, max_width)
    frame = _load(raw, configuration, target=None, cfa=cfa, black=black, white=white, crop=crop)
    if max_width is None and (config is None or configuration.pipeline.max_width < frame.width):
        configuration = _replaced(
            configuration, max_width=max(64, frame.width), max_height=max(4096, frame.height)
        )
    unit, golden = _open(backend, configuration.pipeline), GoldenBackend(configuration.pipeline)
    theta = configuration.theta(unit.pipeline) if configuration.parameters else neutral(unit.pipeline, frame)
    target = np.ascontiguousarray(np.moveaxis(frame.target, -1, 0))
    found = unit.vjp(frame.codes, theta, Frame(cfa=frame.cfa), target=target)
    wanted = golden.vjp(frame.codes, theta, Frame(cfa=frame.cfa), target=target)
    pairs = {
        "picture": (found.y, wanted.y),
        "input gradient": (found.xbar, wanted.xbar),
        **{f"gradient of {key}": (found.thetabar[key], value) for key, value in wanted.thetabar.items()},
        "loss": (np.array(found.loss), np.array(wanted.loss)),
    }
    table = Table("", "words", "differ from golden", box=None, header_style="dim")
    for label, (a, b) in pairs.items():
        table.add_row(label, f"{a.size:,}", f"{int((a != b).sum()):,}")
    console.print(table)
    _directory(out)
    files.write(out / "picture.png", png(eight_bit(np.moveaxis(found.y, 0, -1))))
    error = found.y - target
    print(f"PSNR against {frame.target_name}: {psnr(int((error * error).sum()), error.size):.2f} dB")
    if found.cycles:
        print(
            f"{found.cycles:,} cycles for {frame.codes.size:,} pixels, forward and pullback, first to last beat"
        )
    print(f"Picture: {out / 'picture.png'}")
    if any((a != b).any() for a, b in pairs.values()):
        print("pullback: the backend and the golden model differ; please report this", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def info(
    config: ConfigOption = None,
    demosaic: DemosaicOption = None,
    curve: CurveOption = None,
    border: BorderOption = None,
    lanes: LanesOption = None,
    max_width: MaxWidthOption = None,
) -> None:
    """Show a pipeline: stages, formats, widths, and the memory of its tape."""
    from pullback.rtl.isp.pipeline import isp
    from pullback.rtl.pipeline.build import Build
    from pullback.rtl.pipeline.core import VJPCore

    choice = _configuration(config, demosaic, curve, border, lanes, max_width).pipeline
    pipeline = GoldenBackend(choice).pipeline
    console.print(_stages_table(pipeline, choice.max_width))
    core = VJPCore(
        isp(choice.demosaic, curve=choice.curve),
        Build(
            lanes=choice.lanes, max_width=choice.max_width, max_height=choice.max_height, border=choice.border
        ),
    )
    memory = core.memory()
    parts = ", ".join(f"{part} {bits / 1e6:.3f}" for part, bits in memory.items())
    print(
        f"Line buffers and tapes at {choice.max_width} wide, {choice.lanes} pixel(s) per clock, in Mbit: {parts}; "
        f"together {sum(memory.values()) / 1e6:.3f}"
    )
    print(
        f"{len(pipeline.words(pipeline.defaults()))} parameters; a stored tape of a 1920x1080 frame would take "
        f"{sum(f.width for s in pipeline.stages for f in s.i.values()) * 1920 * 1080 / 1e6:.0f} Mbit"
    )


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which: cycles, throughput, synthesis [default: all].")
    ] = None,
) -> None:
    """Run the measurements of the repository's bench/ folder; figures go to out/bench."""
    folder = Path(__file__).resolve().parent.parent / "bench"
    scripts = {
        path.stem: path for path in sorted(folder.glob("*.py")) if path.stem not in ("__init__", "table")
    }
    if not scripts:
        raise UsageError(
            f"{folder} holds no benchmarks; they are part of the repository, so run this in a clone"
        )
    for name in names or scripts:
        if name not in scripts:
            raise UsageError(f"benchmark {name!r} is unknown; give one of {', '.join(scripts)}")
    for name in names or scripts:
        code = subprocess.run([sys.executable, str(scripts[name])], check=False).returncode
        if code:
            raise typer.Exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        # Typer makes an exit code of Ctrl-C before it can be caught here.
        return _say(INTERRUPTED, 130) if code == 130 else code if isinstance(code, int) else 0
    except _StoppedError as error:
        return _say(error, 130)
    except UsageError as error:
        return _say(error, 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say(INTERRUPTED, 130)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _say(
            f"cannot use{where}: {error.strerror or error}; earlier results are whole, so mend this and "
            "try again, or give another --out",
            1,
        )
    except RuntimeError as error:
        from pullback.sim.toolchain import ToolMissing
        from pullback.sim.verilated import BuildFailed

        if isinstance(error, typer.Exit):
            return error.exit_code
        if not isinstance(error, BuildFailed | ToolMissing):
            raise
        return _say(f"{error}; or use --backend golden, which needs neither simulator nor compiler", 1)
    except Exception as error:
        # Typer's own usage errors: their class moved between versions, their shape did not.
        if getattr(error, "exit_code", None) != 2 or not hasattr(error, "format_message"):
            raise
        return _say(
            " ".join(error.format_message().split()) or "give a command; pullback --help lists them", 2
        )


def _say(message: object, code: int) -> int:
    print(f"pullback: {message}", file=sys.stderr)
    return code


def _open(name: str, choice: PipelineConfig) -> Backend:
    """A backend, built before the clock of the work starts, with progress while that takes long."""
    if name == "golden":
        return GoldenBackend(choice)
    if name != "rtl":
        raise UsageError(f"backend {name!r} is unknown; give one of {', '.join(BACKENDS)}")
    from pullback.simulated import RtlBackend

    with console.status("building the core") as status:
        unit = RtlBackend(
            choice, progress=lambda fraction, message: status.update(f"building the core: {message}")
        )
        unit.prepare()
    return unit


def _configuration(
    path: Path | None,
    demosaic: str | None,
    curve: str | None,
    border: str | None,
    lanes: int | None,
    max_width: int | None,
    max_height: int | None = None,
) -> Config:
    """The file, with the options that were given on top."""
    given = {
        "demosaic": demosaic, "curve": curve, "border": border, "lanes": lanes, "max_width": max_width,
        "max_height": max_height,
    }  # fmt: skip
    base = read(path) if path is not None else Config()
    return _replaced(base, **{key: value for key, value in given.items() if value is not None})


def _replaced(config: Config, **options: object) -> Config:
    return config.model_copy(
        update={"pipeline": PipelineConfig.checked(**config.pipeline.model_dump() | options)}
    )


def _load(raw: Path, config: Config, *, target: Path | None, cfa, black, white, crop) -> Raw:
    """The frame; what the options leave open about a mosaic comes from the configuration."""
    if config.frame is not None and raw.suffix.lower() in (".png", ".tif", ".tiff"):
        cfa = cfa or config.frame.cfa
        black = config.frame.black[0] if black is None else black
        white = config.frame.white if white is None else white
    return load(raw, cfa=cfa, black=black, white=white, target=target, crop=crop)


def _fitted(config: Config, frame: Raw) -> Config:
    """A core as narrow as the frame allows: it builds and simulates faster. Wide frames are tuned in patches."""
    return _replaced(config, max_width=next(w for w in (64, 128, 256, 512) if w >= min(frame.width, 512)))


def _check_name(name: str) -> None:
    if not name.isidentifier() or not name.isascii():
        raise UsageError(f"name {name!r} is no Verilog identifier; use letters, digits and underscores")


def _written(out: Path, documents: dict[str, str]) -> None:
    _directory(out)
    for file, content in documents.items():
        files.write(out / file, content)
        print(out / file)


def _directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{out} is not a directory; give --out a directory") from error


def _stages_table(pipeline: Pipeline, width: int) -> Table:
    table = Table(
        "stage",
        "in",
        "out",
        "cotangent at its input",
        "radius",
        "parameters",
        "tape, pixels",
        box=None,
        header_style="dim",
    )
    tape = pipeline.tape_pixels(width)
    for stage in pipeline.stages:
        parameters = ", ".join(f"{p.name} {p.entries} x {p.format}" for p in stage.parameters)
        i, o = (f"{' '.join(side)}: {next(iter(side.values()))}" for side in (stage.i, stage.o))
        table.add_row(
            stage.name,
            i,
            o,
            str(stage.cotangent_i),
            str(stage.radius),
            parameters or "-",
            str(tape[stage.name]),
        )
    return table
