# SPDX-License-Identifier: Apache-2.0
"""cpio.py: C1, C2, and the format, read back by a reader that is written here after the kernel's
description of it.

Cannot show: that Linux unpacks it; every boot does."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from tests.xen.cpio import BLOCK, Archive


def entries_of(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode, content of each entry of an archive, which must be aligned throughout."""
    found: list[tuple[str, int, bytes]] = []
    offset = 0
    while True:
        assert data[offset:offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * i:offset + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[offset + 110:offset + 110 + name_size]
        assert name[-1:] == b"\0"
        start = (offset + 110 + name_size + 3) & ~3
        content = data[start:start + size]
        offset = (start + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not any(data[offset:]) and len(data) % BLOCK == 0
            return found
        found.append((name[:-1].decode(), mode, content))


def test_files_links_and_directories(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o700)
    (tmp_path / "link").symlink_to("program")
    output = io.BytesIO()
    archive = Archive(output)
    archive.file("/a/b/c", b"12345")
    archive.file("a/d", b"")
    archive.directory("a/b")
    archive.copy(program, "bin/program")
    archive.copy(tmp_path / "link", "bin/link")
    archive.copy(tmp_path / "nothing", "bin/nothing")
    archive.close()
    assert entries_of(output.getvalue()) == [
        ("a", stat.S_IFDIR | 0o755, b""), ("a/b", stat.S_IFDIR | 0o755, b""),
        ("a/b/c", stat.S_IFREG | 0o644, b"12345"), ("a/d", stat.S_IFREG | 0o644, b""),
        ("bin", stat.S_IFDIR | 0o755, b""), ("bin/program", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
        ("bin/link", stat.S_IFLNK | 0o777, b"program")]


def test_archives_can_be_joined() -> None:
    output = io.BytesIO()
    for name in ("one", "two"):
        archive = Archive(output)
        archive.file(name, b"x" * 100)
        archive.close()
    first = output.getvalue()[:BLOCK]
    assert [name for name, _, _ in entries_of(first)] == ["one"]
    assert [name for name, _, _ in entries_of(output.getvalue()[BLOCK:])] == ["two"]
