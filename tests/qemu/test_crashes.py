# SPDX-License-Identifier: Apache-2.0
"""P1, P3, P4 (sockets), P6, P8: every kind of death that the image can die, while clients write.

Method: CONTROL crash KIND, or QEMU's monitor, with the writers of tests/crash/kill9.py at work;
then their acknowledged state is compared with what is there, and the recorded cause with what was
done.
Cannot show: every instruction at which a death may come (tests/crash enumerates those for the
stores into the region); real processors, whose caches and machine checks QEMU does not have."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import pytest

from tests.oracle.xsclient import ConnectionClosed, MessageType, SocketConnection, strings
from tests.qemu.load import Load, crash_under
from tests.qemu.machine import CRASH_S, Machine, wait_closed

EXIT_OF_PYTHON = r"kernel: exit status 1 in restart \d+"
IN_KERNEL_WRITE = "kernel: page fault in the kernel: write to 0x"
MACHINE_CHECK = "mce 0 9 0xb000000000000000 0x4 0 0"  # bank 9: valid, uncorrected; in progress
RECOVERY_TRIES = 6
SEGMENTATION = "Fatal Python error: Segmentation fault"

# Kind and arguments: what its cause says, of Python first, then of the kernel; what it must say
# beyond: a traceback, if Python has had a word; the trap's number.
CAUSES: dict[str, tuple[str, ...]] = {
    "exception": ("Traceback", "in _raise", "RuntimeError: a drill", EXIT_OF_PYTHON),
    "exit": ("Traceback", "SystemExit: 3", r"kernel: exit status 3 in restart \d+"),
    "memory": ("MemoryError", EXIT_OF_PYTHON),
    "loop": (r"in _loop", r"kernel: watchdog: no progress in 2 s of running time at rip 0x"),
    "abort": ("Fatal Python error: Aborted", r"kernel: signal 6 raised at rip 0x"),
    "page-fault": (SEGMENTATION, "in carry_out", "trap 14 error 6",
                   "kernel: page fault: write to 0x600000000000 at rip 0x"),
    "null": (SEGMENTATION, "in carry_out", "kernel: page fault: write to 0x0 at rip 0x"),
    "general-protection": (SEGMENTATION, "in carry_out", "trap 13",
                           "kernel: general protection fault"),
    "illegal-instruction": ("Fatal Python error: Illegal instruction", "in carry_out", "trap 6 ",
                            "kernel: illegal instruction at rip 0x"),
    "stack-overflow": (SEGMENTATION, "in carry_out", "trap 14",
                       "kernel: page fault: write to 0x[0-9a-f]+ at rip 0x"),
    "divide": ("Fatal Python error: Floating point exception", "in carry_out", "trap 0 ",
               "kernel: divide error at rip 0x"),
    "c-loop": (r"in carry_out", "kernel: watchdog: no progress in 2 s of running time at rip 0x"),
    "heap": ("kernel: ",),
    "wild-write 0x400000 16": (SEGMENTATION, "in carry_out",
                               "kernel: page fault: write to 0x400000 at rip 0x"),
    "wild-write 0xffffffff80200000 1": (
        SEGMENTATION, "kernel: page fault: write to 0xffffffff80200000 at rip 0x"),
    "double-fault": (r"kernel: double fault in the kernel at rip 0xf+8[0-9a-f]+ in", "trap 8 "),
    "machine-check": (r"kernel: machine check in the kernel at rip 0x", "trap 18 "),
    "kernel-page-fault": (IN_KERNEL_WRITE + "ffff[0-9a-f]+ at rip 0xf+8", "trap 14 error 2"),
    "kernel-stack-overflow": (
        r"kernel: (double|page) fault in the kernel.* at rip 0xf+8", "trap (8|14) "),
    "kernel-panic": (r"kernel: panic at drill\.c:\d+: a drill in restart",),
    "kernel-code-write": (IN_KERNEL_WRITE + "f+80200000 at rip 0xf+8", "trap 14 error 3"),
    "initrd-write": (IN_KERNEL_WRITE + "ffff8[0-9a-f]+ at rip 0xf+8", "trap 14 error 3"),
    "region-write": (IN_KERNEL_WRITE + "ffff880001000000 at rip 0xf+8", "trap 14 error 3"),
    "snapshot-write": (IN_KERNEL_WRITE + "ffff8[0-9a-f]+ at rip 0xf+8", "trap 14 error 3"),
}
KINDS = list(CAUSES)
NO_RESTART = "power-off"  # see test_power.py
QUICK = ("exception", "page-fault")


def seed_of(text: str) -> int:
    """Another one for every test, the same every time."""
    return zlib.crc32(text.encode())


def expect_cause(machine: Machine, since: int, restart: int, wanted: tuple[str, ...]) -> None:
    """The last life's cause, in the log and in the LIFE record, says all that it should."""
    line = machine.wait_said(r"^tardigrade: the last life ended by: (.*)$", since)[1]
    said = machine.console(since)
    assert f"start {restart + 1}: from the snapshot" in said
    assert "DAMAGED" not in said and "cold" not in said
    cause = machine.cause()
    for pattern in wanted:
        assert re.search(pattern, cause), f"{pattern!r} is not in the recorded cause:\n{cause}"
    assert f"in restart {restart}" in cause, cause
    assert line.split("; ")[-1] in cause, (line, cause)


def restarts(machine: Machine) -> int:
    """How often it has restarted since power-on."""
    return max(map(int, re.findall(r"start (\d+): from", machine.console())))


def test_kinds_are_those_that_are_tested_here(machine: Machine) -> None:
    """A kind that somebody adds is tested, or named here."""
    listed = machine.control("crash").split()
    assert set(listed) == {kind.split()[0] for kind in KINDS} | {NO_RESTART}


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in KINDS])
def test_nothing_is_lost(machine: Machine, kind: str) -> None:
    load = Load(machine, seed_of(kind), first=100 * KINDS.index(kind))
    restart, since = restarts(machine), machine.mark()
    crash_under(load, machine, *kind.split())
    expect_cause(machine, since, restart, CAUSES[kind])
    assert load.operations >= 12


@pytest.mark.slow
def test_a_machine_check_of_the_processor(machine: Machine) -> None:
    """Twice: the first one must have been put away."""
    load = Load(machine, 9, first=9000)
    for _ in range(2):
        restart, since = restarts(machine), machine.mark()
        load.start()
        load.wait(12)
        with machine.connect() as client:
            client.read("/tool")
            machine.monitor(MACHINE_CHECK)
            wait_closed(client, machine)
        machine.wait_served(CRASH_S)
        load.end()
        load.check()
        expect_cause(machine, since, restart, (r"kernel: machine check .*at rip 0x", "trap 18 "))


@pytest.mark.slow
def test_a_non_maskable_interrupt(machine: Machine) -> None:
    since = machine.mark()
    machine.monitor("nmi")
    machine.wait_said(r"kernel: NMI .*at rip 0x", since, timeout_s=1)
    machine.wait_served()
    assert re.search("trap 2 ", machine.cause())


@pytest.mark.slow
def test_a_death_in_a_recovery(make_machine: Callable[..., Machine]) -> None:
    """A machine check as soon as the next life begins: explained as such, nobody's fault, and the
    life after that has everything. Most tries must meet the recovery, which nodes make longer."""
    machine = make_machine(arguments=("--drill", "--watchdog", "2"))
    machine.start()
    with machine.connect() as client:
        for number in range(1500):
            client.write(f"/recovered/{number}", "v" * 40)
    load = Load(machine, seed=10)
    met = 0
    for _ in range(RECOVERY_TRIES):
        since = machine.mark()
        load.start()
        load.wait(6)
        machine.control("crash", "exception")
        machine.wait_said(r"start \d+: from the snapshot", since)
        machine.monitor(MACHINE_CHECK)
        machine.wait_said(r"machine check .*in restart \d+$", since)
        machine.wait_said("the last life ended by: .*machine check", since)
        machine.wait_served(CRASH_S)
        met += "while recovering: kernel: machine check" in machine.console(since)
        load.end()
        load.check()
    assert met >= RECOVERY_TRIES // 2, met
    assert not [key for key in machine.replay().items if key.startswith(("suspect.", "poison."))]


# -- poison


@pytest.mark.slow
@pytest.mark.parametrize("kind", [
    "exception", "page-fault", "double-fault", "kernel-page-fault", "memory", "exit", "loop",
    "c-loop"])
def test_a_request_that_kills_is_answered_eio(machine: Machine, kind: str) -> None:
    """P6: the third time, after two deaths. Others are served in between and afterwards, and the
    client with the poison also, once it asks for something else."""
    load = Load(machine, seed_of("now" + kind), first=20000 + 100 * KINDS.index(kind))
    with machine.connect() as other:
        other.write(f"/poison/{kind}", "before")
    for _ in range(2):
        load.start()
        load.wait(6)
        with machine.connect() as client:
            client.send(MessageType.CONTROL, strings("crash", kind, "now"))
            wait_closed_unanswered(client, machine)
        machine.wait_served(CRASH_S)
        load.end()
        load.check()
        with machine.connect() as other:
            assert other.read(f"/poison/{kind}") == b"before"
    restart = restarts(machine)
    load.start()
    load.wait(6)
    with machine.connect() as client:
        reply = client.request(MessageType.CONTROL, strings("crash", kind, "now"),
                               timeout_s=CRASH_S)
        assert reply.error == "EIO"
        assert client.read(f"/poison/{kind}") == b"before"
    load.wait(6)
    assert restarts(machine) == restart
    assert machine.crash("exception") > 0
    load.end()
    load.check()


def wait_closed_unanswered(client: SocketConnection, machine: Machine) -> None:
    """Until the connection is closed; no message may come before."""
    try:
        message = client.receive(CRASH_S)
    except ConnectionClosed:
        return
    raise machine.error(f"expected the connection's end, not {message}")
