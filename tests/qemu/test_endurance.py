# SPDX-License-Identifier: Apache-2.0
"""P1, P3, P7: a machine that dies again and again loses nothing, and does not wear out.

Method: crashes of mixed kinds under load, in one machine: the check of tests/qemu/load.py after
each; free memory, as the server reports it in its first moment, must be at the end what it was at
the beginning.
Cannot show: a leak of less than a page in a life, were it in what outlives a life."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable

import pytest

from tests.qemu.counts import tell
from tests.qemu.load import Load, crash_under
from tests.qemu.machine import CRASH_S, Machine

MakeMachine = Callable[..., Machine]
KINDS = ["exception", "exit", "abort", "page-fault", "null", "general-protection",
         "illegal-instruction", "stack-overflow", "divide", "double-fault", "machine-check",
         "kernel-page-fault", "memory", "heap"]
MEDIAN_S, SLACK_KIB = 0.3, 256
NO_QUICK_DEATH_S = 0.12  # more than crash.c calls quick: those are slowed down


def free_kib(machine: Machine) -> int:
    """Free memory, as the server reports it."""
    found = re.search(r"^free memory: (\d+) KiB$", machine.control("memreport"), re.M)
    assert found is not None
    return int(found[1])


def endure(machine: Machine, crashes: int, seed: int) -> None:
    """That many crashes; then the figures."""
    chance = random.Random(seed)
    load = Load(machine, seed)
    machine.start()
    began_s = time.monotonic()
    times_s: list[float] = []
    free: list[int] = []
    for _ in range(crashes):
        kind = chance.choice(KINDS)
        took_s = crash_under(load, machine, kind, operations=5, serving_s=NO_QUICK_DEATH_S)
        if kind != "heap":  # which lets it live on for a while
            times_s.append(took_s)
        free.append(free_kib(machine))
    took_s = time.monotonic() - began_s
    said = machine.console()
    assert "DAMAGED" not in said and "cold" not in said and "corrupt" not in said
    assert f"start {crashes}: from the snapshot" in said
    tell(f"qemu: {crashes} crashes in {took_s:.0f} s with {load.operations} operations, "
         f"{load.under_way} under way: nothing lost; crash to first reply min "
         f"{min(times_s):.3f}, median {statistics.median(times_s):.3f}, max {max(times_s):.3f} s; "
         f"free memory {free[0]} KiB at first, {free[-1]} in the end, {min(free)} at least")
    quarter = max(crashes // 4, 2)
    assert max(free[-quarter:]) > min(free[1:quarter + 1]) - SLACK_KIB, free
    assert statistics.median(times_s) < MEDIAN_S, times_s


@pytest.mark.slow
def test_forty_crashes(make_machine: MakeMachine) -> None:
    endure(make_machine(region_size=2 << 20), 40, seed=1)


@pytest.mark.full
def test_a_thousand_crashes(make_machine: MakeMachine) -> None:
    endure(make_machine(), 1000, seed=2)


@pytest.mark.slow
def test_quick_deaths_are_slowed_down_and_served_again(make_machine: MakeMachine) -> None:
    """Lives that end at once make the next start wait, never for longer than a second; one that
    lives a while ends that. Nothing is given up as long as each life serves."""
    machine = make_machine()
    machine.start()
    times_s = []
    for _ in range(32):
        with machine.connect() as client:
            assert client.control("crash", "exception") == "OK"
            began_s = time.monotonic()
        machine.wait_served(CRASH_S)
        times_s.append(time.monotonic() - began_s)
    assert max(times_s) < 10
    assert "start 32: from the snapshot" in machine.console()
    tell(f"qemu: 32 quick deaths: crash to first reply median {statistics.median(times_s):.3f}, "
         f"max {max(times_s):.3f} s")
