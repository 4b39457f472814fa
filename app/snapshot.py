# SPDX-License-Identifier: Apache-2.0
"""The moment at which the image takes a snapshot of the whole program, and begins every later life.

F1. Whatever a life may import later is imported before, also what is needed only when something
    goes wrong; it has been run once, so that it is whole in memory.
F2. Nothing was opened yet, and nothing drawn from clock, process id or randomness is used later.
    (The hash seed is part of the snapshot: after repeated crashes the kernel starts cold.)
Knows nothing of the server. Change with: image/README.md."""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import os
import stat
import sys
import time
import traceback

CODECS = ("ascii", "latin-1", "utf-8")
ANSWERS = {b"taken": "taken", b"restored": "restored", b"off": "off"}


class SnapshotError(Exception):
    """There is no such device; the text says what is wrong."""


def take(path: str) -> str:
    """Returns "taken"; in each later life again, with "restored"; "off": there will be none.

    Raises SnapshotError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot open the snapshot device: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise SnapshotError(f"{path}: this is no device that takes snapshots; only the image "
                                "has one: leave out --snapshot")
        warm_up()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()
        answer = os.read(fd, 16)
    except OSError as error:
        raise SnapshotError(f"{path}: no snapshot was taken: {error.strerror}") from error
    finally:
        os.close(fd)
    word = ANSWERS.get(answer.strip())
    if word is None:
        raise SnapshotError(f"{path}: no snapshot was taken: the device answers {answer!r}")
    return word


def warm_up() -> None:
    """Import and run what is needed later (F1). Takes no time from the clock."""
    for name in CODECS:
        codecs.lookup(name)
    if "ring.linux" in sys.modules:  # which asks for it when it needs locked memory
        with contextlib.suppress(ImportError):
            importlib.import_module("ctypes")
    time.strftime("%H:%M:%S", time.gmtime(0))
    try:
        raise SnapshotError("a try")
    except SnapshotError as error:
        traceback.format_exception(error)
