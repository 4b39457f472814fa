# SPDX-License-Identifier: Apache-2.0
"""P7, P9: parts of requests that guests never finish are live data, and nobody counted them: with a
full tree the server ended with "live data outgrew the log", and no start succeeded after that.
Method: a region of 1 MiB filled with nodes, a hundred such guests, then more writes, and a restart.
Cannot show: regions of another size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.oracle.xsclient import HEADER, MessageType, XenstoreError
from tests.rings.house import House

GUESTS = 100
PART = HEADER.pack(MessageType.WRITE, 1, 0, 4096) + b"/x\0" + b"z" * 4000


def test_a_full_tree_and_many_parts(make_house: Callable[..., House]) -> None:
    house = make_house("--region-size", "1M")
    guests = [house.guest(domid) for domid in range(1, GUESTS + 1)]
    with house.client() as dom0:
        count = 0
        with pytest.raises(XenstoreError, match="ENOSPC"):
            while True:
                dom0.write(f"/n{count}", "v" * 2000)
                count += 1
        for guest in guests:
            guest.sim.raise_event(1000 + guest.domid)
            if not guest.get_field(2072):
                guest.send_bytes(PART, 5.0)
        for number in range(1000):
            dom0.write(f"/n{number % count}", "w" * 2000)
    house.server.kill9()
    house.server.start()
    with house.client() as dom0:
        assert dom0.read("/n0") == b"w" * 2000
        assert dom0.control("check") == "OK"
