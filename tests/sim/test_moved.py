# SPDX-License-Identifier: Apache-2.0
"""Dom0's ring, served by the xenstore domain, which knows no identity of dom0's kernel, and then by
a daemon in dom0, which does (tools/xsboot back): its watches go on. Another kernel's are dropped.
Method: as test_found.py.

Cannot show: that the event channel goes along (tests/xen, scenario handover)."""

from __future__ import annotations

import pytest

from tests.sim import test_found
from tests.sim.guest import WATCH, WRITE, Ask
from tests.sim.machine import Machine
from tests.sim.test_found import Room
from tests.sim.world import frozen_time


@pytest.mark.parametrize("identities, is_kept", [
    ((0, 77), True), ((0, 77, 77), True), ((0, 77, 78), False), ((77, 0, 77), True),
    ((77, 78), False)])
def test_watches_of_dom0_go_on(identities: tuple[int, ...], is_kept: bool,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    class Moved(Machine):
        """Its domain 0 has the first of the identities."""

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.domains[0].identity = identities[0]
    monkeypatch.setattr(test_found, "Machine", Moved)
    with frozen_time() as clock:
        room = Room(clock)
        room.ask(room.dom0, Ask(WATCH, b"/moved\0r\0"))
        for identity in identities[1:]:
            room.lives.kill()
            room.machine.domains[0].identity = identity
            assert room.lives.start()
            room.serve()
        room.heard.clear()
        room.ask(room.dom0, Ask(WRITE, b"/moved\0value"))
        assert (room.heard == [b"/moved"]) == is_kept
        room.lives.kill()
        room.machine.shut()
