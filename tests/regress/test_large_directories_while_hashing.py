# SPDX-License-Identifier: Apache-2.0
"""A directory of more than a slice's children is hashed over several idle turns.

If that was the root, a seal could be made before it was done, over the old tree; if something above
it was removed meanwhile, the server ended with a KeyError. Found in review."""

from __future__ import annotations

from app import wire
from persist import layout
from tests.crash.world import ArrayMedium, Life

CHILDREN = 3000


def filled(prefix: bytes) -> Life:
    """A life with many children of one directory, hashed and sealed never yet."""
    life = Life(ArrayMedium(layout.REGION_SIZE_DEFAULT))
    for start in range(0, CHILDREN, 100):
        life.turn(*[(wire.XS_WRITE, 0, prefix + b"n%d\0v" % number)
                    for number in range(start, start + 100)])
    return life


def test_many_children_of_the_root() -> None:
    """The seal is that of the whole state, and the next life verifies it."""
    life = filled(b"/")
    life.tidy(idle=True)
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    after.tidy(idle=True)
    assert after.journal.verdict is not None and "verified" in after.journal.verdict


def test_removed_while_it_is_hashed() -> None:
    """RM above the directory at every moment of its hashing, and again after it came back."""
    for steps in range(1, 40, 3):
        life = filled(b"/a/b/")
        for _ in range(steps):
            life.journal.idle()
        life.turn((wire.XS_RM, 0, b"/a\0"))
        life.tidy(idle=True)
        if steps % 2 == 0:
            life.turn((wire.XS_WRITE, 0, b"/a/b/n5\0again"))
            life.tidy(idle=True)
            after = Life(ArrayMedium(bytes(life.medium.bytes)))
            after.tidy(idle=True)
            assert "verified" in str(after.journal.verdict)
