"""RAW frames: from a camera's file, or a mosaic picture, to the codes that a pipeline takes.

A frame leaves this module as ``code = min(site, white) << (16 - depth)``, UQ(0, 16), one channel, with
``depth`` the bits of the white level. Sites below black keep their value (the pipeline is signed before its
demosaic); sites above white are saturated sensor wells and are held at white.

Two sources:

* **camera files** (DNG, NEF, CR2, ARW and whatever else LibRaw opens): CFA order, black per colour and white
  come from the file;
* **mosaics** (16-bit greyscale PNG or TIFF): CFA order, black and white are given by the caller.

The *default target* is LibRaw's own rendition of the same frame: AHD demosaic, sRGB primaries where the file
has a colour matrix, gamma 2.222 with a linear toe of 4.5, LibRaw's automatic brightness (1 % of the sites at
white), the camera's white balance or, where the file has none, LibRaw's automatic one. A mosaic is first
written as a DNG in memory by pidng, so that LibRaw renders it as it would any RAW. The sensor's orientation is
kept.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pullback.errors import UsageError

__all__ = ["CFA", "MAX_SIDE", "Crop", "Raw", "load", "load_target", "parse_cfa", "parse_crop"]

CFA = ("RGGB", "GRBG", "GBRG", "BGGR")
"""CFA orders by the value of the core's ``cfa`` register: bit 0 flips x, bit 1 flips y."""

MAX_SIDE = 65535
"""Largest width or height: the geometry registers have 16 bits."""

MOSAIC_SUFFIXES = {".png", ".tif", ".tiff"}

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A rectangle of the frame: ``width x height`` with its top left corner at ``(x, y)``, all even."""

    width: int
    height: int
    x: int = 0
    y: int = 0

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.x}+{self.y}"

    def of(self, picture: NDArray) -> NDArray:
        """The rectangle of a picture ``(height, width, ...)``."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True, kw_only=True, eq=False)
class Raw:
    """One frame and what is known about its sensor.

    Attributes
    ----------
    codes : int64 (height, width)
        Left-aligned sites, UQ(0, 16).
    cfa : int
        CFA phase, index into :data:`CFA`.
    black : tuple of 4 floats
        Black level per colour R, Gr, Gb, B in the file's own units.
    white : float
        White level in the file's own units.
    depth : int
        Bits of the file's own units, 8..16; ``codes = site << (16 - depth)``.
    target : int64 (height, width, 3)
        The picture to aim at, UQ(0, 12), 4095 = white.
    target_name : str
        What the target is, for the report.
    notes : tuple of str
        What was done to the frame on the way in, one sentence each.
    """

    codes: Codes
    cfa: int
    black: tuple[float, float, float, float]
    white: float
    depth: int
    target: Codes
    target_name: str
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Lines."""
        return self.codes.shape[0]

    @property
    def width(self) -> int:
        """Sites of a line."""
        return self.codes.shape[1]

    @property
    def black_real(self) -> tuple[float, ...]:
        """Black per colour in the pipeline's units, where 2**16 codes are 1."""
        return tuple(b * 2.0**-self.depth for b in self.black)

    @property
    def white_real(self) -> float:
        """White in the pipeline's units."""
        return self.white * 2.0**-self.depth


def parse_cfa(name: str) -> int:
    """The CFA phase of an order such as ``"GRBG"`` (row 0 left to right, then row 1)."""
    order = name.strip().upper()
    if order not in CFA:
        raise UsageError(f"CFA order {name!r} is unknown; give one of {', '.join(CFA)}")
    return CFA.index(order)


def parse_crop(text: str) -> Crop:
    """A rectangle written ``WIDTHxHEIGHT+X+Y`` or ``WIDTHxHEIGHT``."""
    match = re.fullmatch(r"(\d+)x(\d+)(?:\+(\d+)\+(\d+))?", text.strip())
    if match is None:
        raise UsageError(
            f"crop {text!r} is not a rectangle; write WIDTHxHEIGHT+X+Y, for instance 256x336+0+0"
        )
    width, height, x, y = (int(part or 0) for part in match.groups())
    if width < 2 or height < 2 or any(side % 2 for side in (width, height, x, y)):
        raise UsageError(
            f"crop {text!r} does not hold whole 2x2 Bayer cells; width, height, x and y must be even, sides >= 2"
        )
    return Crop(width=width, height=height, x=x, y=y)


def load(
    path: str | Path,
    *,
    cfa: str | None = None,
    black: float | None = None,
    white: float | None = None,
    target: str | Path | None = None,
    crop: str | Crop | None = None,
) -> Raw:
    """Read a frame and its target.

    Parameters
    ----------
    path : path
        A camera's RAW file, or a 16-bit greyscale PNG or TIFF holding the mosaic.
    cfa, black, white
        Needed for a mosaic; ``black`` and ``white`` override a camera file's own levels.
    target : path, optional
        An RGB picture as large as the frame or as the crop. Default: LibRaw's rendition of the frame.
    crop : "WIDTHxHEIGHT+X+Y", optional
        Default: the whole frame, less lines at the bottom and columns at the right of a mosaic that are empty
        (every site 0).

    Raises
    ------
    UsageError
        Unreadable or truncated file, unknown CFA, black >= white, odd or too large sizes, target of another size.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} does not exist; give the path of a RAW file or a mosaic PNG")
    if not path.is_file():
        raise UsageError(f"{path} is not a file; give the path of a RAW file or a mosaic PNG")
    rectangle = parse_crop(crop) if isinstance(crop, str) else crop
    if path.suffix.lower() in MOSAIC_SUFFIXES:
        raw = _load_mosaic(path, cfa=cfa, black=black, white=white, render=target is None)
        rectangle = rectangle or _without_empty_margin(raw.codes)
    else:
        raw = _load_camera(path, cfa=cfa, black=black, white=white, render=target is None)
    if target is not None:
        allowed = [(raw.height, raw.width)] + ([(rectangle.height, rectangle.width)] if rectangle else [])
        picture = load_target(target, sizes=allowed)
        raw = replace(raw, target=picture, target_name=str(Path(target).name))
    if rectangle is not None:
        raw = _cropped(raw, rectangle, path)
    if raw.width % 2 or raw.height % 2:
        even = f"{raw.width & ~1}x{raw.height & ~1}+0+0"
        raise UsageError(
            f"{path} is {raw.width}x{raw.height}; a mosaic needs even sides (whole 2x2 Bayer cells), "
            f"for instance --crop {even}"
        )
    return raw


def load_target(path: str | Path, *, sizes: list[tuple[int, int]]) -> Codes:
    """Read an RGB picture as codes UQ(0, 12), white = 4095; its (height, width) must be one of ``sizes``."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            f"target {path} does not exist or is not a file; give an RGB picture (PNG, TIFF, JPEG)"
        )
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"target {path} cannot be read as a picture ({_first_line(error)}); give a PNG, TIFF or JPEG"
        ) from error
    if pixels.shape[:2] not in sizes:
        wanted = " or ".join(f"{width}x{height}" for height, width in dict.fromkeys(sizes))
        raise UsageError(f"target {path} is {pixels.shape[1]}x{pixels.shape[0]}; the frame needs {wanted}")
    return _to_12_bits(pixels, 255)


def _load_mosaic(
    path: Path, *, cfa: str | None, black: float | None, white: float | None, render: bool
) -> Raw:
    missing = [
        f"--{name}" for name, value in (("cfa", cfa), ("black", black), ("white", white)) if value is None
    ]
    if missing:
        raise UsageError(
            f"{path} is a mosaic picture and does not say what its sites are; give {', '.join(missing)}"
        )
    assert cfa is not None and black is not None and white is not None
    phase = parse_cfa(cfa)
    depth = _depth(black, white)
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a large sensor is no decompression bomb; MAX_SIDE bounds it below
    try:
        with Image.open(path) as image:
            bands = image.getbands()
            sites = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read ({_first_line(error)}); give a whole 16-bit greyscale PNG or TIFF"
        ) from error
    if sites.ndim != 2 or sites.dtype.kind not in "ui":
        raise UsageError(
            f"{path} has the channels {'/'.join(bands)}; a mosaic has one channel of integers, "
            "so give a 16-bit greyscale PNG or TIFF"
        )
    _check_size(path, sites.shape[1], sites.shape[0])
    sites = sites.astype(np.int64)
    notes = []
    above = int(np.count_nonzero(sites > white))
    if above:
        notes.append(
            f"{above} sites above white {white:g} (up to {sites.max()}) are saturated and held at white."
        )
    raw = Raw(
        codes=_align(sites, white, depth),
        cfa=phase,
        black=(float(black), float(black), float(black), float(black)),
        white=float(white),
        depth=depth,
        target=np.zeros((*sites.shape, 3), np.int64),
        target_name="",
        notes=tuple(notes),
    )
    if not render:
        return raw
    even = sites[: sites.shape[0] & ~1, : sites.shape[1] & ~1]
    margin = _without_empty_margin(even)
    even = margin.of(even) if margin else even  # LibRaw's automatic brightness and balance must not see it
    picture = np.zeros_like(raw.target)
    picture[: even.shape[0], : even.shape[1]] = _render_mosaic(
        np.minimum(even, int(white)), phase, black, white
    )
    return replace(raw, target=picture, target_name="LibRaw's rendition")


def _render_mosaic(sites: Codes, cfa: int, black: float, white: float) -> Codes:
    """LibRaw's rendition of a mosaic: a DNG made in memory, opened like any other."""
    rawpy = _import("rawpy")
    try:
        from pidng.core import RAW2DNG, DNGTags, Tag
        from pidng.defs import CFAPattern, DNGVersion, PhotometricInterpretation
    except ImportError as error:
        raise UsageError(
            "LibRaw's rendition of a mosaic needs pidng, which is not installed; pip install pidng, or give --target"
        ) from error
    tags = DNGTags()
    for tag, value in (
        (Tag.ImageWidth, sites.shape[1]),
        (Tag.ImageLength, sites.shape[0]),
        (Tag.TileWidth, sites.shape[1]),
        (Tag.TileLength, sites.shape[0]),
        (Tag.PhotometricInterpretation, PhotometricInterpretation.Color_Filter_Array),
        (Tag.SamplesPerPixel, 1),
        (Tag.BitsPerSample, 16),
        (Tag.CFARepeatPatternDim, [2, 2]),
        (Tag.CFAPattern, getattr(CFAPattern, CFA[cfa])),
        (Tag.BlackLevel, round(black)),
        (Tag.WhiteLevel, round(white)),
        (Tag.DNGVersion, DNGVersion.V1_4),
        (Tag.DNGBackwardVersion, DNGVersion.V1_2),
    ):
        tags.set(tag, value)  # pyright: ignore[reportArgumentType]  (Tag's members are tuples to a checker)
    writer = RAW2DNG()
    writer.options(tags, path="", compress=False)
    dng = bytes(writer.convert(np.ascontiguousarray(sites, dtype=np.uint16)))
    with rawpy.imread(io.BytesIO(dng)) as file:
        return _render(file, rawpy)


def _load_camera(
    path: Path, *, cfa: str | None, black: float | None, white: float | None, render: bool
) -> Raw:
    if cfa is not None:
        parse_cfa(cfa)
        raise UsageError(f"{path} carries its own CFA order; leave --cfa {cfa} out")
    rawpy = _import("rawpy")
    try:
        with rawpy.imread(str(path)) as file:
            if (
                file.raw_type != rawpy.RawType.Flat
                or file.raw_pattern is None
                or file.raw_pattern.shape != (2, 2)
            ):
                raise UsageError(
                    f"{path} is not a 2x2 Bayer mosaic (X-Trans, Foveon or already demosaiced); "
                    "give a file of a Bayer sensor"
                )
            sites = file.raw_image_visible.astype(np.int64)
            colours = file.raw_colors_visible[:2, :2].copy()
            names = file.color_desc.decode()
            levels = [float(level) for level in file.black_level_per_channel]
            top = float(file.white_level)
            target = _render(file, rawpy) if render else np.zeros((*sites.shape, 3), np.int64)
    except rawpy.LibRawError as error:
        raise UsageError(
            f"{path} cannot be read as a RAW file ({_first_line(error)}); give a whole DNG, NEF, CR2 or "
            "ARW file, or a mosaic as 16-bit PNG"
        ) from error
    order = "".join(names[colours[y, x]] for y in range(2) for x in range(2))
    if order not in CFA:
        raise UsageError(f"{path} has the CFA order {order}; supported are {', '.join(CFA)}")
    phase = CFA.index(order)
    _check_size(path, sites.shape[1], sites.shape[0])
    white = top if white is None else white
    # Colour c = 2 * (row parity) + (column parity) of the cell after the phase is undone: R, Gr, Gb, B.
    black4 = [0.0] * 4
    for y in range(2):
        for x in range(2):
            black4[(y ^ (phase >> 1)) * 2 + (x ^ (phase & 1))] = (
                levels[colours[y, x]] if black is None else black
            )
    depth = max(_depth(level, white) for level in black4)
    if render and target.shape[:2] != sites.shape:
        high, wide = (len(target), len(target[0]))
        raise UsageError(
            f"{path}: LibRaw renders {wide}x{high} from a mosaic of "
            f"{sites.shape[1]}x{sites.shape[0]}; give --target with a picture of the mosaic's size"
        )
    sites = sites[: sites.shape[0] & ~1, : sites.shape[1] & ~1]
    return Raw(
        codes=_align(sites, white, depth),
        cfa=phase,
        black=(black4[0], black4[1], black4[2], black4[3]),
        white=float(white),
        depth=depth,
        target=target[: sites.shape[0], : sites.shape[1]],
        target_name="LibRaw's rendition",
    )


def _render(file, rawpy) -> Codes:  # a rawpy.RawPy and its module, which has no types
    balance = file.camera_whitebalance
    known = len(balance) >= 3 and all(gain > 0 for gain in balance[:3])
    picture = file.postprocess(output_bps=16, user_flip=0, use_camera_wb=known, use_auto_wb=not known)
    return _to_12_bits(picture.astype(np.int64), 65535)


def _to_12_bits(picture: Codes, white: int) -> Codes:
    """Round half up to UQ(0, 12) with white at the largest code."""
    return (picture * (2 * 4095) + white) // (2 * white)


def _align(sites: Codes, white: float, depth: int) -> Codes:
    return np.minimum(sites, int(white)) << (16 - depth)


def _depth(black: float, white: float) -> int:
    """Bits of the sensor's own units; checks both levels."""
    for name, level in (("black", black), ("white", white)):
        if not np.isfinite(level) or not 0 <= level <= 65535:
            raise UsageError(f"{name} level {level:g} is outside a 16-bit RAW; give a number in 0..65535")
    if black >= white:
        raise UsageError(f"black level {black:g} is not below white level {white:g}; give black < white")
    return max(8, int(white).bit_length())


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 2 or height < 2:
        raise UsageError(f"{path} is {width}x{height}; a mosaic has at least 2x2 sites")
    if width > MAX_SIDE or height > MAX_SIDE:
        raise UsageError(
            f"{path} is {width}x{height}; the largest side is {MAX_SIDE}, so crop it with --crop"
        )


def _without_empty_margin(codes: Codes) -> Crop | None:
    """The frame less its empty (all zero) last lines and columns, in whole Bayer cells; None if there are none."""
    filled = np.argwhere(codes)
    if not len(filled):
        raise UsageError("the mosaic is empty: every site is 0; give a frame with a picture in it")
    height, width = (int(n) + 1 for n in filled.max(axis=0))
    if (height, width) == codes.shape:
        return None
    return Crop(width=max(2, width & ~1), height=max(2, height & ~1))


def _cropped(raw: Raw, crop: Crop, path: Path) -> Raw:
    if crop.x + crop.width > raw.width or crop.y + crop.height > raw.height:
        raise UsageError(
            f"crop {crop} reaches outside {path}, which is {raw.width}x{raw.height}; "
            f"give a rectangle inside it"
        )
    codes = crop.of(raw.codes)
    target = raw.target if raw.target.shape[:2] == codes.shape else crop.of(raw.target)
    note = f"Frame of {raw.width}x{raw.height} cropped to {crop}."
    return replace(raw, codes=codes, target=target, notes=(*raw.notes, note))


def _import(name: str):
    try:
        return __import__(name)
    except ImportError as error:
        raise UsageError(
            f"{name} is not installed and is needed to read RAW files; pip install {name}"
        ) from error


def _first_line(error: BaseException) -> str:
    text = error.args[0] if error.args else error
    return (
        (text.decode() if isinstance(text, bytes) else str(text)).splitlines()[0]
        if text
        else type(error).__name__
    )
