# SPDX-License-Identifier: Apache-2.0
"""A transaction lists a directory, which then is removed outside; the transaction removes it too.

The children it had listed were looked for and not found: an assertion ended the server. Found by
tests/oracle/test_differential.py."""

from __future__ import annotations

from app import wire
from persist import layout
from tests.crash.world import ArrayMedium, Life


def test_the_server_lives_and_the_transaction_is_told() -> None:
    """RM is answered, and the end is EAGAIN: the listing would be another one now."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((wire.XS_WRITE, 0, b"/d/a/b\0v"), (wire.XS_WRITE, 0, b"/d/c\0v"))
    (packet,) = life.turn((wire.XS_TRANSACTION_START, 0, b"\0"))
    tx_id = int(packet[wire.HEADER_SIZE:].rstrip(b"\0"))
    life.turn((wire.XS_WRITE, tx_id, b"/d/a\0w"), (wire.XS_DIRECTORY, tx_id, b"/d\0"))
    life.turn((wire.XS_RM, 0, b"/d\0"))
    (packet,) = life.turn((wire.XS_RM, tx_id, b"/d\0"))
    assert packet.endswith(wire.OK)
    (packet,) = life.turn((wire.XS_TRANSACTION_END, tx_id, b"T\0"))
    assert packet.endswith(b"EAGAIN\0")
    assert b"/d" not in life.state()
