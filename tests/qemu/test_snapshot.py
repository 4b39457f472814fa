# SPDX-License-Identifier: Apache-2.0
"""DESIGN section 6: a restart goes on from the snapshot if that is whole, and is cold if not;
starts that fail make it cold, and in the end they end the machine, loudly.

Method: bytes of the machine's memory are changed behind its back: in the snapshot, whose place the
kernel tells at log=debug, and in the region; then it is made to crash.
Cannot show: two changes that cancel out in the checksum; a byte that changes while it is copied."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from persist import layout
from persist.crash import read_crash_slot
from tests.qemu.load import Load, crash_under
from tests.qemu.machine import CRASH_S, MEMORY_SIZE, Machine
from tools.xsqemu import REGION_ADDRESS

MakeMachine = Callable[..., Machine]
FROM_SNAPSHOT = r"start {}: from the snapshot"
FROM_FILE = r"start {}: from the ELF file"
DAMAGED = "the snapshot is damaged: this start is cold"
GIVE_UP_AFTER, COLD_AFTER = 10, 3  # crash.c
INDEX_HEAD, ENTRY_SIZE, PAGE_SIZE, MAP_SHARED = 32, 16, 4096, 16  # snapshot.c

pytestmark = pytest.mark.slow


class Entry(NamedTuple):
    """A page of the snapshot; `pa` is 0 for zeros."""

    va_flags: int
    pa: int


def indexes(machine: Machine) -> Iterator[int]:
    """Where the index pages of the snapshot are that was taken last."""
    pa = int(re.findall(r"snapshot: first index at 0x([0-9a-f]+)", machine.console())[-1], 16)
    while pa:
        assert 0 < pa < MEMORY_SIZE and pa % PAGE_SIZE == 0
        yield pa
        pa = machine.word(pa)


def entries(machine: Machine) -> Iterator[Entry]:
    """All of its pages."""
    for index in indexes(machine):
        for number in range(machine.word(index + 8)):
            at = index + INDEX_HEAD + ENTRY_SIZE * number
            yield Entry(machine.word(at), machine.word(at + 8))


def copies(machine: Machine) -> list[int]:
    """The addresses of copies."""
    return [one.pa for one in entries(machine) if one.pa and not one.va_flags & MAP_SHARED]


def test_a_snapshot_is_what_the_kernel_says(machine: Machine) -> None:
    """The format that the tests below rely on; and no page of it is in the region."""
    machine.crash("exception")
    found = copies(machine)
    assert len(found) > 500 and len(set(found)) == len(found)
    region = range(REGION_ADDRESS, REGION_ADDRESS + machine.region.size)
    assert all(pa % PAGE_SIZE == 0 and pa not in region and pa < MEMORY_SIZE for pa in found)


WHERE = ["first copy", "some copy", "last copy", "first index", "list"]


@pytest.mark.parametrize("where", WHERE)
def test_a_damaged_snapshot_is_not_believed(machine: Machine, where: str) -> None:
    """One bit is enough. All data are there after the cold start, whose snapshot is good again."""
    chance = random.Random(where)
    pages = copies(machine)
    base = {"first copy": pages[0], "last copy": pages[-1], "some copy": chance.choice(pages),
            "first index": next(indexes(machine)), "list": next(indexes(machine))}[where]
    at = base + (0 if where == "list" else chance.randrange(PAGE_SIZE))
    load = Load(machine, seed=WHERE.index(where), first=30000 + 100 * WHERE.index(where))
    crash_under(load, machine, "exception")
    since = machine.mark()
    machine.patch(at, lambda byte: byte ^ 1 << chance.randrange(8))
    crash_under(load, machine, "exception")
    machine.wait_said(DAMAGED, since)
    machine.wait_said(FROM_FILE.format(r"\d+"), since)
    since = machine.mark()
    crash_under(load, machine, "exception")
    machine.wait_said(FROM_SNAPSHOT.format(r"\d+"), since)
    assert "cold" not in machine.console(since)


def test_without_a_snapshot(make_machine: MakeMachine) -> None:
    machine = make_machine(kernel=("drill=on", "snapshot=off"))
    load = Load(machine, seed=7)
    machine.start()
    for kind in ("exception", "double-fault"):
        crash_under(load, machine, kind)
    assert "snapshot" not in machine.console()
    assert re.search(FROM_FILE.format(2), machine.console())


def test_kernel_log_levels(make_machine: MakeMachine) -> None:
    """A quiet kernel still says why a life has ended."""
    machine = make_machine(kernel=("drill=on", "log=error"))
    machine.start()
    machine.crash("double-fault")
    said = machine.console()
    assert "kernel: double fault" in said and "[kernel] start" not in said


def spoil(machine: Machine) -> None:
    """From now on the region is somebody else's: no start can succeed."""
    for offset in layout.SUPERBLOCK_OFFSETS:
        for index in range(len(layout.MAGIC)):
            machine.patch(REGION_ADDRESS + offset + index, lambda byte: byte ^ 0xFF)


def test_starts_that_fail_end_the_machine(make_machine: MakeMachine) -> None:
    """Three from the snapshot, the others cold; each says why; the last words stay. It takes less
    than a loop would, and more than no pause at all."""
    machine = make_machine()
    machine.start()
    with machine.connect() as client:
        client.control("crash", "exception")
        spoil(machine)
    log = machine.region.read(layout.LOG_OFFSET, 1 << 16)
    assert machine.wait_end(CRASH_S) == 3
    assert machine.region.read(layout.LOG_OFFSET, 1 << 16) == log
    said = machine.console()
    assert len(re.findall(r"^\[kernel\] life \d+ ends", said, re.M)) == 1 + GIVE_UP_AFTER
    assert said.count("this is no tardigrade region") >= GIVE_UP_AFTER
    starts = re.findall(r"start (\d+): from the (\w+)", said)
    assert [int(number) for number, _ in starts] == list(range(1 + GIVE_UP_AFTER))
    kinds = [kind for _, kind in starts]
    assert kinds[1:1 + COLD_AFTER] == ["snapshot"] * COLD_AFTER
    assert kinds[1 + COLD_AFTER] == "ELF"
    assert "too many starts have failed: this one is cold" in said
    assert "[kernel] the end: too many starts in a row have failed" in said
    slot = read_crash_slot(machine.region)
    assert slot is not None and not slot.is_torn
    assert slot.text.endswith(f"kernel: exit status 1 in restart {GIVE_UP_AFTER}\n")
    assert slot.restart == GIVE_UP_AFTER


# -- the facts that outlive a restart


def test_damaged_facts_are_not_believed(make_machine: MakeMachine) -> None:
    """K2, keep.c: with one bit of the command line changed that the kernel has kept, a crash ends
    the machine and says why: the region could be elsewhere. Nothing of the region is lost."""
    word = "watchdog=77"
    machine = make_machine(kernel=("log=debug", "drill=on", word))
    machine.start()
    with machine.connect() as client:
        client.write("/kept", "value")
    memory = machine.memory_path.read_bytes()
    copies = [found.start() for found in re.finditer(word.encode(), memory)]
    assert copies
    for place in copies:
        machine.patch(place + len(word) - 1, lambda byte: byte ^ 1)
    machine.control("crash", "exception")
    machine.wait_end()
    assert "[kernel] the end: the facts kept across restarts are damaged" in machine.console()
    machine.start()
    with machine.connect() as client:
        assert client.read("/kept") == b"value"
