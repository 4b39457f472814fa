# SPDX-License-Identifier: Apache-2.0
"""What re-implementations get wrong (reference section 9), as far as rings and domains show it: 1,
2, 3, 5, 9, 11, 12, 15. 8 is test_advisories_reuse.py, 14 is test_semantics.py. Each on C xenstored,
too, where both agree.

Method: guests on rings beside domain 0 on the socket; every event is behind the reply to a request
that changes nothing, so nothing is waited for. Cannot show: what only the core knows
(tests/app/test_pitfalls.py)."""

from __future__ import annotations

from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import strings
from tests.rings.house import House, break_ring, refused, settled, wait_error


def test_1_an_event_comes_before_the_reply_of_its_cause(both: House) -> None:
    guest = both.guest(1)
    guest.watch("a", "t")
    assert settled(guest) == [("a", "t")]
    guest.send(M.WRITE, strings("a/b") + b"v")
    first, second = guest.receive(), guest.receive()
    assert first is not None and first.type == M.WATCH_EVENT
    assert second is not None and second.type == M.WRITE
    guest.send(M.WATCH, strings("a", "u"))
    first, second = guest.receive(), guest.receive()
    assert first is not None and first.type == M.WATCH
    assert second is not None and second.type == M.WATCH_EVENT


def test_2_an_end_with_a_bad_letter_leaves_it_open(both: House) -> None:
    guest = both.guest(1)
    tx_id = guest.transaction_start()
    guest.write("x", "1", tx_id)
    for payload in (b"X\0", b"TT\0", b"\0", b"t\0"):
        assert guest.request(M.TRANSACTION_END, payload, tx_id).error == "EINVAL"
    guest.transaction_end(tx_id)
    assert guest.read("x") == b"1"


def test_3_what_is_absent_has_been_read_too(both: House) -> None:
    guest = both.guest(1)
    home = "/local/domain/1"
    for kind in ("node", "listing"):
        tx_id = guest.transaction_start()
        if kind == "node":
            assert refused(guest.read, "none", tx_id) == "ENOENT"
        else:
            guest.directory(home, tx_id)
        guest.write(f"mine/{kind}", "1", tx_id)
        both.dom0.write(f"{home}/{'none' if kind == 'node' else 'more'}", "x")
        assert refused(guest.transaction_end, tx_id) == "EAGAIN"
        assert refused(guest.read, "x", tx_id) == "ENOENT"


def test_5_the_first_event_always_comes(both: House) -> None:
    guest = both.guest(1)
    both.dom0.write("/priv", "1")
    for path in ("/none/at/all", "/priv", "none", "@introduceDomain", "@whatever"):
        guest.watch(path, "t")
        assert settled(guest) == [(path, "t")]


def test_5_special_events_are_never_coalesced(ours: House) -> None:
    """Twenty deaths, each in a turn of its own, unread: twenty events, and all in order."""
    guest = ours.guest(1)
    guest.watch("@releaseDomain", "plain")
    guest.call(M.WATCH, strings("@releaseDomain", "each", 1))
    settled(guest)
    domids = list(range(10, 30))
    for domid in domids:
        ours.guest(domid)
    for domid in domids:
        ours.destroy(domid)
    events = settled(guest)
    assert events.count(("@releaseDomain", "plain")) == 20
    assert [path for path, token in events if token == "each"] == [
        f"@releaseDomain/{domid}" for domid in domids]


def test_5_an_event_that_is_half_written_is_finished(ours: House) -> None:
    """The ring is full in the middle of an event; then the server dies."""
    guest = ours.guest(1)
    guest.watch("w", "t" * 300)
    settled(guest)
    for number in range(12):
        ours.dom0.write(f"/local/domain/1/w/{number}", "x")
    ours.crash()
    events = settled(guest)
    assert [path for path, _ in events] == [f"w/{number}" for number in range(12)]


def test_9_permission_events_reach_old_and_new_readers(both: House) -> None:
    """The loser hears of it once, and of nothing behind it; a removal asks the last rights."""
    loser, winner = both.guest(1), both.guest(2)
    both.dom0.write("/x/y", "1")
    both.dom0.set_perms("/x", "n0")
    both.dom0.set_perms("/x/y", "n0", "r1")
    for guest in (loser, winner):
        guest.watch("/x/y", "t")
        settled(guest)
    both.dom0.set_perms("/x/y", "n0", "r2")
    assert settled(loser) == settled(winner) == [("/x/y", "t")]
    both.dom0.write("/x/y", "2")
    assert (settled(loser), settled(winner)) == ([], [("/x/y", "t")])
    both.dom0.rm("/x")
    assert (settled(loser), settled(winner)) == ([], [("/x/y", "t")])


def test_11_a_shutdown_is_told_once_until_resume(both: House) -> None:
    watcher = both.client()
    watcher.watch("@releaseDomain", "r")
    guest = both.guest(1)
    settled(watcher)
    for _ in range(2):
        both.sim.set_state(1, "shutdown")
        assert settled(watcher) == [("@releaseDomain", "r")]
        both.sim.raise_virq()
        both.guest(2)
        assert settled(watcher) == [] and both.dom0.is_introduced(1)
        assert guest.get_domain_path(1) == "/local/domain/1"  # it is served all the same
        both.destroy(2)
        settled(watcher)
        if both.is_ours:
            both.crash()
            watcher = both.client()
            watcher.watch("@releaseDomain", "r")
            both.sim.raise_virq()
            assert settled(watcher) == [("@releaseDomain", "r")]  # the WATCH's own
        both.sim.set_state(1, "running")
        both.dom0.resume(1)
        assert settled(watcher) == []
    both.sim.set_state(1, "crashed")
    assert settled(watcher) == [("@releaseDomain", "r")]
    both.destroy(1)
    assert settled(watcher) == [("@releaseDomain", "r")]


def test_11_a_muted_domain_that_shuts_down_and_dies(both: House) -> None:
    watcher = both.client()
    watcher.watch("@releaseDomain", "r")
    guest = both.guest(1)
    wait_error(guest, break_ring(guest, "length"))
    settled(watcher)
    both.sim.set_state(1, "shutdown")
    assert settled(watcher) == [("@releaseDomain", "r")]
    both.destroy(1)
    assert settled(watcher) == [("@releaseDomain", "r")]


def test_12_a_watch_ignores_its_transaction(both: House) -> None:
    guest = both.guest(1)
    for tx_id in (0, guest.transaction_start(), 4711):
        assert guest.request(M.WATCH, strings("a", tx_id), tx_id).error is None
        assert guest.request(M.UNWATCH, strings("a", tx_id), tx_id).error is None


def test_15_missing_and_forbidden_look_alike(both: House) -> None:
    guest = both.guest(1)
    both.dom0.write("/priv/there", "1")
    for kind, rest in ((M.READ, b""), (M.WRITE, b"v"), (M.RM, b""), (M.DIRECTORY, b""),
                       (M.GET_PERMS, b""), (M.MKDIR, b""), (M.SET_PERMS, b"n1\0")):
        answers = {guest.request(kind, strings(path) + rest).error
                   for path in ("/priv/there", "/priv/none", "/priv/none/deep")}
        assert answers == {"EACCES"}, kind
