# SPDX-License-Identifier: Apache-2.0
"""Clients up to the limit of open files: one more is turned away, and nobody else suffers.

The server ended in accept() when the last descriptor was taken and nobody waited."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 60
PACKET = b"\x0a\0\0\0" + bytes(8) + b"\x02\0\0\0" + b"0\0"


def is_answered(sock: socket.socket) -> bool:
    """Whether a request on this connection is answered."""
    try:
        sock.sendall(PACKET)
        return sock.recv(100).endswith(b"/local/domain/0\0")
    except (ConnectionError, TimeoutError):
        return False


def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    """Those that were served stay served; when some go, new ones are."""
    path = str(tmp_path / "socket")
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--socket", path, "--region", str(tmp_path / "region"),
         "--region-size", "1M"], stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)))
    socks = []
    try:
        deadline = time.monotonic() + 20
        while len(socks) < 2 * LIMIT:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(5)
            try:
                sock.connect(path)
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                continue
            socks.append(sock)
        served = [sock for sock in socks if is_answered(sock)]
        assert LIMIT // 2 < len(served) < LIMIT
        assert process.poll() is None, "the server has ended"
        for sock in served[10:20]:
            sock.close()
        while not is_answered(again := connect(path)):
            again.close()
            assert time.monotonic() < deadline + 20
        again.close()
        assert all(is_answered(sock) for sock in served[:10])
    finally:
        for sock in socks:
            sock.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def connect(path: str) -> socket.socket:
    """A new connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(path)
    return sock
