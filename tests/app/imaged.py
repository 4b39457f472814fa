# SPDX-License-Identifier: Apache-2.0
"""The server as if it were in the image: python -m tests.app.imaged ...

There is no module `resource` and no pipe; what is free of memory is IMAGED_FREE bytes; the region
and the crash file are devices (plain files that say so), so that nothing can be made or removed
beside them. Whatever is imported after the snapshot is told, and the time and randomness that is
asked for before it: nothing of that may be. IMAGED_DRILL: a stand-in for the built-in module
_drill is there. Everything else is the server as it is."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import types
from typing import Any, NoReturn

DEVICES = ("region", "crash")

_fstat, _unlink, _sysconf, _read = os.fstat, os.unlink, os.sysconf, os.read


def _is_device(fd: int) -> bool:
    return os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) in DEVICES


def _fstat_of_device(fd: int) -> Any:
    status = _fstat(fd)
    if not _is_device(fd):
        return status
    return types.SimpleNamespace(st_mode=stat.S_IFCHR | 0o600, st_size=status.st_size,
                                 st_dev=0, st_ino=0)


def _no_pipe(flags: int) -> NoReturn:
    raise OSError(errno.ENOSYS, "Function not implemented")


def _unlink_no_device(path: str) -> None:
    assert os.path.basename(path) not in DEVICES, path
    _unlink(path)


def _say_import(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        os.write(2, f"imported late: {arguments[0]}\n".encode())


def _read_snapshot(fd: int, size: int) -> bytes:
    """The first read is that of the snapshot: what comes after it may be another life."""
    os.read = _read
    for name in ("random", "secrets", "uuid", "tempfile"):
        if name in sys.modules:
            os.write(2, f"drawn early: {name}\n".encode())
    time.monotonic, time.time_ns = _CLOCKS
    data = _read(fd, size)
    sys.addaudithook(_say_import)
    return data


def _early(*_: object) -> NoReturn:
    os.write(2, b"drawn early: the time\n")
    os._exit(9)


_CLOCKS = time.monotonic, time.time_ns


if __name__ == "__main__":
    sys.modules["resource"] = None  # type: ignore[assignment]
    if os.environ.get("IMAGED_DRILL"):
        from tests.app import imaged_drill
        sys.modules["_drill"] = imaged_drill
    os.fstat = _fstat_of_device
    os.pipe2 = _no_pipe
    os.unlink = _unlink_no_device  # type: ignore[assignment]
    free = int(os.environ["IMAGED_FREE"])
    os.sysconf = lambda name: (  # type: ignore[assignment, misc]
        free // 4096 if name == "SC_AVPHYS_PAGES" else _sysconf(name))
    from app import __main__
    if "--snapshot" in sys.argv:
        os.read = _read_snapshot  # type: ignore[assignment]
        time.monotonic = time.time_ns = _early  # type: ignore[assignment]
    sys.exit(__main__.main(sys.argv[1:]))
