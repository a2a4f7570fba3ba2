"""Configuration files: exact round trips, and one sentence for each mistake."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.backend import describe
from pullback.config import Config, FrameConfig, PipelineConfig, dump, read
from pullback.errors import UsageError


@pytest.mark.parametrize("demosaic", ["bilinear", "hamilton_adams", "filter_bank"])
@pytest.mark.parametrize("curve", ["shared", "per_channel"])
def test_every_code_survives_the_file(tmp_path, demosaic, curve):
    choice = PipelineConfig(demosaic=demosaic, curve=curve, border="zero", lanes=4, max_width=640)
    pipeline = describe(choice)
    random = np.random.default_rng(3)
    theta = {p.key: random.integers(p.format.lo, p.format.hi + 1, p.entries) for p in pipeline.parameters}
    for p in pipeline.parameters:
        theta[p.key][:2] = p.format.lo, p.format.hi
    tables: dict = {}
    for key, values in pipeline.decode(theta).items():
        stage, name = key.split(".")
        tables.setdefault(stage, {})[name] = values.tolist()
    frame = FrameConfig(cfa="BGGR", black=(1, 2, 3.5, 4), white=1023)
    config = Config(pipeline=choice, frame=frame, parameters=tables)
    (tmp_path / "c.toml").write_text(dump(config, heading="two\nlines"))
    again = read(tmp_path / "c.toml")
    assert again == config
    assert all((again.theta(pipeline)[key] == theta[key]).all() for key in theta)


def test_what_is_left_out_has_its_default(tmp_path):
    (tmp_path / "c.toml").write_text("[parameters.white_balance]\ngain = [2, 1, 1, 1.5]\n[frame]\ncfa='rggb'\n"
                                     "black=64\nwhite=1023\n")  # fmt: skip
    config = read(tmp_path / "c.toml")
    pipeline = describe(config.pipeline)
    theta = config.theta(pipeline)
    assert theta["white_balance.gain"].tolist() == [2048, 1024, 1024, 1536]
    assert (theta["ccm.matrix"] == pipeline.defaults()["ccm.matrix"]).all()
    assert config.frame == FrameConfig(cfa="RGGB", black=(64.0, 64.0, 64.0, 64.0), white=1023)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pipelin]\n", "unknown key 'pipelin'; did you mean 'pipeline'"),
        ("[pipeline]\ndemosaik='bilinear'\n", "unknown key 'pipeline.demosaik'; did you mean 'demosaic'"),
        ("[pipeline]\ndemosaic='menon'\n", "pipeline.demosaic is 'menon'.*'hamilton_adams' or 'filter_bank'"),
        ("[pipeline]\nlanes=3\n", "pipeline.lanes is 3.*1, 2 or 4"),
        ("[pipeline]\nmax_width=99999\n", "pipeline.max_width is 99999.*16384"),
        ("[frame]\ncfa='GRBG'\nblack=0\n", "frame.white is missing"),
        ("[frame]\ncfa='XXXX'\nblack=0\nwhite=1\n", "CFA order 'XXXX' is unknown; give one of"),
        ("[parameters.cmc]\nmatrix=[1]\n", r"unknown stage 'cmc'; did you mean 'ccm'\?"),
        ("[parameters.ccm]\nmatriks=[1]\n", "unknown parameter 'matriks'; did you mean 'matrix'"),
        ("[parameters.bilinear]\nx=[1]\n", "unknown stage 'bilinear'; Known are"),
        ("[parameters.ccm]\noffset=[0, 0]\n", "ccm.offset has 2 values; give 3"),
        ("[parameters.ccm]\noffset=[0, nan, 0]\n", r"ccm.offset\[1\] is nan; give a number in \[-2, "),
        ("[parameters.ccm]\noffset=[0, 0, inf]\n", r"ccm.offset\[2\] is inf"),
        (
            "[parameters.white_balance]\ngain=[16, 1, 1, 1]\n",
            r"gain\[0\] is 16; give a number in \[0, 15.999",
        ),
        ("[parameters.white_balance]\ngain=[1, 1, 1, -1]\n", r"gain\[3\] is -1; give a number in \[0, "),
        ("[parameters.white_balance]\ngain='big'\n", "gain is 'big'"),
        ("pipeline = [\n", "is not TOML"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        config = read(tmp_path / "c.toml")
        config.theta(describe(config.pipeline))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="does not exist; give a TOML file"):
        read(tmp_path / "none.toml")
