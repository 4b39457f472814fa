# SPDX-License-Identifier: Apache-2.0
"""The server in the dom0 of a real Xen, and as its stub domain, with real guests, all in QEMU.
Method: dom0/*.sh run there and print verdicts; a run that fails leaves its console in build/xen/
and can be repeated by `python -m tests.xen.machine SCENARIO NAME=VALUE...`. README.md says what
the scenarios do.

Cannot show: two processors at once (the machine has one), HVM guests, device models."""

from __future__ import annotations

import pytest

from tests.qemu.machine import build
from tests.xen.machine import run_scenario
from tests.xen.packages import ROOT

CONSOLES = ROOT / "build/xen"
# Ten times what a machine with nothing else to do needs.
BOOT_S = 500.0
KILL_S = 50.0
CRASH_S = 5.0
# All that the image can have (tests/qemu/test_crashes.py says what each of them is).
KINDS = ("exception exit memory loop abort page-fault null general-protection illegal-instruction "
         "stack-overflow divide c-loop heap double-fault machine-check kernel-page-fault "
         "kernel-stack-overflow kernel-panic kernel-code-write initrd-write region-write "
         "snapshot-write")

ENDS_A_PV_DOMAIN = ("double-fault", "kernel-stack-overflow")  # image/kernel/pv.h


def must_succeed(scenario: str, timeout_s: float, **parameters: object) -> None:
    """Run a scenario; its verdicts must be good, and it must have come to its end."""
    run = run_scenario(scenario, parameters, timeout_s, CONSOLES)
    if run.hangs:  # Xen, dom0 and all, which has been seen once: not to be told from the emulator
        print(f"xen: {scenario}: the machine hangs as a whole after {run.took_s:.0f} s, see "
              f"{CONSOLES}/{scenario}.console; once more")
        run = run_scenario(scenario, parameters, timeout_s, CONSOLES)
    complaint = run.complaint()
    if complaint is not None:
        pairs = " ".join(f"{name}={value}" for name, value in parameters.items())
        pytest.fail(f"{complaint}\n{CONSOLES}/{scenario}.console has it all; again: "
                    f"python -m tests.xen.machine {scenario} {pairs}", pytrace=False)


def kinds_of(kernel: str) -> str:
    """Those of KINDS that do not end the domain."""
    is_pv = kernel == "kernel-pv.elf"
    return " ".join(kind for kind in KINDS.split() if not (is_pv and kind in ENDS_A_PV_DOMAIN))


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


@pytest.fixture(scope="module")
def image() -> None:
    """The image is the one of this tree."""
    build()


@pytest.mark.slow
def test_nobody_notices_crashes_of_the_stub_domain(image: None) -> None:
    must_succeed("stubdom", 2 * BOOT_S + 60 * CRASH_S)


@pytest.mark.full
def test_nobody_notices_crashes_of_the_pv_stub_domain(image: None) -> None:
    must_succeed("stubdom", 2 * BOOT_S + 60 * CRASH_S, STUB_KERNEL="kernel-pv.elf",
                 KINDS="exception page-fault kernel-page-fault heap memory")


@pytest.mark.full
def test_nobody_notices_a_thousand_crashes_of_the_pv_stub_domain(image: None) -> None:
    must_succeed("stubdom", 2 * BOOT_S + 1100 * CRASH_S, STUB_KERNEL="kernel-pv.elf",
                 CRASHES=1000, KINDS=kinds_of("kernel-pv.elf"))


@pytest.mark.slow
def test_nobody_notices_that_the_domain_itself_dies(image: None) -> None:
    must_succeed("rescue", 2 * BOOT_S, DEATHS=1)


@pytest.mark.full
def test_nobody_notices_that_the_domain_itself_dies_often(image: None) -> None:
    must_succeed("rescue", 2 * BOOT_S + 40 * KILL_S, DEATHS=10, ENDS="xen watchdog give-up "
                 "power-off")


@pytest.mark.full
def test_nobody_notices_that_a_pv_domain_dies_in_a_busy_host(image: None) -> None:
    must_succeed("rescue", 2 * BOOT_S + 20 * KILL_S, DEATHS=5, BUSY=2, ENDS="xen give-up",
                 STUB_KERNEL="kernel-pv.elf")


@pytest.mark.full
@pytest.mark.parametrize("kernel", ["kernel.elf", "kernel-pv.elf"])
def test_a_hundred_crashes_while_guests_come_and_go(image: None, kernel: str) -> None:
    must_succeed("storm", 2 * BOOT_S + 100 * KILL_S, CRASHES=100, STUB_KERNEL=kernel,
                 KINDS=kinds_of(kernel))


@pytest.mark.full
@pytest.mark.parametrize("kernel", ["kernel.elf", "kernel-pv.elf"])
def test_the_first_reply_with_ten_guests(image: None, kernel: str) -> None:
    must_succeed("crowd", 6 * BOOT_S, MACHINE_MIB=2048, STUB_KERNEL=kernel)


@pytest.mark.full
@pytest.mark.parametrize("kernel", ["kernel.elf", "kernel-pv.elf"])
def test_from_the_daemon_to_a_domain_that_xl_makes(image: None, kernel: str) -> None:
    must_succeed("handover", 2 * BOOT_S, STUB_KERNEL=kernel)


@pytest.mark.full
def test_devices_are_negotiated_while_the_server_crashes(image: None) -> None:
    must_succeed("devices", 4 * BOOT_S)


@pytest.mark.full
def test_core_dumps_of_the_pv_stub_domain(image: None) -> None:
    must_succeed("core", BOOT_S, STUB_KERNEL="kernel-pv.elf")


@pytest.mark.full
def test_core_dumps_of_the_stub_domain(image: None) -> None:
    must_succeed("core", 6 * BOOT_S)


@pytest.mark.full
def test_nobody_notices_a_thousand_crashes_of_all_kinds(image: None) -> None:
    must_succeed("stubdom", 2 * BOOT_S + 1100 * CRASH_S, CRASHES=1000, KINDS=KINDS)
