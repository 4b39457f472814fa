# SPDX-License-Identifier: Apache-2.0
"""A large removal that many watches of guests hear of costs what it removes, once.

The removed nodes were put into a table anew for every watch that was hit: guests could make a
removal by domain 0 as slow as they liked (P9). Counted here, not timed."""

from __future__ import annotations

from app import effects, wire
from app.client import Client
from persist import layout
from tests.crash.world import ArrayMedium, Life

NODES, WATCHES = 400, 100


class CountedList(list):  # type: ignore[type-arg]
    """Counts how often it is gone through."""

    walks = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        CountedList.walks += 1
        return super().__iter__()


def test_the_removed_are_walked_a_fixed_number_of_times() -> None:
    """However many watches are hit."""
    walks = []
    for watches in (1, WATCHES):
        life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
        for start in range(0, NODES, 20):
            life.turn(*[(wire.XS_WRITE, 0, b"/d/%d\0v" % number)
                        for number in range(start, start + 20)])
        guest = Client(2, 7, privileged=False)
        life.store.clients.add(guest)
        for number in range(watches):
            life.store.handle(guest, wire.Request(wire.XS_WATCH, 1, 0, b"/d/%d\0t\0" % number))
        life.store.tree.cut(b"/d")  # type: ignore[arg-type]
        (cut,) = life.store.take_effects()
        assert isinstance(cut, effects.Cut)
        CountedList.walks = 0
        cut.removed = CountedList(cut.removed)
        life.store._fire_effect(cut)
        walks.append(CountedList.walks)
    assert walks[0] == walks[1] <= 4, walks
