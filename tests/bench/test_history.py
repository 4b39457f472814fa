# SPDX-License-Identifier: Apache-2.0
"""The measurements of the history run, and what they say adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.history import measure
from tests.bench.reach import bytes_of, reach


def test_commits_a_second(tmp_path: Path) -> None:
    """Every change was counted; the archive is there."""
    said = measure(str(tmp_path), 2, 150)
    assert said.startswith("2 domains: 150 commits in ") and (tmp_path / "archive/HEAD").exists()


@pytest.mark.slow
def test_how_far_back() -> None:
    """A log of 1 MiB, gone around: busier hosts reach less far."""
    quiet, busy = (reach(1 << 20, 2, 1, writes) for writes in (1, 60))
    assert "2 guests that live 1 days, 60 writes a minute each: " in busy and "MiB (" in busy
    assert hours(busy) * 20 < hours(quiet)
    assert "create and boot " in bytes_of(2, 1 << 20)


def hours(said: str) -> float:
    """How far back that is."""
    number, unit = said.partition(" each: ")[2].split()[:2]
    return float(number) * {"days": 24, "hours": 1}[unit]
