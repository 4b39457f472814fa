# SPDX-License-Identifier: Apache-2.0
"""image/unikraft's C without Unikraft: against headers that are made up here (unikraft.h), with the
undefined-behaviour sanitizer. Method: lives that ruin all of their memory and end in every way, on
a made-up image and heap; event channels and grants on a made-up hypervisor, with Xen's own headers;
what this library says twice is compared.

Cannot show: that Unikraft's headers, sections and events are like this; docs/UNIKRAFT.md says how
it was built and booted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from persist import layout
from persist.crash import read_crash_slot
from tests.oracle import packages
from tools.boot.place import Place, place_in_kernel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIBRARY = ROOT / "image/unikraft"
CHECKSUM = ROOT / "image/kernel/checksum.c"
FLAGS = ["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-pie",
         "-fsanitize=undefined", "-fno-sanitize-recover=all"]
THEIRS = re.compile(r"(?m)^#include <((?:uk|common|xen|xen-x86)/[^>]+)>")
CRASH = ["apart.c", "region.c", "crash.c", "snapshot.c", "context.S"]
XEN = ["evtchn.c", "grant.c", "privcmd.c", "apart.c"]


def build(directory: Path, test: str, files: list[str], flags: list[str]) -> Path:
    """The test's program: itself first, then the library's files."""
    packages.need_tools("gcc")
    stubs = directory / "stubs"
    for source in LIBRARY.glob("*.[ch]"):
        for name in THEIRS.findall(source.read_text("utf-8")):
            if name.startswith("xen/") and flags:
                continue
            stub = stubs / name
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text('#include "unikraft.h"\n')
    program = directory / test
    packages.run_checked(
        ["gcc", *FLAGS, *flags, "-no-pie", "-I", str(stubs), "-I", str(HERE), "-I", str(LIBRARY),
         "-o", str(program), str(HERE / f"{test}.c"), *(str(LIBRARY / name) for name in files),
         str(CHECKSUM)])
    return program


@pytest.fixture(scope="module")
def crash_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("crash"), "crash_test", CRASH, [])


def lives(program: Path, *ends: str, code: int = 0) -> list[str]:
    """What lives that end so have said; the last one ends the process with `code`."""
    done = subprocess.run([program, *ends], capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout.decode()
    return done.stdout.decode().splitlines()


def test_every_life_begins_as_the_first(crash_test: Path) -> None:
    said = lives(crash_test, "trap", "abort", "exit")
    assert [line for line in said if line.startswith("life")] == [
        "life 0: taken", "life 1: restored", "life 2: restored", "life 3: restored"]


def test_the_slot_has_what_was_said_and_why_it_ended(crash_test: Path) -> None:
    said = "\n".join(lives(crash_test, "trap", "abort"))
    assert re.search(r"life 1: restored\nslot \d+: said\nrax 0{16} ", said)
    assert ("kernel: page fault: write to 0x600000000000 at rip 0x1234 in restart 0"
            in said.split("life 1")[1])
    assert re.search(r"life 2: restored\nslot \d+: said\nkernel: Unikraft or libc has ended the "
                     r"machine, reason 3 in restart 1", said)


def test_a_life_that_has_not_read_adds_one_line(crash_test: Path) -> None:
    said = "\n".join(lives(crash_test, "trap", "unread"))
    found = said.split("life 2: restored\n")[1]
    assert re.search(r"^slot \d+: said\nrax 0{16} ", found) and found.count("rax ") == 1
    assert found.endswith("in restart 0\nkernel: unread at rip 0x1234 in restart 1")


@pytest.mark.parametrize("end", ["tear text", "tear size"])
def test_a_damaged_slot_is_empty(crash_test: Path, end: str) -> None:
    said = lives(crash_test, end, "exit")
    assert said[said.index("life 1: restored") + 1].startswith("slot 0: ")
    assert re.match(r"slot \d+: said", said[said.index("life 2: restored") + 1])


def test_a_clean_end_ends_the_machine(crash_test: Path) -> None:
    assert lives(crash_test, "trap", "clean", code=0)[-1] != "life 2: restored"


def test_a_damaged_snapshot_is_not_believed(crash_test: Path) -> None:
    said = lives(crash_test, "damage", code=3)
    assert not any("restored" in line for line in said)


def test_damage_to_what_is_kept_is_not_believed(crash_test: Path) -> None:
    said = lives(crash_test, "trap", "damage keep", code=3)
    assert said[-1] == "tardigrade: the end: what is kept across lives is damaged"
    assert any(line.startswith("kernel: damage keep") for line in said)


def test_failed_starts_wait_longer_and_end(crash_test: Path) -> None:
    said = lives(crash_test, *["early"] * 20, code=3)
    assert [line for line in said if line.startswith("delay")] == [
        f"delay {ms} ms" for ms in (20, 40, 80, 160, 320, 640, 1000, 1000, 1000)]
    assert said[-1] == "tardigrade: the end: too many starts in a row have failed"


# -- what is said twice


class Memory:
    """A region in an array."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes."""
        return self.data[offset:offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Nobody does."""
        raise AssertionError


def test_the_slot_is_as_persist_reads_it(crash_test: Path) -> None:
    done = subprocess.run([crash_test, "trap"], capture_output=True, timeout=60, check=True)
    slot = read_crash_slot(Memory(done.stderr))
    assert slot is not None and not slot.is_torn and slot.text == ""  # the second life has read it
    header = (LIBRARY / "tardigrade.h").read_text("utf-8")
    numbers = {name: int(value, 0) for name, value in re.findall(
        r"#define (CRASH_SLOT_\w+) (0x\w+)", header)}
    assert numbers == {"CRASH_SLOT_OFFSET": layout.CRASH_SLOT_OFFSET,
                       "CRASH_SLOT_SIZE": layout.CRASH_SLOT_SIZE}


def test_the_kernels_file_says_where_the_region_is(crash_test: Path) -> None:
    listed = subprocess.run(["nm", "-S", crash_test], capture_output=True, text=True, timeout=60,
                            check=True).stdout
    found = re.search(r"(?m)^(\w+) (\w+) B apart$", listed)
    assert found is not None
    end = int(found[1], 16) + int(found[2], 16)  # the region is the last in it
    assert place_in_kernel(str(crash_test)) == Place(1 << 20, end - (1 << 20))


# -- Xen


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_event_is_lost_and_nothing_of_others_kept(tmp_path: Path, seed: int) -> None:
    packages.fetch()
    headers = f"-I{packages.package_root()}/usr/include"
    program = build(tmp_path, "xen_test", XEN, ["-DMADE_UP_XEN", headers,
                    "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__"])
    done = subprocess.run([program, str(seed)], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
