# SPDX-License-Identifier: Apache-2.0
"""Fixtures: servers under test, and a time limit for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.clients.subjects import Ours, OursReborn, Subject, running

TIME_LIMIT_S = 30


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


@pytest.fixture(params=[Subject.name, Ours.name])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """C xenstored, and ours."""
    with running(request.param) as server:
        yield server


@pytest.fixture(params=[Subject.name, Ours.name, OursReborn.name])
def any_subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """C xenstored, ours, and ours killed after every program."""
    with running(request.param) as server:
        yield server


@pytest.fixture
def ours() -> Iterator[Ours]:
    """Ours alone: for what C xenstored has not, or cannot survive."""
    with running(Ours.name) as server:
        assert isinstance(server, Ours)
        yield server
