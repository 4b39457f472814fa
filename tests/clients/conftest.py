# SPDX-License-Identifier: Apache-2.0
"""Fixtures: servers under test, and a time limit for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.subjects import Ours, OursFar, OursReborn, Subject, running

FAR = pytest.param(OursFar.name, marks=pytest.mark.slow)
REBORN = pytest.param(OursReborn.name, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def limited(time_limit: None) -> None:
    """Every test here has a time limit."""



@pytest.fixture(params=[Subject.name, Ours.name, FAR])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """C xenstored, ours, and ours behind a channel."""
    with running(request.param) as server:
        yield server


@pytest.fixture(params=[Subject.name, Ours.name, REBORN, FAR])
def any_subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """C xenstored, ours, ours killed after every program, and ours behind a channel."""
    with running(request.param) as server:
        yield server


@pytest.fixture(params=[Ours.name, FAR])
def ours(request: pytest.FixtureRequest) -> Iterator[Ours]:
    """Ours alone: for what C xenstored has not, or cannot survive."""
    with running(request.param) as server:
        assert isinstance(server, Ours)
        yield server
