# SPDX-License-Identifier: Apache-2.0
"""The crash slot is read as FORMAT.md section 11 has it, believed only if it is whole, and is in
nobody's way. Method: slots written here, as the kernel does. Cannot show: the kernel itself."""

from __future__ import annotations

import struct
import zlib

import pytest

from persist import layout
from persist.crash import TEXT_SIZE_MAX, CrashSlot, read_crash_slot
from persist.log import format_region
from persist.recover import Outcome, recover
from persist.region import RegionError
from tests.crash.world import ArrayMedium

SIZE = layout.LOG_OFFSET + (16 << 10)
TEXT = b"recovering\nrip 1\nkernel: page fault: write to 0x0 at rip 0x4012ab in restart 3\n"


def slot(text: bytes, restart: int = 3, time_us: int = 1_700_000_000_000_000) -> bytes:
    """What the kernel writes at offset 0x3000."""
    rest = struct.pack("<IQQ", len(text), restart, time_us) + text
    return b"TARDCRSH" + struct.pack("<I", zlib.crc32(rest)) + rest


def medium_with(data: bytes) -> ArrayMedium:
    """A region that holds nothing else."""
    medium = ArrayMedium(SIZE)
    medium.bytes[0x3000:0x3000 + len(data)] = data
    return medium


@pytest.mark.parametrize("text", [b"", TEXT, b"x" * TEXT_SIZE_MAX, "\u00e4\u00f6".encode()])
def test_a_whole_slot(text: bytes) -> None:
    assert TEXT_SIZE_MAX == 4064
    assert read_crash_slot(medium_with(slot(text))) == CrashSlot(
        False, 3, 1_700_000_000_000_000, text.decode())


def test_it_may_be_older_and_longer_than_what_counts() -> None:
    """What is left of a longer text behind the end does not count; junk in the text is shown."""
    assert read_crash_slot(medium_with(slot(b"short") + TEXT)) == CrashSlot(
        False, 3, 1_700_000_000_000_000, "short")
    found = read_crash_slot(medium_with(slot(b"\xff!")))
    assert found is not None and found.text == "\ufffd!"


def test_nobody_has_written_it() -> None:
    assert read_crash_slot(ArrayMedium(SIZE)) is None


def test_every_flipped_byte_is_noticed() -> None:
    whole = slot(TEXT)
    for offset in range(len(whole)):
        torn = bytearray(whole)
        torn[offset] ^= 0x40
        assert read_crash_slot(medium_with(torn)) == CrashSlot(True, 0, 0, ""), offset


@pytest.mark.parametrize("kept", [1, 8, 12, 31, 32, 60])
def test_a_torn_slot_is_torn(kept: int) -> None:
    assert read_crash_slot(medium_with(slot(TEXT)[:kept])) == CrashSlot(True, 0, 0, "")


def test_a_size_beyond_the_slot_is_torn() -> None:
    rest = struct.pack("<IQQ", TEXT_SIZE_MAX + 1, 1, 1) + b"x" * (TEXT_SIZE_MAX + 1)
    data = b"TARDCRSH" + struct.pack("<I", zlib.crc32(rest)) + rest
    found = read_crash_slot(medium_with(data[:layout.CRASH_SLOT_SIZE]))
    assert found is not None and found.is_torn


def test_a_new_region_is_new_whatever_a_kernel_wrote_before() -> None:
    """The kernel's power-on comes before the server's first superblock."""
    for data in (slot(TEXT), b"x" * layout.CRASH_SLOT_SIZE):
        medium = medium_with(data)
        assert recover(medium, lambda one: None).outcome is Outcome.FRESH
        format_region(medium)
        assert recover(medium, lambda one: None).outcome is Outcome.CLEAN
        assert medium.read(layout.CRASH_SLOT_OFFSET, len(data)) == data


@pytest.mark.parametrize("offset", [0x2FFF, 0x4000])
def test_but_nothing_else_may_be_there(offset: int) -> None:
    medium = medium_with(slot(TEXT))
    medium.bytes[offset] = 1
    with pytest.raises(RegionError, match="no tardigrade region"):
        recover(medium, lambda one: None)
