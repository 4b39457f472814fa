# SPDX-License-Identifier: Apache-2.0
"""An initramfs: files as one cpio archive, format newc, which Linux unpacks at boot.

C1. A directory stands in front of what is in it; each is written once.
C2. The same files make the same bytes: no times, no owners. Archives can be joined end to end.
Knows nothing of what the files are for."""

from __future__ import annotations

import stat
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

ALIGNMENT = 4
BLOCK = 512  # an archive's length is a multiple of this


class Archive:
    """Writes to `file`, which must stand at 0; close() ends the archive, not the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directories = {PurePosixPath("/")}
        self._count = 0

    def directory(self, path: str | PurePath) -> None:
        """A directory, and those above it; nothing if it is there."""
        path = PurePosixPath("/") / path
        if path not in self._directories:
            self.directory(path.parent)
            self._directories.add(path)
            self._entry(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str | PurePath, data: bytes, mode: int = 0o644) -> None:
        """A regular file."""
        path = PurePosixPath("/") / path
        self.directory(path.parent)
        self._entry(path, stat.S_IFREG | mode, data)

    def link(self, path: str | PurePath, target: str) -> None:
        """A symbolic link."""
        path = PurePosixPath("/") / path
        self.directory(path.parent)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source: Path, path: str | PurePath) -> None:
        """A file or link of this machine; nothing else."""
        if source.is_symlink():
            self.link(path, str(source.readlink()))
        elif source.is_file():
            self.file(path, source.read_bytes(), 0o755 if source.stat().st_mode & 0o100 else 0o644)

    def close(self) -> None:
        """End the archive."""
        self._entry(PurePosixPath("/TRAILER!!!"), 0, b"")
        self._file.write(bytes(-self._file.tell() % BLOCK))

    def _entry(self, path: PurePosixPath, mode: int, data: bytes) -> None:
        self._count += 1
        name = str(path)[1:].encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        for part in (header, data):
            self._file.write(part + bytes(-len(part) % ALIGNMENT))
