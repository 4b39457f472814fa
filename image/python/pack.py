# SPDX-License-Identifier: Apache-2.0
"""The initrd: a cpio archive (newc) that holds one file.

    pack.py FILE NAME ARCHIVE

K1. The file's data begins at a multiple of PAGE in the archive: the kernel maps text where it lies.
    For that the name is followed by as many NUL bytes as it takes, which count as part of it.
K2. The same file makes the same bytes: no time, no owner, no number but 1.
Knows nothing of the file. Change with: image/kernel, which reads this."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

MAGIC = b"070701"
HEADER_SIZE = 110
ALIGNMENT = 4
PAGE = 4096  # and the longest name that Linux takes, padding included
BLOCK = 512  # an archive's length is a multiple of this
SIZE_MAX = 0xFFFFFFFF


def entry(name: bytes, inode: int, mode: int, data: bytes) -> bytes:
    """One file of an archive. `name` ends with NUL bytes."""
    fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    assert len(header) == HEADER_SIZE
    head = header + name
    return head + bytes(-len(head) % ALIGNMENT) + data + bytes(-len(data) % ALIGNMENT)


def archive(name: str, data: bytes) -> bytes:
    """The whole archive."""
    assert len(data) <= SIZE_MAX
    padded = name.encode().ljust(PAGE - HEADER_SIZE, b"\0")
    assert len(padded) == PAGE - HEADER_SIZE and padded.endswith(b"\0")
    whole = entry(padded, 1, stat.S_IFREG | 0o755, data)
    assert whole[PAGE:PAGE + len(data)] == data
    whole += entry(b"TRAILER!!!\0", 0, 0, b"")
    return whole + bytes(-len(whole) % BLOCK)


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(archive(sys.argv[2], Path(sys.argv[1]).read_bytes()))
