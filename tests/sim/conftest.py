"""The toy core, and models of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pullback.sim.model import Model


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module ``toy_core.py`` beside this file."""
    spec = importlib.util.spec_from_file_location("toy_core", Path(__file__).with_name("toy_core.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_model(toy: ModuleType) -> Callable[..., Model]:
    """Builds (from the cache) a fresh model of a variant of the toy."""

    def make(**variant: Any) -> Model:
        return Model.build({"core.sv": toy.toy_core(**variant)}, optimise="quick")

    return make
