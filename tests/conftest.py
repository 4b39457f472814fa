# SPDX-License-Identifier: Apache-2.0
"""For all tests: a time limit for those that ask for it, and Hypothesis.

Hypothesis's profile "ci", the default, draws the same examples every time, so that a failure is
replayed by running the test again. HYPOTHESIS_PROFILE=explore draws others each time, and more of
them; a failure then prints what reproduces it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

TIME_LIMIT_S = 60

COMMON = settings(deadline=None, database=None, print_blob=True,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                         HealthCheck.filter_too_much])
settings.register_profile("ci", COMMON, derandomize=True)
settings.register_profile("explore", COMMON, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

os.environ.pop("XENSTORED_PATH", None)  # a server that somebody uses is none of ours


@contextlib.contextmanager
def limited_to(limit_s: int) -> Iterator[None]:
    """What is inside ends within `limit_s`, whatever a server does."""
    def expire(number: int, frame: object) -> NoReturn:
        raise TimeoutError(f"the test has not ended within {limit_s} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(limit_s)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def time_limit() -> Iterator[None]:
    """The test ends within TIME_LIMIT_S."""
    with limited_to(TIME_LIMIT_S):
        yield
