# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a house around each server, and a time limit for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rings.house import KINDS, House, house

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def limited(time_limit: None) -> None:
    """Every test here has a time limit."""



@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest) -> Iterator[House]:
    """C xenstored, and ours."""
    with house(request.param) as it:
        yield it


@pytest.fixture
def ours() -> Iterator[House]:
    """Ours alone."""
    with house("tardigrade") as it:
        yield it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of this room only the ring's own rules are part of make test-quick."""
    for item in items:
        if item.path.parent == HERE and item.path.name != "test_semantics.py":
            item.add_marker(pytest.mark.slow)
