# SPDX-License-Identifier: Apache-2.0
"""Guests that never rest, in a process of their own.

F1. Each has as many requests under way as its ring holds; replies are thrown away.
F2. The process ends with the test that started it.
Knows nothing of answers."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection as Pipe

from tests.oracle.guest import REQ_CONS, REQ_PROD, RING_MASK32, RING_SIZE, RSP_CONS, RSP_PROD
from tests.rings.house import House, put_raw

Fork = multiprocessing.get_context("fork")
READY_S = 10.0


@contextlib.contextmanager
def flooding(it: House, domids: Sequence[int],
             message: Callable[[int, int], bytes]) -> Iterator[Callable[[], int]]:
    """The guests send message(domid, number) without end; the value tells how many were sent."""
    ours, theirs = Fork.Pipe()
    sent = Fork.RawValue("Q", 0)
    process = Fork.Process(target=_flood, args=(it, domids, message, theirs, sent), daemon=True)
    process.start()
    try:
        assert ours.poll(READY_S), "the flood has not begun"
        yield lambda: int(sent.value)
    finally:
        process.kill()
        process.join()
        ours.close()
        theirs.close()


def _flood(it: House, domids: Sequence[int], message: Callable[[int, int], bytes], pipe: Pipe,
           sent: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    number = rounds = 0
    while True:
        for domid in domids:
            guest = it.guests[domid]
            guest.set_field(RSP_CONS, guest.get_field(RSP_PROD))
            free = RING_SIZE - ((guest.get_field(REQ_PROD) - guest.get_field(REQ_CONS))
                                & RING_MASK32)
            data = b""
            while len(more := message(domid, number)) <= free - len(data):
                data += more
                number += 1
            put_raw(guest, data)
        sent.value = number  # type: ignore[attr-defined]
        rounds += 1
        if rounds == 3:
            pipe.send("ready")
