# SPDX-License-Identifier: Apache-2.0
"""P9: a guest whose own commits fail on purpose, over what another guest has written once, took
that guest's credit without end: a READ of the victim waited two minutes. Method: that loop, a
hundred times, then the victim asks. Cannot show: several attackers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.oracle.xsclient import XenstoreError
from tests.rings.house import House

ROUNDS = 100  # each took 50 ms of the victim's time
WAIT_S = 2.0


def test_failing_commits_cost_nobody_else(make_house: Callable[..., House]) -> None:
    house = make_house()
    attacker, victim = house.guest(1), house.guest(2)
    attacker.write("a", "0")
    attacker.transaction_start()  # keeps what is written remembered
    victim.write("private", "1")
    for number in range(ROUNDS):
        tx_id = attacker.transaction_start()
        with pytest.raises(XenstoreError, match="EACCES"):
            attacker.read("/local/domain/2/private", tx_id)
        attacker.read("a", tx_id)
        attacker.write("a", f"another {number}")
        with pytest.raises(XenstoreError, match="EAGAIN"):
            attacker.transaction_end(tx_id)
    req_id = victim.send(2, b"private\0")
    assert victim.receive_reply(req_id, timeout_s=WAIT_S).payload == b"1"
