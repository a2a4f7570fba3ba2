"""Coverage bins."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullback.sim.bench.coverage import Coverage


def test_empty_bins_are_demanded(tmp_path: Path) -> None:
    first = Coverage({"cfa": ["RGGB", "BGGR"], "kind": range(2)})
    second = Coverage({"cfa": ["RGGB", "BGGR"], "border": ["top"]})
    first.hit("cfa", "RGGB")
    first.hit("kind", 0)
    first.hit("kind", 1, 5)
    assert first.empty() == ["cfa/BGGR"]
    with pytest.raises(AssertionError, match="never hit: cfa/BGGR"):
        first.require_full()
    second.hit("cfa", "BGGR", 2)
    first.merge(second)
    assert first.empty() == ["border/top"]
    assert (first.count("cfa", "BGGR"), first.count("kind", 1)) == (2, 5)
    first.save(tmp_path / "coverage.json")
    loaded = Coverage.load(tmp_path / "coverage.json")
    assert loaded.report() == first.report()
    assert (
        "border/top" in loaded.report()
        and "EMPTY" in loaded.report()
        and "4 of 5 bins hit" in loaded.report()
    )
    loaded.hit("border", "top")
    loaded.require_full()


def test_unknown_bins_are_refused() -> None:
    coverage = Coverage({"cfa": ["RGGB"]})
    with pytest.raises(ValueError, match="no bin cfa/GRBG"):
        coverage.hit("cfa", "GRBG")
    with pytest.raises(ValueError, match="no bin kind/0"):
        coverage.hit("kind", 0)
    with pytest.raises(ValueError, match="has no bins"):
        Coverage({"cfa": []})
