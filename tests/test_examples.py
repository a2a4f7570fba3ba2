"""The examples run, and what they say is so."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import typer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("data", "epochs"), [("cancer", 10), pytest.param("digits", 12, marks=pytest.mark.slow)]
)
def test_integers_learn_like_floats(digits, data, epochs, tmp_path):
    """Three seeds: the mean accuracies are within one per cent."""
    digits.main(data=data, backend="golden", epochs=epochs, seeds=3, check=False, out=tmp_path)
    accuracy = json.loads((tmp_path / "result.json").read_text())["accuracy"]
    float32, integers = (sum(curve[-1] for curve in curves) / len(curves) for curves in accuracy.values())
    assert float32 > 0.94 and abs(integers - float32) <= 0.01, (float32, integers)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_an_epoch_on_the_hardware(digits, tmp_path):
    """Every product of an epoch in RTL; every weight after every step as in numpy."""
    digits.main(data="digits", backend="rtl", epochs=1, seeds=1, check=True, out=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["checked"] and result["macs"] > 100e6


def test_what_is_wrong_is_said(digits, tmp_path):
    for wrong, message in (({"data": "cats"}, "cats"), ({"backend": "tpu"}, "tpu")):
        options = {
            "data": "digits",
            "backend": "golden",
            "epochs": 1,
            "seeds": 1,
            "check": False,
            "out": tmp_path,
        }
        with pytest.raises(typer.BadParameter, match=f"'{message}' is unknown; choose"):
            digits.main(**options | wrong)
