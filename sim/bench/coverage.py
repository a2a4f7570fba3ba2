"""Coverage: named bins that tests must hit. A test that requires them fails while one is empty."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["Coverage"]


class Coverage:
    """Hit counts of bins that are declared beforehand, grouped by name: ``cfa/RGGB``, ``border/top`` ...

    Parameters
    ----------
    bins : dict
        Group -> names of its bins.
    """

    def __init__(self, bins: Mapping[str, Iterable[object]]) -> None:
        self._hits: dict[str, dict[str, int]] = {
            group: {str(n): 0 for n in names} for group, names in bins.items()
        }
        for group, names in self._hits.items():
            if not names:
                raise ValueError(f"group {group!r} has no bins")

    def hit(self, group: str, name: object, count: int = 1) -> None:
        """Counts ``count`` hits.

        Raises
        ------
        ValueError
            If there is no such bin: a misspelt bin would else look covered by nobody.
        """
        if str(name) not in self._hits.get(group, {}):
            raise ValueError(f"no bin {group}/{name}; the bins are {', '.join(self._names())}")
        self._hits[group][str(name)] += int(count)

    def _names(self) -> list[str]:
        return [f"{group}/{name}" for group, names in self._hits.items() for name in names]

    def count(self, group: str, name: object) -> int:
        """Hits of a bin."""
        return self._hits[group][str(name)]

    def empty(self) -> list[str]:
        """Bins without a hit, as ``group/name``."""
        return [
            f"{group}/{name}" for group, names in self._hits.items() for name, n in names.items() if not n
        ]

    def merge(self, other: Coverage) -> None:
        """Adds the hits of another; bins that only the other has are taken over."""
        for group, names in other._hits.items():
            mine = self._hits.setdefault(group, {})
            for name, count in names.items():
                mine[name] = mine.get(name, 0) + count

    def require_full(self) -> None:
        """Raises ``AssertionError`` with the report if a bin is empty."""
        if empty := self.empty():
            raise AssertionError(f"never hit: {', '.join(empty)}\n{self.report()}")

    def report(self) -> str:
        """One line per bin, and a total."""
        names = self._names()
        width = max(map(len, names), default=0)
        lines = [
            f"{f'{group}/{name}':<{width}}  {count:>8}{'' if count else '  EMPTY'}"
            for group, bins in self._hits.items()
            for name, count in bins.items()
        ]
        return "\n".join([*lines, f"{len(names) - len(self.empty())} of {len(names)} bins hit"])

    def save(self, path: Path) -> None:
        """Writes the counts as JSON."""
        Path(path).write_text(json.dumps(self._hits, indent=1))

    @classmethod
    def load(cls, path: Path) -> Coverage:
        """Reads what :meth:`save` wrote."""
        hits = json.loads(Path(path).read_text())
        loaded = cls(hits)
        loaded._hits = hits
        return loaded
