# SPDX-License-Identifier: Apache-2.0
"""Prints the counts of the crash tests at the end, whatever pytest hides."""

from __future__ import annotations

import pytest

from tests.crash import counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many crash points, flipped bytes and kills there were."""
    for line in counts.lines:
        terminalreporter.write_line(line)
