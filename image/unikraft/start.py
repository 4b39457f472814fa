# SPDX-License-Identifier: Apache-2.0
"""The first Python that runs in the Unikraft image: what this machine has elsewhere than Linux is
put in its place, then the server begins.

S1. Four things of the standard library are ours here: setitimer (Unikraft's does nothing) arms our
    watchdog, sysconf (Unikraft's does not know) tells what memory is free, an epoll is the wait for
    event channels, and pipes, which nobody could write to, are not there.
S2. `--event PORT` is init-xenstore-domain's, `--event find` xsboot's: dom0's ring. The rest is the
    server's.
S3. Python does not end, which can block here: the life does.
Knows nothing of the server. Change with: main.c, module.c, app/limits.py, app/lastwords.py."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys

import _unikraft  # type: ignore[import-not-found]

_sysconf = os.sysconf


def setitimer(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
    """The watchdog. (Of what was left of the last one nobody asks.)"""
    _unikraft.watchdog(seconds)
    return 0.0, 0.0


def sysconf(name: str | int) -> int:
    """As os.sysconf, but for what Unikraft does not know."""
    if name == "SC_AVPHYS_PAGES":
        return int(_unikraft.free_pages())
    return _sysconf(name)


def pipe2(flags: int) -> tuple[int, int]:
    """There is nobody who could send a signal."""
    raise OSError(errno.ENOSYS, "no pipes")


def main() -> int:
    """Start the server with the words of the command line."""
    signal.setitimer = setitimer
    os.sysconf = sysconf
    os.pipe2 = pipe2
    from app.__main__ import main as serve
    from ring import unikraft
    vars(select)["epoll"] = lambda: unikraft.Poll(_unikraft)
    words = unikraft.take_event(sys.argv[1:])
    if hasattr(_unikraft, "bind"):
        words = ["--host", "unikraft", *words]
    return serve(words)


def end(code: int) -> None:
    """S3. What was raised is told."""
    if sys.exc_info()[0] is not None:
        sys.excepthook(*sys.exc_info())
    _unikraft.exit(code)


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    finally:
        end(code)
