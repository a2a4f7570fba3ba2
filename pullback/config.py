"""Configuration files: which pipeline, which sensor, which parameters, in TOML and in real units.

A file that ``pullback tune`` wrote (``tuned.toml``) is read back by ``tune``, ``generate`` and ``simulate``:

.. code-block:: toml

    [pipeline]
    demosaic = "filter_bank"      # bilinear, hamilton_adams, filter_bank
    curve = "shared"              # shared, per_channel
    border = "mirror"             # mirror, replicate, zero
    lanes = 1                     # pixels per clock: 1, 2, 4
    max_width = 256               # line buffers are built for this width
    max_height = 4096             # accumulators are built for this height

    [frame]                       # the sensor, in the file's own units
    cfa = "GRBG"
    black = [16.0, 16.0, 16.0, 16.0]   # R, Gr, Gb, B; one number stands for all four
    white = 960.0

    [parameters.white_balance]    # [parameters.STAGE], NAME = [values]; what is left out keeps its default
    gain = [1.5, 1.0, 1.0, 1.75]

Values are exact: a code ``c`` with ``f`` fractional bits is written as ``c * 2**-f``, whose nearest code is ``c``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pullback.errors import UsageError
from pullback.raw import CFA, parse_cfa

if TYPE_CHECKING:
    from pullback.backend import Pipeline, Theta

__all__ = ["Config", "FrameConfig", "PipelineConfig", "dump", "encode", "read", "sentence"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PipelineConfig(_Model):
    """What is built: the ISP's build parameters. Hashable."""

    demosaic: Literal["bilinear", "hamilton_adams", "filter_bank"] = "filter_bank"
    curve: Literal["shared", "per_channel"] = "shared"
    border: Literal["mirror", "replicate", "zero"] = "mirror"
    lanes: Literal[1, 2, 4] = 1
    max_width: int = Field(default=4096, ge=2, le=16384)
    max_height: int = Field(default=4096, ge=2, le=16384)

    def __hash__(self) -> int:
        return hash(tuple(self.model_dump().values()))

    @classmethod
    def checked(cls, **options: object) -> PipelineConfig:
        """From options that a person gave: what is wrong with them is a :class:`UsageError` of one sentence."""
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise UsageError(sentence(error)) from error


class FrameConfig(_Model):
    """What is known of the sensor: CFA order, black and white level in the file's own units."""

    cfa: str
    black: tuple[float, float, float, float]
    white: float

    @field_validator("cfa")
    @classmethod
    def _known(cls, value: str) -> str:
        return CFA[parse_cfa(value)]

    @field_validator("black", mode="before")
    @classmethod
    def _four(cls, value: object) -> object:
        return (value,) * 4 if isinstance(value, int | float) else value


class Config(_Model):
    """A whole file. ``parameters[stage][name]`` are real values."""

    pipeline: PipelineConfig = PipelineConfig()
    frame: FrameConfig | None = None
    parameters: dict[str, dict[str, list[float]]] = {}

    def theta(self, pipeline: Pipeline) -> Theta:
        """All parameters as codes: the file's where it has them, the defaults elsewhere.

        Raises
        ------
        UsageError
            Unknown stage or parameter, wrong length, NaN, value outside the parameter's format.
        """
        theta = pipeline.defaults()
        stages = {stage.name: stage for stage in pipeline.stages}
        for stage, values in self.parameters.items():
            if stage not in stages:
                raise UsageError(f"[parameters.{stage}]: unknown stage {stage!r}{_instead(stage, stages)}")
            known = {parameter.name: parameter for parameter in stages[stage].parameters}
            for name, numbers in values.items():
                if name not in known:
                    raise UsageError(
                        f"[parameters.{stage}]: unknown parameter {name!r}{_instead(name, known)}"
                    )
                theta[known[name].key] = encode(known[name], numbers)
        return theta


def encode(parameter, values: Iterable[float]) -> np.ndarray:
    """Codes of real values, one per entry; refuses what the format cannot hold instead of saturating."""
    numbers = [float(value) for value in values]
    if len(numbers) != parameter.entries:
        raise UsageError(f"{parameter.key} has {len(numbers)} values; give {parameter.entries}")
    low, high = parameter.format.min, parameter.format.max
    for k, value in enumerate(numbers):
        # NaN compares false, so it is refused here too.
        if not low - parameter.format.lsb / 2 <= value < high + parameter.format.lsb / 2:
            raise UsageError(
                f"{parameter.key}[{k}] is {value:g}; give a number in [{low:g}, {high:g}], "
                f"what {parameter.format} holds"
            )
    return np.array([parameter.format.encode(value) for value in numbers], np.int64)


def read(path: str | Path) -> Config:
    """Read a configuration file.

    Raises
    ------
    UsageError
        No such file, no TOML, unknown key, wrong type or value.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(
            f"configuration {path} does not exist; give a TOML file such as tuned.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration {path} is not TOML: {error}") from error
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"configuration {path}: {sentence(error)}") from error


def dump(config: Config, *, heading: str = "") -> str:
    """The file's text; ``read`` gives the same configuration back."""
    lines = [f"# {line}" for line in heading.splitlines()]
    lines += ["", "[pipeline]", *_table(config.pipeline.model_dump())]
    if config.frame is not None:
        lines += ["", "[frame]", *_table(config.frame.model_dump())]
    for stage, values in config.parameters.items():
        lines += ["", f"[parameters.{stage}]", *_table(values)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(values: dict) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items()]


def _value(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'  # names of ours: nothing in them needs escaping
    if isinstance(value, list | tuple):
        items = [_value(item) for item in value]
        if len(items) <= 4:
            return f"[{', '.join(items)}]"
        rows = [", ".join(items[k : k + 8]) for k in range(0, len(items), 8)]
        return "[\n    " + ",\n    ".join(rows) + ",\n]"
    return repr(value)


def _instead(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"; {guess}{'Known are ' + ', '.join(known) if known else 'It has none'}"


def sentence(error: ValidationError) -> str:
    """The first complaint, as one sentence with its place, its value and the remedy."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        model = {1: Config}.get(len(first["loc"])) or {"pipeline": PipelineConfig, "frame": FrameConfig}.get(
            str(first["loc"][0]), Config
        )
        key = str(first["loc"][-1])
        return f"unknown key {place!r}{_instead(key, model.model_fields)}"
    if first["type"] == "missing":
        return f"{place} is missing; add it"
    message = first["msg"]
    if first["type"] == "value_error":  # one of our own: it names the value already
        return message.removeprefix("Value error, ")
    return f"{place} is {first['input']!r}: {message[0].lower()}{message[1:]}"
