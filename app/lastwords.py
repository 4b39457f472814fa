# SPDX-License-Identifier: Apache-2.0
"""Why a life has ended, as far as it could still say: a file beside the region, or /dev/crash.

Y1. Written by whoever dies: Python's own fault handler for signals, the loop's top for an uncaught
    exception, the watchdog for a loop without an end. A kill -9 writes nothing. In the image the
    kernel adds what it knows, behind what we have said: its last line begins with "kernel:".
Y2. From the start to the moment when serving begins the file begins with RECOVERING: a death then
    says nothing about any request, but is explained all the same.
Y3. The watchdog runs from the start on. A turn is progress; in a recovery each look at the region
    is, but only so often as its size lets expect.
Knows nothing of what the region holds. Change with: image/README.md, FORMAT.md section 11."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import stat
import time
import traceback

from persist.region import RegionFile

RECOVERING = "recovering\n"
KERNEL = "kernel:"
CAUSE_MAX = 1500  # characters that are kept of a cause
LINE_MAX = 300  # of them in one line, if there are too many
CAUSE_HEAD = 500  # of them from its beginning: a fault handler says first what matters most
OWN_BYTES_MAX = 2500  # that an exception may fill, so that a kernel has room for its account
READ_SIZE = 1 << 16
ARMINGS = 16  # of the watchdog in its time, at most: a system call for each
RECOVERED_BYTES = 16 << 20  # of the region, for which a recovery has the watchdog's time once more
BALLAST = 256 << 10  # bytes that are let go of when there is no memory to say why


class LastWords:
    """The file `path`. If it cannot be had, every death is unexplained: `problem` says why."""

    def __init__(self, path: str, watchdog_s: float, region: RegionFile) -> None:
        self.problem: str | None = None
        self.text = ""  # what the last life said
        self.fd = -1
        self._path = path
        self._watchdog_s = watchdog_s
        self._armed_s = -math.inf
        self._armings_left = int(ARMINGS * (2 + region.size / RECOVERED_BYTES))
        self.is_serving = False
        self._ballast = bytearray(BALLAST)
        try:
            self._open(region)
        except OSError as error:
            self.problem = f"{path}: {error.strerror}"
        self._died_recovering = self.text.startswith(RECOVERING)
        self.text = "" if self.text == RECOVERING else shorten(self.text.strip())
        self._say(RECOVERING.encode())
        if self.fd >= 0:
            faulthandler.enable(self.fd, all_threads=False)
            faulthandler.register(signal.SIGPROF, self.fd, all_threads=False, chain=True)
        self.alive()

    def _open(self, region: RegionFile) -> None:
        """Raises OSError."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
                     | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                if not region.is_device and (status.st_dev, status.st_ino) == region.identity():
                    raise OSError(0, "this is the region")
            elif not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                raise OSError(0, "no plain file and no device")
            self.text = os.pread(fd, READ_SIZE, 0).decode("utf-8", "replace")
        except OSError:
            os.close(fd)
            raise
        self.fd = fd

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file, if there is one."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def of_last_life(self) -> str | None:
        """What the last life said: "" for nothing, None if it died while recovering."""
        return None if self._died_recovering else self.text

    def begin_serving(self) -> None:
        """From now on a death is a request's fault, or nobody's."""
        self.is_serving = True
        self._say(b"")
        self._arm(time.monotonic())

    def alive(self) -> None:
        """There is progress (Y3): the watchdog, which counts our own running time, starts anew."""
        now_s = time.monotonic()
        if now_s - self._armed_s > self._watchdog_s / ARMINGS:
            if not self.is_serving:
                self._armings_left -= 1
                if self._armings_left < 0:
                    return
            self._arm(now_s)

    def _arm(self, now_s: float) -> None:
        self._armed_s = now_s
        signal.setitimer(signal.ITIMER_PROF, self._watchdog_s)

    def say(self, error: BaseException) -> None:
        """The last words of a life that ends by an exception."""
        self._ballast = bytearray()
        if isinstance(error, MemoryError):
            traceback.clear_frames(error.__traceback__)
        try:
            text = shorten("".join(traceback.format_exception(error)))
            data = text.encode("utf-8", "replace") + b"\n"
        except MemoryError:
            data = b"%s, and no memory to say more\n" % type(error).__name__.encode()
        head = b"" if self.is_serving else RECOVERING.encode()
        self._say(head + data[-OWN_BYTES_MAX:])

    def close(self) -> None:
        """The life ends on purpose: there is nothing to be said."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self.fd >= 0:
            faulthandler.disable()
            faulthandler.unregister(signal.SIGPROF)
            self._say(b"")
            if stat.S_ISREG(os.fstat(self.fd).st_mode):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            os.close(self.fd)
            self.fd = -1

    def _say(self, data: bytes) -> None:
        """Instead of all that was said before."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)
        with contextlib.suppress(OSError):  # a device may have no position but its end
            os.lseek(self.fd, 0, os.SEEK_SET)
        with contextlib.suppress(OSError):  # no space left: then it says nothing, or less
            os.write(self.fd, data)


def shorten(text: str) -> str:
    """At most CAUSE_MAX characters of a cause: whole lines of its beginning and of its end."""
    if len(text) <= CAUSE_MAX:
        return text
    text = "\n".join([line[:LINE_MAX] for line in text.splitlines()])
    if len(text) <= CAUSE_MAX:
        return text
    head = text[:CAUSE_HEAD].rpartition("\n")[0]
    tail = text[-(CAUSE_MAX - CAUSE_HEAD - len("\n  ...\n")):]
    return f"{head}\n  ...\n{tail.partition(chr(10))[2] or tail}"


def telling(cause: str) -> str:
    """The one line of a cause that says what happened; with a kernel's account, its line too."""
    lines = cause.splitlines()
    is_recovering = lines[:1] == [RECOVERING.strip()]
    if is_recovering:
        del lines[0]
    kernels = [line for line in lines if line.startswith(KERNEL)]
    parts = [_own_line([line for line in lines if line not in kernels], bool(kernels)),
             *kernels[-1:]]
    text = "; ".join(filter(None, parts))
    if is_recovering:
        return f"while recovering: {text}" if text else "while recovering"
    return text


def _own_line(lines: list[str], is_known: bool) -> str:
    """Of what Python has said. `is_known`: what it did not say itself, a kernel has."""
    tracebacks = [index for index, line in enumerate(lines) if line.startswith("Traceback (")]
    if tracebacks:
        for line in lines[tracebacks[-1] + 1:]:
            if line and not line.startswith(" "):
                return line
    for index, line in enumerate(lines):
        if line.startswith("Fatal Python error"):
            return line
        if line.startswith(("Stack (most", "Current thread", "Thread 0x")) and lines[index + 1:]:
            return f"no progress in its time: {lines[index + 1].strip()}"
    return lines[-1] if lines and not is_known else ""
