# SPDX-License-Identifier: Apache-2.0
"""P5, P6: one damaged bit in what a guest is owed, or in an open transaction, ended every start.
Method: a real region, a bit flipped in the middle of either, the server started again; it serves,
and the guest whose stream has a hole is ignored rather than told other bytes. Cannot show: damage
in slots."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from persist import layout
from tests.rings.house import House

RING_ERROR = 2072


def flip(house: House, pattern: bytes) -> None:
    """One bit of the first place in the log that matches."""
    data = bytearray(house.server.region_path.read_bytes())
    found = re.compile(pattern).search(data, layout.LOG_OFFSET)
    assert found is not None
    data[found.start()] ^= 1
    house.server.region_path.write_bytes(data)


@pytest.mark.parametrize("what", ["owed", "transaction", "part of a transaction"])
def test_the_server_starts_and_says_so(make_house: Callable[..., House], what: str) -> None:
    house = make_house()
    guest, other = house.guest(1), house.guest(2)
    with house.client() as dom0:
        dom0.mkdir("/pub")
        dom0.set_perms("/pub", "r0")
        guest.watch("/pub", "t" * 300)
        if what == "owed":
            for number in range(10):
                dom0.write(f"/pub/mark{number:02}", "v")
    if what != "owed":
        tx_id = guest.transaction_start()
        guest.write("one", "1", tx_id)
        guest.write("two", "2", tx_id)
    house.server.kill9()
    flip(house, {"owed": rb"/pub/mark05", "transaction": rb"tx\.\d+\.\d+[^.]",
                 "part of a transaction": rb"tx\.\d+\.\d+\.0"}[what])
    house.server.start()
    assert "DAMAGED" in house.server.log
    assert other.directory("/pub") == (
        [f"mark{number:02}" for number in range(10) if number != 5] if what == "owed" else [])
    assert (guest.get_field(RING_ERROR) == 2) == (what == "owed")
    house.server.kill9()
    house.server.start()
    assert other.get_perms("/local/domain/2") == ["n2"]
