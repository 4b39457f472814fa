# SPDX-License-Identifier: Apache-2.0
"""xenstore-utils across kill -9: what was answered survives, whatever is going on.

Properties: every write whose program returned 0 is there after the crash, at whatever moment that
comes; a listing is the same before and after; a program that is waiting ends; programs that start
afterwards find a server as if nothing had been.
Method: real programs run while the server is killed at moments that are given by how much has been
answered so far, never by the clock; then the state is compared with what was answered.
Cannot show: every moment, because a kill hits where it hits; a test that enumerates the stores does
that. This shows that process, socket, region file and real clients fit together."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.clients.subjects import Ours, ending, wait_until

pytestmark = pytest.mark.slow

LIVES = 5


def listing(ours: Ours) -> str:
    """Everything: names, values, permissions, order."""
    return ours.must("xenstore-ls", "-f", "-p")


def test_a_listing_is_the_same_in_every_life(ours: Ours) -> None:
    for life in range(LIVES):
        ours.must("xenstore-write", f"/l{life}/z", "1", f"/l{life}/a/deep", "v" * 1000)
        ours.must("xenstore-chmod", f"/l{life}", "n0", f"r{life + 1}")
        if life:
            ours.must("xenstore-rm", f"/l{life - 1}/z")
        before = listing(ours)
        ours.crash()
        assert listing(ours) == before
        assert ours.must("xenstore-control", "check") == "OK\n"
    assert "/l0/a/deep" in before and "/l0/z" not in before


class Writer(threading.Thread):
    """Runs one xenstore-write after the other, and knows which of them returned 0."""

    def __init__(self, ours: Ours, name: str) -> None:
        super().__init__(daemon=True)
        self.answered: list[str] = []
        self.is_ending = False
        self._ours = ours
        self._name = name

    def run(self) -> None:
        """Until told to end; a write that fails is tried no more."""
        number = 0
        while not self.is_ending:
            number += 1
            path = f"/{self._name}/{number}"
            if self._ours.run("xenstore-write", path, f"value of {path}").returncode == 0:
                self.answered.append(path)


@pytest.mark.parametrize("after", [1, 10, 37])
def test_every_answered_write_survives(ours: Ours, after: int) -> None:
    writers = [Writer(ours, name) for name in ("w1", "w2", "w3")]
    for writer in writers:
        writer.start()
    try:
        for life in range(LIVES):
            wanted = (life + 1) * after
            wait_until(has_answered(writers, wanted), f"{wanted} writes")
            ours.crash()
    finally:
        for writer in writers:
            writer.is_ending = True
        for writer in writers:
            writer.join()
    answered = [path for writer in writers for path in writer.answered]
    assert len(answered) >= LIVES * after
    lines = set(ours.must("xenstore-ls", "-f").splitlines())
    assert [path for path in answered if f'{path} = "value of {path}"' not in lines] == []
    assert ours.must("xenstore-control", "check") == "OK\n"


def has_answered(writers: list[Writer], count: int) -> Callable[[], bool]:
    """Whether the writers have had that many answers."""
    return lambda: sum(len(writer.answered) for writer in writers) >= count


def test_a_program_that_waits_ends_with_the_server(ours: Ours) -> None:
    """Its connection closes; it does not hang. A new one works."""
    with ending(ours.start("xenstore-watch", "-n", "100", "/w")) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "/w\n"
        ours.server.kill9()
        assert watcher.communicate(timeout=10)[0] == ""
    ours.server.restart()
    with ending(ours.start("xenstore-watch", "-n", "2", "/w")) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "/w\n"
        ours.must("xenstore-write", "/w/x", "1")
        assert watcher.communicate(timeout=10)[0] == "/w/x\n"


def test_a_clean_end_and_a_crash_are_told_apart(ours: Ours) -> None:
    ours.must("xenstore-write", "/a", "1")
    ours.server.restart()
    assert "after a clean end" in ours.server.log
    assert "after a crash" not in ours.server.log
    ours.crash()
    assert "after a crash" in ours.server.log
    assert ours.must("xenstore-read", "/a") == "1\n"
    assert "DAMAGED" not in ours.server.log
