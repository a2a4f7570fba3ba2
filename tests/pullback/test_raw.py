"""Frames in: alignment, levels, phases, targets; and each way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pullback.errors import UsageError
from pullback.raw import CFA, Crop, load, parse_cfa, parse_crop

DEMO = Path(__file__).parents[2] / "examples" / "data" / "bayer_small.png"
LEVELS = {"cfa": "GRBG", "black": 16, "white": 960}


def _dng(path: Path, sites: np.ndarray, cfa: str, black: tuple[int, ...] = (16, 16, 16, 16)) -> Path:
    """The DNG that pidng writes; ``black`` by place in the 2x2 cell, row by row."""
    core, defs = pytest.importorskip("pidng.core"), pytest.importorskip("pidng.defs")
    tags = core.DNGTags()
    for tag, value in {
        "ImageWidth": sites.shape[1], "ImageLength": sites.shape[0], "TileWidth": sites.shape[1],
        "TileLength": sites.shape[0], "PhotometricInterpretation": 32803, "SamplesPerPixel": 1, "BitsPerSample": 16,
        "CFARepeatPatternDim": [2, 2], "CFAPattern": getattr(defs.CFAPattern, cfa), "BlackLevel": list(black),
        "BlackLevelRepeatDim": [2, 2], "WhiteLevel": 960,
    }.items():  # fmt: skip
        tags.set(getattr(core.Tag, tag), value)
    writer = core.RAW2DNG()
    writer.options(tags, path="", compress=False)
    path.write_bytes(bytes(writer.convert(sites)))
    return path


def test_mosaic_is_left_aligned_and_held_at_white(mosaic, sites):
    raw = load(mosaic, **LEVELS)
    assert (raw.codes == np.minimum(sites.astype(np.int64), 960) * 64).all()
    assert (raw.depth, raw.cfa, raw.black, raw.white) == (10, 1, (16.0,) * 4, 960.0)
    assert raw.black_real == (16 / 1024,) * 4 and raw.white_real == 960 / 1024
    assert (sites > 960).any() and any("above white 960" in note for note in raw.notes)


@pytest.mark.parametrize(("white", "depth"), [(200, 8), (255, 8), (256, 9), (4095, 12), (65535, 16)])
def test_depth_follows_white(tmp_path, white, depth):
    path = tmp_path / "m.png"
    Image.fromarray(np.full((2, 2), white, np.uint16)).save(path)
    picture = tmp_path / "t.png"
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(picture)
    raw = load(path, cfa="RGGB", black=0, white=white, target=picture)
    assert raw.depth == depth and (raw.codes == white << (16 - depth)).all()


@pytest.mark.parametrize("cfa", CFA)
def test_camera_file_says_its_phase_and_levels(tmp_path, sites, cfa):
    raw = load(_dng(tmp_path / "frame.dng", sites, cfa))
    assert (CFA[raw.cfa], raw.black, raw.white, raw.depth) == (cfa, (16.0,) * 4, 960.0, 10)
    assert (raw.codes == np.minimum(sites.astype(np.int64), 960) * 64).all()
    assert raw.target.shape == (24, 32, 3) and raw.target.max() > 2000


@pytest.mark.parametrize("cfa", CFA)
def test_black_levels_follow_their_colour(tmp_path, sites, cfa):
    cell = (20, 24, 28, 32)
    raw = load(_dng(tmp_path / "frame.dng", sites, cfa, cell))
    at = {"RGGB": (0, 1, 2, 3), "GRBG": (1, 0, 3, 2), "GBRG": (2, 3, 0, 1), "BGGR": (3, 2, 1, 0)}[cfa]
    assert raw.black == tuple(float(cell[place]) for place in at)  # R, Gr, Gb, B


def test_a_mosaics_default_target_is_the_rendition_of_its_dng(tmp_path, mosaic, sites):
    dng = load(_dng(tmp_path / "frame.dng", np.minimum(sites, 960), "GRBG"))
    assert (load(mosaic, **LEVELS).target == dng.target).all()


def test_bundled_frame_loses_its_empty_lines():
    raw = load(DEMO, **LEVELS)
    assert (raw.width, raw.height) == (256, 336) and raw.target.shape == (336, 256, 3)
    assert (raw.codes[-1] != 0).any() and raw.notes[-1].endswith("cropped to 256x336+0+0.")


def test_target_of_the_frame_or_of_the_crop(tmp_path, mosaic):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "whole.png")
    Image.fromarray(picture[4:20, 2:18]).save(tmp_path / "part.png")
    whole = load(mosaic, **LEVELS, target=tmp_path / "whole.png", crop="16x16+2+4")
    part = load(mosaic, **LEVELS, target=tmp_path / "part.png", crop="16x16+2+4")
    assert (whole.target == part.target).all() and (whole.codes == part.codes).all()
    assert (whole.target == np.floor(picture[4:20, 2:18] * (4095 / 255) + 0.5)).all()
    assert whole.target_name == "whole.png"


def test_crop_text():
    assert parse_crop("256x336+2+4") == Crop(width=256, height=336, x=2, y=4)
    assert parse_crop("16x8") == Crop(width=16, height=8)
    assert str(parse_crop("16x8")) == "16x8+0+0"
    assert [parse_cfa(name) for name in ("rggb", "GRBG", "gbrg", "BGGR")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfa": "RGBG"}, "CFA order 'RGBG' is unknown; give one of RGGB"),
        ({"cfa": None}, "give --cfa"),
        ({"cfa": None, "white": None}, "give --cfa, --white"),
        ({"black": 960}, "black level 960 is not below white level 960"),
        ({"black": 1000}, "black level 1000 is not below"),
        ({"black": -1}, "black level -1 is outside"),
        ({"black": float("nan")}, "black level nan is outside"),
        ({"white": 70000}, "white level 70000 is outside"),
        ({"crop": "17x16+0+0"}, "crop '17x16.*must be even"),
        ({"crop": "16x16+1+0"}, "must be even"),
        ({"crop": "16 by 16"}, "write WIDTHxHEIGHT"),
        ({"crop": "64x64+0+0"}, "reaches outside .* which is 32x24"),
        ({"target": "nowhere.png"}, "target nowhere.png does not exist"),
    ],
)
def test_bad_options(mosaic, options, message):
    with pytest.raises(UsageError, match=message):
        load(mosaic, **(LEVELS | options))


def test_bad_files(tmp_path, mosaic, sites):
    def refuses(path, message, **options):
        with pytest.raises(UsageError, match=message) as caught:
            load(path, **(LEVELS | options))
        assert "\n" not in str(caught.value)

    refuses(tmp_path / "none.png", "does not exist")
    refuses(tmp_path, "is not a file")
    (tmp_path / "cut.png").write_bytes(mosaic.read_bytes()[:300])
    refuses(tmp_path / "cut.png", r"cut\.png cannot be read.*whole 16-bit")
    (tmp_path / "text.png").write_text("not a picture")
    refuses(tmp_path / "text.png", "cannot be read")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "rgb.png")
    refuses(tmp_path / "rgb.png", "channels R/G/B; a mosaic has one channel")
    Image.fromarray(sites[:, :31]).save(tmp_path / "odd.png")
    refuses(tmp_path / "odd.png", r"31x24; .* even sides .*--crop 30x24\+0\+0")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "empty.png")
    refuses(tmp_path / "empty.png", "every site is 0")
    Image.fromarray(sites[:1]).save(tmp_path / "line.png")
    refuses(tmp_path / "line.png", "at least 2x2")
    Image.fromarray(np.ones((2, 65536), np.uint16)).save(tmp_path / "wide.png")
    refuses(tmp_path / "wide.png", "65536x2; the largest side is 65535")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small.png")
    refuses(mosaic, r"small\.png is 8x8; the frame needs 32x24", target=tmp_path / "small.png")
    refuses(mosaic, r"cut\.png cannot be read as a picture", target=tmp_path / "cut.png")


def test_bad_camera_files(tmp_path, sites):
    whole = _dng(tmp_path / "frame.dng", sites, "GRBG")
    (tmp_path / "cut.dng").write_bytes(whole.read_bytes()[:700])
    with pytest.raises(UsageError, match=r"cut\.dng cannot be read as a RAW file"):
        load(tmp_path / "cut.dng")
    (tmp_path / "noise.nef").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UsageError, match=r"noise\.nef cannot be read as a RAW file.*give a whole DNG"):
        load(tmp_path / "noise.nef")
    with pytest.raises(UsageError, match="carries its own CFA order; leave --cfa GRBG out"):
        load(whole, cfa="GRBG")
