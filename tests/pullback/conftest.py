"""A small sensor frame with structure, its mosaic on disk, and a target that a pipeline can reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pullback.backend import Frame, GoldenBackend
from pullback.config import PipelineConfig
from pullback.raw import Raw


@pytest.fixture(scope="session")
def sites() -> np.ndarray:
    """10-bit codes, 32x24, black 16, white 960: a gradient, a checker, a little noise, some sites above white."""
    y, x = np.mgrid[:24, :32]
    noise = np.random.default_rng(7).normal(0, 6, (24, 32))
    return np.clip(40 + 28 * x + 90 * ((x // 4 + y // 4) % 2) + noise, 0, 1000).astype(np.uint16)


@pytest.fixture
def mosaic(sites: np.ndarray, tmp_path: Path) -> Path:
    """The frame as a 16-bit PNG."""
    path = tmp_path / "mosaic.png"
    Image.fromarray(sites).save(path)
    return path


@pytest.fixture
def frame(sites: np.ndarray) -> Raw:
    """The frame as codes, with a target that a known ISP made of it."""
    backend = GoldenBackend(PipelineConfig(demosaic="bilinear"))
    codes = np.minimum(sites.astype(np.int64), 960) << 6
    theta = backend.pipeline.defaults()
    theta["white_balance.gain"][:] = (1400, 1100, 1100, 1600)
    theta["tone_curve.knots"][:] = np.round(32767 * np.sqrt(np.arange(65) / 64))
    target = np.moveaxis(backend.forward(codes, theta, Frame(cfa=1)).y, 0, -1)
    return Raw(
        codes=codes,
        cfa=1,
        black=(16.0, 16.0, 16.0, 16.0),
        white=960.0,
        depth=10,
        target=target,
        target_name="a known ISP",
    )
