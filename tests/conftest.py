# SPDX-License-Identifier: Apache-2.0
"""Hypothesis for all tests. Profile "ci", the default, draws the same examples every time, so that
a failure is replayed by running the test again. HYPOTHESIS_PROFILE=explore draws others each time,
and more of them; a failure then prints what reproduces it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = settings(deadline=None, database=None, print_blob=True,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                         HealthCheck.filter_too_much])
settings.register_profile("ci", COMMON, derandomize=True)
settings.register_profile("explore", COMMON, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
