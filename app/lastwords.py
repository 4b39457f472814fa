# SPDX-License-Identifier: Apache-2.0
"""Why a life has ended, as far as it could still say: a small file beside the region.

Y1. Written by whoever dies: Python's own fault handler for signals, the loop's top for an uncaught
    exception, the watchdog for a loop without an end. A kill -9 writes nothing.
Y2. From the start to the moment when serving begins the file says RECOVERING: a death then says
    nothing about any request.
In the unikernel the kernel does this, in the region's crash slot. Knows nothing of the region."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
import traceback

RECOVERING = b"recovering\n"
CAUSE_MAX = 1500  # characters that are kept of a cause
ARMINGS = 16  # of the watchdog in its time, at most: a system call for each


class LastWords:
    """The file `path`. If it cannot be had, every death is unexplained."""

    def __init__(self, path: str, watchdog_s: float) -> None:
        self._path = path
        self._watchdog_s = watchdog_s
        self._armed_s = 0.0
        self._is_serving = False
        self.fd = -1
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        self._said = os.pread(self.fd, 1 << 16, 0)
        self._write(RECOVERING)

    def of_last_life(self) -> str | None:
        """What the last life said: "" for nothing, None if it died while recovering."""
        if self.fd < 0:
            return ""
        if self._said.startswith(RECOVERING):
            return None
        return self._said.decode("utf-8", "replace").strip()[-CAUSE_MAX:]

    def begin_serving(self) -> None:
        """From now on a death is a request's fault, or nobody's."""
        self._is_serving = True
        if self.fd >= 0:
            self._write(b"")
            faulthandler.enable(self.fd, all_threads=False)
            faulthandler.register(signal.SIGPROF, self.fd, all_threads=False, chain=True)
        self.alive()

    def alive(self) -> None:
        """A turn was completed: the watchdog, which counts our own running time, starts anew."""
        now_s = time.monotonic()
        if now_s - self._armed_s > self._watchdog_s / ARMINGS:
            self._armed_s = now_s
            signal.setitimer(signal.ITIMER_PROF, self._watchdog_s)

    def say(self, error: BaseException) -> None:
        """The last words of a life that ends by an exception. Before serving begins: none (Y2)."""
        if self.fd >= 0 and self._is_serving:
            self._write("".join(traceback.format_exception(error)).encode("utf-8", "replace"))

    def close(self) -> None:
        """The life ends on purpose: there is nothing to be said."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self.fd >= 0:
            faulthandler.disable()
            faulthandler.unregister(signal.SIGPROF)
            os.close(self.fd)
            os.unlink(self._path)
            self.fd = -1

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # no space left: then it says nothing, or less
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
            os.write(self.fd, data)
