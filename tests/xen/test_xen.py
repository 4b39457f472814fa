# SPDX-License-Identifier: Apache-2.0
"""The server in the dom0 of a real Xen, with real guests, all in QEMU. Method: dom0/*.sh run there
and print verdicts; a run that fails leaves its console in build/xen/ and can be repeated by
`python -m tests.xen.machine SCENARIO NAME=VALUE...`. README.md says what the scenarios do.

Cannot show: two processors at once (the machine has one), HVM guests, device backends."""

from __future__ import annotations

import pytest

from tests.xen.machine import run_scenario
from tests.xen.packages import ROOT

CONSOLES = ROOT / "build/xen"
# Ten times what a machine with nothing else to do needs.
BOOT_S = 500.0
KILL_S = 50.0


def must_succeed(scenario: str, timeout_s: float, **parameters: object) -> None:
    """Run a scenario; its verdicts must be good, and it must have come to its end."""
    run = run_scenario(scenario, parameters, timeout_s, CONSOLES)
    complaint = run.complaint()
    if complaint is not None:
        pairs = " ".join(f"{name}={value}" for name, value in parameters.items())
        pytest.fail(f"{complaint}\n{CONSOLES}/{scenario}.console has it all; again: "
                    f"python -m tests.xen.machine {scenario} {pairs}", pytrace=False)


@pytest.mark.full
def test_the_lab_itself_with_debians_xenstored() -> None:
    must_succeed("basics", BOOT_S, SERVER="c")


@pytest.mark.full
def test_the_adapter_beside_debians_xenstored() -> None:
    must_succeed("probe", BOOT_S, SERVER="c")


@pytest.mark.full
def test_an_ordinary_day() -> None:
    must_succeed("basics", BOOT_S, SERVER="ours")


@pytest.mark.slow
def test_nobody_notices_ten_kills() -> None:
    must_succeed("survive", BOOT_S + 10 * KILL_S, SERVER="ours", KILLS=10)


@pytest.mark.full
def test_nobody_notices_a_hundred_kills() -> None:
    must_succeed("survive", BOOT_S + 100 * KILL_S, SERVER="ours", KILLS=100)
