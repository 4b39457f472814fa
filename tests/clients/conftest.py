# SPDX-License-Identifier: Apache-2.0
"""Fixtures: servers under test, and a time limit for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.subjects import Ours, OursReborn, Subject, running


@pytest.fixture(autouse=True)
def limited(time_limit: None) -> None:
    """Every test here has a time limit."""



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
