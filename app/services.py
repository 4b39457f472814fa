# SPDX-License-Identifier: Apache-2.0
"""The operator's side: log lines, the request log, and files that CONTROL asks for.

Knows nothing of the turn. Implements control.Services."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TextIO

from app import wire
from app.client import Client
from app.drill import Drill
from app.errors import Einval
from app.wire import Request

LEVELS = ("error", "warning", "info", "debug")


class Console:
    """Writes lines to stderr, or to the file that CONTROL logfile names."""

    def __init__(self, level: str = "info", stream: TextIO = sys.stderr) -> None:
        self.logs_requests = level == "debug"
        self.reporter: Callable[[], str] = str  # what report() answers; set once all is up
        self.drill: Drill | None = None  # with --drill
        self.protected: set[tuple[int, int]] = set()  # device and inode of files not to be touched
        self._level = LEVELS.index(level)
        self._stream = stream

    def error(self, text: str) -> None:
        """Something was lost, or is wrong with the region."""
        self._line(0, text)

    def warn(self, text: str) -> None:
        """A client or the machine does what it should not."""
        self._line(1, text)

    def info(self, text: str) -> None:
        """What an operator wants to know once."""
        self._line(2, text)

    def debug(self, text: str) -> None:
        """What only somebody who looks for a fault wants to know."""
        self._line(3, text)

    def verdict(self, text: str) -> None:
        """The outcome of a verification."""
        self._line(0 if text.startswith("CORRUPT") else 2, text)

    def log_request(self, client: Client, request: Request) -> None:
        """One line per request, while CONTROL log is on."""
        name = wire.TYPE_NAMES.get(request.type, str(request.type))
        payload = request.payload.rstrip(b"\0").replace(b"\0", b" ")
        self._write(f"{time.strftime('%H:%M:%S')} dom{client.domid} conn {client.conn_id} "
                    f"req {request.req_id} tx {request.tx_id} {name} "
                    f"{payload[:256].decode('latin-1')!r}\n")

    # -- control.Services

    def log_requests(self, on: bool) -> None:
        """CONTROL log on|off."""
        self.logs_requests = on

    def log_to(self, path: str) -> None:
        """CONTROL logfile. Raises Einval if the file cannot be opened, or is no plain file."""
        self._stream = self._open(path, os.O_APPEND)

    def write_file(self, path: str, text: str) -> None:
        """CONTROL memreport FILE. Raises Einval if it cannot be written, or is no plain file."""
        with self._open(path, 0) as file:
            file.truncate()
            file.write(text)

    def _open(self, path: str, flags: int) -> TextIO:
        """A plain file for writing: nothing that could block, and never the region."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | flags,
                         0o600)
        except (OSError, ValueError) as error:
            raise Einval from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in self.protected:
            os.close(fd)
            raise Einval
        return os.fdopen(fd, "a" if flags else "w", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        """CONTROL print."""
        self._write(text + "\n")

    def report(self) -> str:
        """The process's part of CONTROL memreport."""
        return self.reporter()

    def drills(self) -> list[str]:
        """The kinds of crash that can be ordered."""
        return self.drill.kinds if self.drill is not None else []

    def order_drill(self, words: list[str]) -> None:
        """CONTROL crash. Raises Einval."""
        if self.drill is None:
            raise Einval
        self.drill.order(words)

    def _line(self, level: int, text: str) -> None:
        if level <= self._level:
            self._write(f"tardigrade: {text}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a full disk or a closed terminal must not end the server
