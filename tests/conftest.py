"""Time that tests may take."""

from __future__ import annotations

import pytest

SLOW = 3600  # seconds; a machine at half its speed must not look like a simulation that hangs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW))
