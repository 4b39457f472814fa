# SPDX-License-Identifier: Apache-2.0
"""P9: floods cost those who flood. Domain 0 is answered in bounded time, its transactions commit in
a bounded number of tries (XSA-206), and one quiet guest among fifty loud ones is served.

Method: guests in another process keep their rings full of requests; meanwhile the same requests are
timed that were timed when nothing was going on. Bounds are wide, for a machine that others use,
too; what was measured is printed (pytest -s).
Cannot show: fairness to a microsecond; a flood from more CPUs than two."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import strings
from tests.rings.flood import flooding
from tests.rings.house import House, packet, refused

LOUD = range(10, 60)
ASKED = 200
MEDIAN_MAX_MS, WORST_MAX_MS = 60.0, 1000.0
TRIES_MAX, COMMIT_MAX_S = 60, 5.0


def loud_guests(it: House) -> None:
    """Fifty of them, and a directory that all may write in."""
    it.public()
    for domid in LOUD:
        it.guest(domid)


def times_ms(action: Callable[[], object], count: int = ASKED) -> list[float]:
    """How long it takes, each time, sorted."""
    taken = []
    for _ in range(count):
        began_s = time.perf_counter()
        action()
        taken.append((time.perf_counter() - began_s) * 1000)
    return sorted(taken)


def compare(what: str, it: House, action: Callable[[], object],
            message: Callable[[int, int], bytes]) -> None:
    """Time an action in silence and in the flood."""
    idle = times_ms(action)
    with flooding(it, LOUD, message) as sent:
        before, began_s = sent(), time.perf_counter()
        loud = times_ms(action)
        rate = (sent() - before) / (time.perf_counter() - began_s)
    middle, worst = loud[len(loud) // 2], loud[-1]
    print(f"{what}: idle {idle[len(idle) // 2]:.3f} ms (worst {idle[-1]:.2f}), in a flood of "
          f"{rate:.0f}/s {middle:.3f} ms (worst {worst:.2f})")
    assert middle < MEDIAN_MAX_MS and worst < WORST_MAX_MS


def test_domain_0_in_a_flood_of_reads(ours: House) -> None:
    loud_guests(ours)
    compare("socket READ, guests read", ours, lambda: ours.dom0.read("/tool"),
            lambda domid, number: packet(M.GET_DOMAIN_PATH, strings(number % 100)))


def test_domain_0_in_a_flood_of_writes(ours: House) -> None:
    loud_guests(ours)
    compare("socket WRITE, guests write", ours, lambda: ours.dom0.write("/x", "1"),
            lambda domid, number: packet(M.WRITE, strings(f"/pub/{domid}") + b"v" * 100))


def test_domain_0_on_its_ring_in_a_flood(ours: House) -> None:
    loud_guests(ours)
    own = ours.connect(0)
    compare("domain 0's ring READ, guests write", ours, lambda: own.read("/tool"),
            lambda domid, number: packet(M.WRITE, strings(f"/pub/{domid}") + b"v" * 100))


def test_a_quiet_guest_among_loud_ones(ours: House) -> None:
    loud_guests(ours)
    quiet = ours.guest(1)
    quiet.write("x", "1")
    compare("a quiet guest's READ, guests write", ours, lambda: quiet.read("x"),
            lambda domid, number: packet(M.WRITE, strings(f"/pub/{domid}") + b"v" * 100))


def test_a_watcher_in_a_flood_hears_everything_in_time(ours: House) -> None:
    """Events that guests cause do not pile up in front of domain 0: who congests a reader waits."""
    loud_guests(ours)
    own = ours.connect(0)
    own.watch("/pub", "t")
    own.events(0)
    with flooding(ours, LOUD, lambda domid, number: packet(
            M.WRITE, strings(f"/pub/{domid}") + b"v")):
        before_kib = ours.rss_kib()
        heard = 0
        began_s = time.monotonic()
        while heard < 3000:
            heard += own.next_event().path.startswith("/pub")
        took_s = time.monotonic() - began_s
        ours.dom0.read("/")  # while nothing is read from the ring
        time_without_reading = times_ms(lambda: ours.dom0.read("/tool"), 50)
        assert ours.rss_kib() - before_kib < 24 << 10
    print(f"3000 events in {took_s:.2f} s; worst READ behind it {time_without_reading[-1]:.2f} ms")
    assert took_s < 20


def test_xsa_206_a_transaction_on_what_guests_write(ours: House) -> None:
    """Three guests write the node that it reads, as fast as they can."""
    loud_guests(ours)
    ours.dom0.write("/pub/hot", "0")
    ours.dom0.set_perms("/pub/hot", "b0")
    tries, worst_s = [], 0.0
    with flooding(ours, LOUD[:3], lambda domid, number: packet(
            M.WRITE, strings("/pub/hot") + b"%d" % number)):
        for round_ in range(10):
            began_s, count, is_done = time.monotonic(), 0, False
            while not is_done:
                count += 1
                tx_id = ours.dom0.transaction_start()
                value = ours.dom0.read("/pub/hot", tx_id)
                ours.dom0.write(f"/pub/seen{round_}", value, tx_id)
                name = refused(ours.dom0.transaction_end, tx_id)
                assert name in (None, "EAGAIN")
                is_done = name is None
                assert count <= TRIES_MAX
            tries.append(count)
            worst_s = max(worst_s, time.monotonic() - began_s)
    print(f"tries {tries}, worst {worst_s * 1000:.0f} ms")
    assert worst_s < COMMIT_MAX_S


def test_xsa_206_guests_who_hurt_nobody_do_not_wait(ours: House) -> None:
    """Domain 0's transactions on other nodes do not slow them down."""
    loud_guests(ours)
    guest = ours.guests[LOUD[0]]
    alone = times_ms(lambda: guest.write("x", "1"))
    tx_id = ours.dom0.transaction_start()
    ours.dom0.read("/tool", tx_id)
    beside = times_ms(lambda: guest.write("x", "1"))
    ours.dom0.transaction_end(tx_id)
    assert beside[ASKED // 2] < alone[ASKED // 2] * 3 + 1
