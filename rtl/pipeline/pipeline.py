"""A pipeline: stages whose formats fit, and the words of its parameters and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..bus.registers import FRAME_WORDS, ParameterWords, RegisterMap, ResultWords
from ..numeric import SQ, Format
from .build import Build
from .stage import Stage

__all__ = ["OUTPUT_COTANGENT", "VERSION", "Pipeline"]

OUTPUT_COTANGENT = SQ(2, 16)
"""Format of the cotangent of a pipeline's output."""

VERSION = (0, 1, 0)
"""Of the cores: major, minor, patch."""


class Pipeline:
    """A chain of stages, ``y = f_n(... f_1(x))``.

    Parameters
    ----------
    stages : sequence of Stage
    name : str
        Of the core.

    Raises
    ------
    ValueError
        If there is no stage, two stages have one name, or a stage's input is not what the one before gives.
    """

    def __init__(self, stages: Sequence[Stage], *, name: str = "core") -> None:
        if not stages:
            raise ValueError("a pipeline without stages; give at least one")
        self.stages, self.name = tuple(stages), name
        names = [stage.name for stage in self.stages]
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if before.o != after.i:
                raise ValueError(
                    f"{after.name} takes {_shown(after.i)}, but {before.name} before it gives {_shown(before.o)}"
                )
        for stage in self.stages:
            if names.count(stage.name) > 1:
                raise ValueError(f"two stages are called {stage.name!r}; give one of them another name")
            kinds = [bool(parameter.table) for parameter in stage.parameters.values()]
            if kinds != sorted(kinds):
                raise ValueError(
                    f"{stage.name} declares a table before other parameters; declare tables last"
                )

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    @property
    def i(self):
        """Pixel of the input."""
        return self.stages[0].i

    @property
    def o(self):
        """Pixel of the output."""
        return self.stages[-1].o

    def output_cotangent(self, index: int) -> Format:
        """Format of the cotangent that arrives at the output of a stage: the next stage's, at its input."""
        return self.stages[index + 1].cotangent if index + 1 < len(self.stages) else OUTPUT_COTANGENT

    def base(self, index: int) -> int:
        """Word of the first parameter of a stage."""
        entries = [p.entries for stage in self.stages[:index] for p in stage.parameters.values()]
        return FRAME_WORDS + sum(entries)

    def lines_behind(self, index: int) -> int:
        """Lines between a pixel at a stage's input and the tick of its adjoint that reads it: ``2 sum_{j>k} r_j``."""
        return 2 * sum(stage.radius for stage in self.stages[index + 1 :])

    def gradient_fractions(self, index: int) -> dict[str, int]:
        """Fractional bits of each parameter's cotangent."""
        stage = self.stages[index]
        graph = stage.trace()
        cotangent = self.output_cotangent(index)
        pullback = graph.pullback(dict.fromkeys(stage.o.names, cotangent))
        fractions: dict[str, int] = {}
        for name in stage.parameters:
            found = [node.f for (parameter, _), node in pullback.entries.items() if parameter == name]
            found += [t.value.f for t in pullback.tables if t.read.parameter == name]
            if not found:
                raise ValueError(
                    f"parameter {name!r} of {stage.name} is never used; use it in the kernel or drop it"
                )
            fractions[name] = max(found)
        return fractions

    def register_map(self, build: Build, *, vjp: bool) -> RegisterMap:
        """Addresses of everything a host can reach in a core of this pipeline."""
        parameters = [
            ParameterWords(stage.name, name, p.entries, p.format, p.codes, p.doc)
            for stage in self.stages
            for name, p in stage.parameters.items()
        ]
        results = []
        if vjp:
            for index, stage in enumerate(self.stages):
                fractions = self.gradient_fractions(index)
                for name, p in stage.parameters.items():
                    results.append(
                        ResultWords(
                            stage.name, name, p.entries, fractions[name], f"cotangent of {name}: {p.doc}"
                        )
                    )
        return RegisterMap(
            name=self.name,
            version=VERSION,
            stages=[stage.name for stage in self.stages],
            parameters=parameters,
            results=results,
            lanes=build.lanes,
            max_width=build.max_width,
            max_height=build.max_height,
            vjp=vjp,
        )


def _shown(pixel) -> str:
    return "(" + ", ".join(f"{name} {form}" for name, form in pixel.channels) + ")"
