# SPDX-License-Identifier: Apache-2.0
"""P1, P3, P5: the power of the machine fails; the next machine on the same memory has everything.

Method: kill -9 of QEMU under load at a random moment, again and again on one memory file, also in
the middle of a start; tools/xsdump on a live and on a dead memory; kill -9 of tools/xsqemu itself.
Cannot show: memory that loses its content, or caches that were not written back: what QEMU has
stored into the file is there. A kill comes where it comes; tests/crash enumerates the stores."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tools.xsdump
from tests.qemu.counts import tell
from tests.qemu.load import Load, crash_under
from tests.qemu.machine import CHECKOUT, END_S, POLL_S, Machine

MakeMachine = Callable[..., Machine]
XsDump = Callable[..., str]

pytestmark = pytest.mark.slow


def fail_again_and_again(machine: Machine, kills: int, seed: int) -> Load:
    """Kill QEMU under load; each time look what the next machine has."""
    chance = random.Random(seed)
    load = Load(machine, seed)
    machine.start()
    for kill in range(kills):
        load.start()
        load.wait(1)
        time.sleep(chance.uniform(0.001, 0.12))
        machine.kill_qemu()
        load.end()
        since = machine.mark()
        if kill % 4 == 3:  # once more, somewhere in the start
            machine.spawn()
            machine.find_qemu()
            time.sleep(chance.uniform(0.0, 1.5))
            machine.kill_qemu()
        machine.start()
        load.check()
        said = machine.console(since)
        assert "DAMAGED" not in said, machine.error(f"seed {seed}, kill {kill}")
        assert "after a crash" in said
    return load


def test_power_fails_under_load(make_machine: MakeMachine) -> None:
    """And the causes that were recorded before count no more: nobody is to blame for the power."""
    kills = 8
    machine = make_machine(region_size=1 << 20)
    load = fail_again_and_again(machine, kills, seed=1)
    tell(f"qemu: {kills} kills of QEMU: {load.operations} operations acknowledged, "
         f"{load.under_way} under way: nothing lost")
    assert load.under_way
    crash_under(load, machine, "page-fault")  # from a snapshot of this machine, not of another
    machine.close()


@pytest.mark.full
def test_power_fails_a_hundred_times(make_machine: MakeMachine) -> None:
    load = fail_again_and_again(make_machine(), 100, seed=2)
    assert load.operations > 1000


@pytest.fixture
def xsdump(capsys: pytest.CaptureFixture[str]) -> XsDump:
    """tools/xsdump on a machine's memory: it must succeed; what it says."""
    def run(machine: Machine, *words: str) -> str:
        code = tools.xsdump.main([str(machine.memory_path), *words])
        text = capsys.readouterr().out
        assert code == 0, text
        return text

    return run


def test_xsdump_on_the_memory(make_machine: MakeMachine, xsdump: XsDump) -> None:
    """P8: beside the running machine, under load; and when there is none any more."""
    machine = make_machine()
    load = Load(machine, seed=3)
    machine.start()
    crash_under(load, machine, "exception")
    load.start()
    for _ in range(5):
        load.wait(10)
        assert "running or crashed" in xsdump(machine, "info")
        assert "/k/0/" in xsdump(machine, "log")
        assert xsdump(machine, "verify").startswith("OK: ")
    load.wait(1)
    machine.kill_qemu()
    load.end()
    info = xsdump(machine, "info")
    assert re.search(r"^last death .*RuntimeError: a drill; kernel: exit status 1 in restart 0",
                     info, re.M), info
    assert "DAMAGE" not in info
    assert xsdump(machine, "verify").startswith("OK: ")
    assert "life 2 begins" in xsdump(machine, "log")


def test_xsdump_on_a_core_dump(machine: Machine, tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU's dump-guest-memory has the region, too."""
    with machine.connect() as client:
        client.write("/dumped", "in the core")
    machine.monitor(f"dump-guest-memory {tmp_path / 'core'}")
    assert tools.xsdump.main([str(tmp_path / "core"), "tree"]) == 0
    assert '/dumped = "in the core" (n0)\n' in capsys.readouterr().out


def test_xsdump_as_a_command(machine: Machine) -> None:
    done = subprocess.run([CHECKOUT / "tools" / "xsdump", machine.memory_path, "verify"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=END_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and done.stdout.startswith("OK: "), done.stdout


def test_a_region_of_a_dead_machine_is_a_region(make_machine: MakeMachine, tmp_path: Path) -> None:
    """The region, cut out of the memory's file, is what any region file is."""
    machine = make_machine()
    machine.start()
    with machine.connect() as client:
        client.write("/a/b", "there")
    machine.kill_qemu()
    region = machine.copy_region(tmp_path / "region")
    done = subprocess.run([CHECKOUT / "tools" / "xsdump", region, "tree"], capture_output=True,
                          text=True, check=True, timeout=END_S)
    assert '/a/b = "there" (n0)\n' in done.stdout


def test_a_second_machine_on_the_same_memory_is_refused(machine: Machine) -> None:
    with machine.connect() as client:
        client.write("/kept", "1")
    command = [word.replace("socket", "second") if word == str(machine.socket_path) else word
               for word in machine.command]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=END_S,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert f"{machine.memory_path}: another machine uses this memory" in done.stderr
    with machine.connect() as client:
        assert client.read("/kept") == b"1"


def test_qemu_goes_with_xsqemu(make_machine: MakeMachine) -> None:
    """And the memory is free for the next one, which has everything."""
    machine = make_machine()
    load = Load(machine, seed=4)
    machine.start()
    load.start()
    load.wait(10)
    pid = machine.find_qemu()
    machine.kill_xsqemu()
    load.end()
    deadline = time.monotonic() + END_S
    while is_running(pid):
        assert time.monotonic() < deadline, f"QEMU, {pid}, runs on"
        time.sleep(POLL_S)
    machine.start()
    load.check()


def is_running(pid: int) -> bool:
    """Whether there is such a process, that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_switching_off_is_quick_and_loses_nothing(make_machine: MakeMachine) -> None:
    """SIGTERM for xsqemu is the power switch; there is no clean end in the image."""
    machine = make_machine()
    machine.start()
    with machine.connect() as client:
        client.write("/a", "1")
    pid = machine.find_qemu()
    machine.stop()
    assert not is_running(pid)
    machine.start()
    with machine.connect() as client:
        assert client.read("/a") == b"1"


def test_the_drill_of_the_power(make_machine: MakeMachine) -> None:
    machine = make_machine()
    machine.start()
    with machine.connect() as client:
        client.write("/a", "1")
        assert client.control("crash", "power-off") == "OK"
        machine.wait_end()
    assert "[kernel] the end: " in machine.console()
    machine.start()
    with machine.connect() as client:
        assert client.read("/a") == b"1"


def test_memory_of_another_size_is_refused(make_machine: MakeMachine) -> None:
    machine = make_machine()
    with open(machine.memory_path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 32 << 20)
    machine.spawn()
    assert machine.wait_end() == 1
    assert "holds 32 MiB, not the 64 asked for" in machine.console()
