# SPDX-License-Identifier: Apache-2.0
"""Security advisories of the peers that concern rings and memory: each fault's proof test, as the
reference lists it (section 6), by a hostile guest on a real ring against the real process.

Property: it costs nobody but the guest; the server's memory stays bounded (resident size from
/proc), everybody else is served. C xenstored is asked, too, unless memory is measured.
Cannot show: memory that grows more slowly than the bounds here; hypervisor faults."""

from __future__ import annotations

import itertools

import pytest

from tests.oracle.guest import (
    REQ_CONS,
    REQ_PROD,
    RING_ERROR,
    RING_SIZE,
    RSP_CONS,
    RSP_PROD,
    RingConnection,
)
from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import NoReply, SocketConnection, strings
from tests.rings.house import (
    ERROR_COMM,
    ERROR_PROTO,
    House,
    break_ring,
    packet,
    put_raw,
    refused,
    settled,
    wait_error,
    wait_until,
)

RSS_SLACK_KIB = 24 << 10  # what may be added to a process that has served a few requests


@pytest.mark.parametrize("way", ["length", "req_prod", "req_prod behind", "rsp_cons"])
def test_xsa_38_indices_and_sizes_are_not_trusted(both: House, way: str) -> None:
    guest, other = both.guest(1), both.guest(2)
    wait_error(guest, break_ring(guest, way))
    other.write("x", "1")
    both.check()


@pytest.mark.parametrize("length", [4097, 1 << 30, (1 << 31) - 1, 1 << 31, 0xFFFFFFFF])
def test_xsa_38_420_lengths(both: House, length: int) -> None:
    guest, other = both.guest(1), both.guest(2)
    put_raw(guest, packet(M.WRITE, b"x\0", length=length))
    wait_error(guest, ERROR_PROTO)
    other.write("x", "1")
    both.check()


def test_xsa_233_a_guest_and_its_device_model_die_together(both: House) -> None:
    """In one VIRQ, in both orders of number; each is gone once, and the next ones are served."""
    watcher = both.client()
    watcher.watch("@releaseDomain", "r")
    for guest, stub in ((1, 2), (4, 3)):
        both.guest(guest).write("x", "1")
        both.guest(stub)
        both.dom0.set_target(stub, guest)
        both.guests[stub].write(f"/local/domain/{guest}/device", "1")
        settled(watcher)
        both.sim.destroy_domain(guest, notify=False)
        both.destroy(stub)
        assert not both.dom0.is_introduced(guest)
        assert refused(both.dom0.read, f"/local/domain/{guest}") == "ENOENT"
        assert ("@releaseDomain", "r") in settled(watcher)
        both.guest(guest)
        assert refused(both.guests[guest].read, f"/local/domain/{stub}") in ("EACCES", "ENOENT")
    both.check()


@pytest.mark.parametrize("way", ["length", "req_prod"])
def test_xsa_325_a_bad_ring_is_not_a_death(both: House, way: str) -> None:
    """@releaseDomain exactly once, at the real death (pitfall 11)."""
    watcher = both.client()
    watcher.watch("@releaseDomain", "r")
    guest = both.guest(1)
    settled(watcher)
    wait_error(guest, break_ring(guest, way))
    both.sim.raise_virq()
    assert settled(watcher) == [] and both.dom0.is_introduced(1)
    if both.is_ours:
        both.crash()
        watcher = both.client()
        watcher.watch("@releaseDomain", "r")
        settled(watcher)
        assert both.dom0.is_introduced(1)
    both.destroy(1)
    both.sim.raise_virq()
    both.dom0.read("/")
    assert settled(watcher) == [("@releaseDomain", "r")]


# -- memory


def fill(guest: RingConnection, message: bytes) -> int:
    """Put the message into the ring as often as it fits; how often."""
    free = RING_SIZE - (guest.get_field(REQ_PROD) - guest.get_field(REQ_CONS))
    count = free // len(message)
    if count:
        put_raw(guest, message * count)
    return count


def test_xsa_326_requests_of_one_who_never_reads(ours: House) -> None:
    """Replies of 1.9 KB: soon its requests are left in its ring. Nobody else waits."""
    guest, other = ours.guest(1), ours.guest(2)
    guest.write("x", b"v" * 1900)
    before = ours.rss_kib()
    message, asked = packet(M.READ, strings("x")), 0
    for _ in range(2000):
        asked += fill(guest, message)
        other.get_domain_path(2)
    assert asked < 2000, "requests are taken although nothing is read"
    assert guest.get_field(RING_ERROR) == 0
    assert ours.rss_kib() - before < RSS_SLACK_KIB
    answered = 0
    while answered < asked:  # and who reads at last gets everything
        answer = guest.receive()
        assert answer is not None and answer.payload == b"v" * 1900
        answered += 1
    assert guest.receive(0) is None
    ours.check()


@pytest.mark.parametrize("author", ["dom0", "guest"])
def test_xsa_326_events_for_those_who_never_read(ours: House, author: str) -> None:
    """Twenty guests with 100 watches each hear of every write, and read nothing: they are muted
    at their limit (P9's exception), others go on, and the next domain 5 is served."""
    readers = [ours.guest(domid) for domid in range(3, 23)]
    writer: RingConnection | SocketConnection = ours.guest(1) if author == "guest" else ours.dom0
    ours.public()
    for reader in readers:
        for number in range(100):
            reader.watch("/pub", f"{'t' * 1000}{number}")
    before = ours.rss_kib()
    for number in range(100):
        writer.write(f"/pub/{number % 10}", "1")
    assert ours.rss_kib() - before < 2 * RSS_SLACK_KIB
    assert all(reader.get_field(RING_ERROR) == ERROR_COMM for reader in readers)
    ours.destroy(5)
    ours.guest(5).write("x", "1")
    ours.check()
    ours.crash()
    ours.guests[5].write("x", "2")
    assert ours.rss_kib() - before < 2 * RSS_SLACK_KIB


def test_xsa_326_what_is_kept_for_one_guest_is_bounded(ours: House) -> None:
    """Nodes, watches, transactions and what they hold, each until it is refused."""
    guest = ours.guest(1)
    before = ours.rss_kib()
    tx_ids = [guest.transaction_start() for _ in range(10)]
    assert refused(guest.transaction_start) == "ENOSPC"
    errors: set[str | None] = set()
    for number in range(1200):
        errors.add(refused(guest.write, f"{number % 1100}", b"v" * 1500))
        errors.add(refused(guest.watch, f"{number}{'w' * 1000}", "t" * 1000))
        errors.add(refused(guest.write, f"tx{number}", b"v" * 1500, tx_ids[number % 10]))
    assert errors <= {None, "ENOSPC", "ENOMEM"} and len(errors) > 1
    assert ours.rss_kib() - before < RSS_SLACK_KIB
    ours.crash()
    assert refused(guest.transaction_start) == "ENOSPC"
    assert ours.rss_kib() - before < 2 * RSS_SLACK_KIB
    ours.destroy(1)
    assert ours.nodes() < 20
    ours.check()


def test_xsa_330_watching_and_resetting(ours: House) -> None:
    guest = ours.guest(1)
    watches = b"".join(packet(M.WATCH, strings("a", number)) for number in range(20))
    sizes = []
    for turn in range(600):
        guest.send_bytes(watches + packet(M.RESET_WATCHES, b"\0"), 5)
        while True:
            message = guest.receive()
            assert message is not None and message.error is None
            if message.type == M.RESET_WATCHES:
                break
        if turn % 100 == 99:
            sizes.append(ours.rss_kib())
    assert sizes[-1] - sizes[0] < 4096, sizes
    ours.dom0.write("/local/domain/1/a", "1")
    assert settled(guest) == []


def test_xsa_416_twenty_replies_that_are_read_slowly(ours: House) -> None:
    guests = [ours.guest(domid) for domid in range(1, 11)]
    for guest in guests:
        guest.write("x", b"v" * 1900)
    before = ours.rss_kib()
    for guest in guests:
        for _ in range(3):  # ten requests more or less
            fill(guest, packet(M.READ, strings("x")))
    left = [1.0] * len(guests)
    for round_ in itertools.count():
        for index, guest in enumerate(guests):
            waiting = guest.get_field(RSP_PROD) - guest.get_field(RSP_CONS)
            left[index] = waiting
            guest.set_field(RSP_CONS, guest.get_field(RSP_CONS) + min(waiting, 100))
            guest.kick()
        if round_ % 50 == 0:
            ours.dom0.read("/")
            assert ours.rss_kib() - before < RSS_SLACK_KIB
            if not any(left):
                break
    ours.check()


def test_xsa_425_many_connections_begin_anew_or_end_at_once(both: House) -> None:
    """Introduced again, released, dead and broken, all in one turn, with watches and transactions
    that hear of each other."""
    both.public()
    for _ in range(3):
        guests = [both.guest(domid) for domid in range(1, 25)]
        for guest in guests:
            guest.watch("/pub", "t")
            guest.watch("@releaseDomain", "r")
            guest.write(f"/pub/{guest.domid}", "1", guest.transaction_start())
            guest.write(f"/pub/of{guest.domid}", "1")
            guest.received = b""
        for guest in guests:
            if guest.domid % 4 == 0:
                both.dom0.send(M.INTRODUCE, strings(guest.domid, 1, 1000 + guest.domid))
            elif guest.domid % 4 == 1:
                both.dom0.send(M.RELEASE, strings(guest.domid))
            elif guest.domid % 4 == 2:
                both.sim.destroy_domain(guest.domid, notify=False)
            else:
                break_ring(guest, "length")
        both.sim.raise_virq()
        wait_until(lambda: not both.dom0.is_introduced(22), "the deaths")
        assert [both.dom0.is_introduced(domid) for domid in (1, 2, 3, 4)] == [
            False, False, True, True]
        assert refused(both.dom0.read, "/pub/of2") == "ENOENT"
        for guest in guests:
            both.sim.destroy_domain(guest.domid)
        wait_until(lambda: not both.dom0.is_introduced(24), "the end of all")
        for guest in guests:
            if guest.domid % 4 == 1:
                continue  # released: what it still owned went then
            wait_until(lambda domid=guest.domid:  # type: ignore[misc]
                       not both.dom0.is_introduced(domid), f"the end of {guest.domid}")
        assert both.dom0.directory("/pub") == []
        both.check()


def test_xsa_484_resetting_and_breaking_inside_a_transaction(both: House) -> None:
    guest, other = both.guest(1), both.guest(2)
    if both.is_ours:  # Debian's C still dies of it
        tx_id = guest.transaction_start()
        guest.write("x", "1", tx_id)
        assert guest.request(M.RESET_WATCHES, b"\0", tx_id).error is None
        assert refused(guest.read, "x", tx_id) == "ENOENT"
    tx_id = guest.transaction_start()
    guest.write("x", "1", tx_id)
    wait_error(guest, break_ring(guest, "length"))
    with pytest.raises(NoReply):
        guest.request(M.TRANSACTION_END, b"T\0", tx_id, timeout_s=0.2)
    assert refused(both.dom0.read, "/local/domain/1/x") == "ENOENT"
    other.write("x", "1")
    both.check()
