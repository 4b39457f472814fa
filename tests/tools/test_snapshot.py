# SPDX-License-Identifier: Apache-2.0
"""A snapshot on its way from one domain into another: published by the kernel's own code, taken out
by tools/boot/snapshot.py, adopted by the kernel's own code again. Method: the kernel's file as a
program of this host (tests/image/carried_test.c), whose memory is a domain's here.

Cannot show: that a program goes on from it (tests/xen, scenario rescue)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from tests.image.test_kernel import Program, compile_program, run
from tests.tools.test_xsboot import HANDLE
from tools.boot import snapshot
from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE
from tools.boot.libxen import DOMINF_HVM, Domain
from tools.boot.place import Place

DOMAIN = Domain(7, DOMINF_HVM, 0, 0, HANDLE, 1, 0)
ENTRIES = 400  # carried_test.c
PLACE = Place(1 << 20, 4 << 20)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """carried_test.c."""
    return partial(run, compile_program(tmp_path_factory.mktemp("carried"), "carried"))


class Memory:
    """What ForeignMemory shows of a domain's frames."""

    def __init__(self, memory: bytes, frames: Sequence[int]) -> None:
        pages = [memory[frame * PAGE_SIZE:(frame + 1) * PAGE_SIZE] for frame in frames]
        if not all(len(page) == PAGE_SIZE for page in pages):
            raise BootError("there is no such frame")
        self._data = b"".join(pages)
        self.size = len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes."""
        return self._data[offset:offset + size]

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def take(memory: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes | None:
    """The snapshot out of a domain's memory."""
    monkeypatch.setattr(snapshot, "ForeignMemory", lambda domid, place, frames: Memory(
        memory, frames))
    return snapshot.take(DOMAIN)


@pytest.fixture
def taken(kernel: Program, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A snapshot that is whole."""
    found = take(kernel("publish"), monkeypatch)
    assert found is not None
    return found


def expected() -> list[str]:
    """What adopt says of each entry."""
    found = []
    for number in range(ENTRIES):
        byte, flags = (ord("i"), 16) if number % 10 == 0 else (
            (number % 255, 0) if number % 3 else (-1, 0))
        found.append(f"{0x400000 + number * PAGE_SIZE | flags:x} {byte}")
    return found


def test_a_snapshot_arrives(kernel: Program, taken: bytes) -> None:
    where, *entries = kernel("adopt", given=taken).decode().splitlines()
    place = snapshot.place_of(taken, PLACE)
    assert place == Place(len(taken), PLACE.address + PLACE.size)
    assert int(where) == place.address + PAGE_SIZE and entries == expected()


@pytest.mark.parametrize("word", ["arguments", "initrd", "place", "kernel", "restart", "off",
                                  "no-xen", "taken"])
def test_it_is_no_snapshot_of_anything_else(word: str, kernel: Program, taken: bytes) -> None:
    assert kernel("adopt", word, given=taken) == b"0\n"


@pytest.mark.parametrize("at", [0, 8, 16, 24, 32, 40, PAGE_SIZE, PAGE_SIZE + 9, 2 * PAGE_SIZE,
                                -1, -PAGE_SIZE])
def test_a_byte_that_is_wrong_is_noticed(at: int, kernel: Program, taken: bytes) -> None:
    damaged = bytearray(taken)
    damaged[at] ^= 0x40
    assert kernel("adopt", given=bytes(damaged)) == b"0\n"
    assert kernel("adopt", given=taken[:-PAGE_SIZE]) == b"0\n"


def test_the_same_is_not_taken_twice(kernel: Program, taken: bytes,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    memory = kernel("publish")
    assert take(memory, monkeypatch) == taken
    assert snapshot.take(DOMAIN, taken) is taken
    other = b"another note".ljust(PAGE_SIZE) + taken[PAGE_SIZE:]
    assert snapshot.take(DOMAIN, other) == taken
    at = snapshot.NOTE_ADDRESS
    assert take(memory[:at] + bytes(PAGE_SIZE) + memory[at + PAGE_SIZE:], monkeypatch) is None


def test_what_is_published_wrongly_is_not_taken(kernel: Program,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is there: nothing raises, nothing runs for ever."""
    memory = kernel("publish")
    note = snapshot.NOTE_ADDRESS
    first = int.from_bytes(memory[note + 8:note + 16], "little")
    for at, value in [(note, bytes(8)), (note + 8, b"\xff" * 8), (note + 16, bytes(8)),
                      (note + 16, b"\xff" * 8), (first, b"\xff" * 8),
                      (first, first.to_bytes(8, "little"))]:  # a list without an end
        assert take(memory[:at] + value + memory[at + 8:], monkeypatch) is None
    assert take(b"", monkeypatch) is None
