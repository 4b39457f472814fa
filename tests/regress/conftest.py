# SPDX-License-Identifier: Apache-2.0
"""A real server with guests, for past bugs that guests can meet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.rings.house import House, house


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Started with these arguments; ended and removed behind the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(house("tardigrade", arguments))
