# SPDX-License-Identifier: Apache-2.0
"""A file that a command makes: whole, or not there.

O1. It is made under another name beside its place, and gets its own when it is whole. Dying before:
    the place is as it was, and `.NAME.new-PID` is left beside it.
O2. What is at the place already is replaced only by force; never what the command reads, nor a
    region that a server uses.
Knows nothing of what is in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import BinaryIO


class OutputError(Exception):
    """The file cannot be made; the text names it and says why."""


@contextlib.contextmanager
def new_file(path: str, source: str, is_forced: bool) -> Iterator[str]:
    """Where to make the file that is to be `path`; it gets there when the block ends. `source`:
    what is read meanwhile. Raises OutputError."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.new-{os.getpid()}")
    try:
        if os.path.lexists(path):
            _refuse(path, source, is_forced)
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, temporary)
            yield temporary
            _sync(temporary)
            if is_forced:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # never over a file that somebody has made meanwhile
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def create(place: str) -> BinaryIO:
    """The file that was given a place, for its owner only: a store may hold secrets."""
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _refuse(path: str, source: str, is_forced: bool) -> None:
    if os.path.exists(source) and os.path.exists(path) and os.path.samefile(path, source):
        raise OutputError(f"{path}: this is what is read")
    if not is_forced:
        raise OutputError(f"{path}: there is such a file; --force replaces it")
    if not os.path.isfile(path):
        raise OutputError(f"{path}: this is no plain file")
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{path}: a server uses this region") from error


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
