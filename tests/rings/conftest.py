# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a house around each server, and a time limit for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.rings.house import KINDS, House, house

HERE = Path(__file__).parent

TIME_LIMIT_S = 60


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Every test ends within TIME_LIMIT_S, whatever the server does."""
    def expire(number: int, frame: object) -> NoReturn:
        raise TimeoutError(f"the test has not ended within {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(TIME_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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
