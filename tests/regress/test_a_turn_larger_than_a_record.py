# SPDX-License-Identifier: Apache-2.0
"""P6, P7: a turn's requests, its events for guests and for domain 0, and one large commit together
were more than one record holds, and the server ended. Method: the most that each of them may be, in
one batch of requests, in a region of 1 MiB. Cannot show: other sums."""

from __future__ import annotations

from collections.abc import Callable

from tests.oracle.guest import RingConnection
from tests.oracle.xsclient import HEADER, MessageType, strings
from tests.rings.house import House

WRITES, TOKEN = 7, "t" * 2000


def test_the_turn_ends_before_its_record_is_full(make_house: Callable[..., House]) -> None:
    house = make_house("--region-size", "1M")
    hearers = [house.guest(1), house.guest(2), RingConnection(house.sim, 0)]
    with house.client() as dom0:
        dom0.mkdir("/a")
        dom0.set_perms("/a", "r0")
        for number, hearer in enumerate((*hearers, hearers[-1], hearers[-1])):
            hearer.watch("/a", f"{TOKEN}{number}")
            assert hearer.next_event()
        tx_id = dom0.transaction_start()
        for number in range(WRITES):
            dom0.write(f"/b/{number}", "v" * 4000, tx_id)
        batch = b"".join(
            HEADER.pack(MessageType.WRITE, number, 0, 4005) + b"/a/%d\0" % number + b"w" * 4000
            for number in range(WRITES))
        batch += HEADER.pack(MessageType.TRANSACTION_END, WRITES, tx_id, 2) + strings("T")
        dom0.send_bytes(batch, 5.0)
        for number in range(WRITES + 1):
            assert dom0.receive_reply(number).payload == b"OK\0"
        assert dom0.read("/b/0") == b"v" * 4000
    for hearer in hearers[:2]:
        assert len(hearer.events()) == WRITES
    assert len(hearers[2].events()) == 3 * WRITES
