# SPDX-License-Identifier: Apache-2.0
"""The server with requests that kill it, for test_poison.py: python -m tests.crash.poisoned ...

READ of a node below /poison ends the life by what the path says: raise, segv, abort, loop, memory;
`stop` stops the process in the middle of the request, while the file POISON_FLAG names is there.
Everything else is the server as it is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from app import __main__, ops, wire
from app.client import Client
from app.store import Store


def _die(kind: str) -> None:
    if kind == "raise":
        raise RuntimeError("poison")
    if kind == "memory":
        raise MemoryError
    if kind == "segv":
        ctypes.string_at(8)
    if kind == "stop" and os.path.exists(os.environ["POISON_FLAG"]):
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "abort":
        os.abort()
    while kind == "loop":
        pass


def _read(store: Store, client: Client, view: ops.View, payload: bytes) -> bytes:
    if payload.startswith(b"/poison/"):
        _die(payload[8:-1].decode().rstrip("0123456789"))
    return ops.read(store, client, view, payload)


if __name__ == "__main__":
    ops.OPS[wire.XS_READ] = ops.Op(_read, uses_tx=True, privileged=False)
    sys.exit(__main__.main(sys.argv[1:]))
