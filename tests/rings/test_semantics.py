# SPDX-License-Identifier: Apache-2.0
"""The ring as the protocol has it (reference 1.5, 1.6; pitfalls 12 and 14), against a real process.

Properties: words at INTRODUCE, messages of every size at every place of the ring, notifications,
what happens to a ring that breaks the rules, and how it is revived. Method: a guest that stores
what it likes into its page; C xenstored where the reference says that both agree.
Cannot show: the order of stores inside the server (tests/crash, tests/ring)."""

from __future__ import annotations

import select

import pytest

from tests.oracle.guest import (
    CONNECTION_STATE,
    REQ_CONS,
    REQ_OFFSET,
    REQ_PROD,
    RING_ERROR,
    RING_SIZE,
    RSP_CONS,
    RSP_PROD,
    SERVER_FEATURES,
    RingConnection,
)
from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import NoReply, strings
from tests.rings.house import (
    House,
    break_ring,
    house,
    packet,
    put_raw,
    refused,
    settled,
    wait_error,
    wait_until,
)

pytestmark = pytest.mark.slow

WAYS = ("length", "req_prod", "req_prod behind", "rsp_cons")
INDICES = (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD)


def is_notified(guest: RingConnection, timeout_s: float = 5.0) -> bool:
    """Whether a notification comes; it is taken."""
    poll = select.poll()
    poll.register(guest.notifications, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return False
    guest.wait_notification(0)
    return True


def forget_notifications(guest: RingConnection) -> None:
    """Take those that are there."""
    guest.wait_notification(0)


# -- INTRODUCE


def test_introduce_makes_the_ring_anew(both: House) -> None:
    """Whatever was in it: indices 0, connection 1 -> 0, and the guest is told."""
    both.sim.create_domain(1)
    guest = both.connect(1)
    for offset in INDICES:
        guest.set_field(offset, 0xFFFFFFF0)
    guest.set_field(CONNECTION_STATE, 1)
    both.dom0.introduce(1)
    assert is_notified(guest)
    assert [guest.get_field(offset) for offset in (*INDICES, CONNECTION_STATE, RING_ERROR)] == (
        [0] * 6)
    assert guest.get_field(SERVER_FEATURES) == (14 if both.is_ours else 0)  # 4.17 writes nothing
    assert guest.get_domain_path(1) == "/local/domain/1"


def test_what_waited_before_introduce_is_dropped(both: House) -> None:
    both.sim.create_domain(1)
    guest = both.connect(1)
    put_raw(guest, packet(M.GET_DOMAIN_PATH, strings(7)))
    both.dom0.introduce(1)
    wait_until(lambda: guest.get_field(REQ_PROD) == 0, "indices at 0")
    assert guest.get_domain_path(1) == "/local/domain/1"
    assert guest.receive(0) is None


def test_features_of_one_domain_can_be_restricted(ours: House) -> None:
    ours.sim.create_domain(1)
    ours.dom0.call(M.SET_FEATURE, strings(1, 2))
    assert refused(lambda: ours.dom0.call(M.SET_FEATURE, strings(1, 16))) == "EINVAL"
    guest = ours.connect(1)
    ours.dom0.introduce(1)
    assert guest.get_field(SERVER_FEATURES) == 2
    assert refused(lambda: ours.dom0.call(M.SET_FEATURE, strings(1, 14))) == "EBUSY"
    ours.crash()
    assert guest.get_domain_path(1) == "/local/domain/1"
    assert guest.get_field(SERVER_FEATURES) == 2


def test_introduced_again_a_connection_begins_anew(both: House) -> None:
    """Watches and transactions are gone, the nodes are not; no @introduceDomain (pitfall 12)."""
    watcher = both.client()
    watcher.watch("@introduceDomain", "i")
    guest = both.guest(1)
    assert settled(watcher) == [("@introduceDomain", "i")] * 2
    guest.write("kept", "1")
    guest.watch("kept", "t")
    settled(guest)
    tx_id = guest.transaction_start()
    both.dom0.introduce(1)
    assert [guest.get_field(offset) for offset in INDICES] == [0] * 4
    assert guest.read("kept") == b"1"
    assert refused(guest.read, "kept", tx_id) == "ENOENT"
    both.dom0.write("/local/domain/1/kept", "2")
    assert settled(guest) == [] and settled(watcher) == []


def test_introduce_of_what_cannot_be(both: House) -> None:
    both.sim.create_domain(1)
    for arguments in ((1, 1, 0), (0, 1, 1000), (70000, 1, 1000), ("x", 1, 1000), (1, 1)):
        name = refused(both.dom0.call, M.INTRODUCE, strings(*arguments))
        if arguments == (1, 1) or both.is_ours or arguments[0] == 1:
            assert name == "EINVAL", arguments
    if both.is_ours:  # in the simulation C maps a ring all the same
        assert refused(both.dom0.introduce, 9) == "ENOENT"
    guest = both.guest(2)
    assert refused(guest.introduce, 1) == "EACCES"


@pytest.mark.parametrize("is_known", [False, True])
def test_introduce_that_the_machine_refuses(is_known: bool) -> None:
    """EINVAL, and nothing else has happened: not to the server, and not to an older connection."""
    with house("tardigrade") as it:
        if is_known:
            guest = it.guest(2)
            it.sim.ring_path(2).rename(it.sim.directory / ".kept")
        it.sim.set_state(2, "running", notify=False)
        it.sim.ring_path(2).mkdir()  # nothing that could be mapped
        assert refused(it.dom0.introduce, 2) == "EINVAL"
        it.sim.ring_path(2).rmdir()
        if is_known:
            (it.sim.directory / ".kept").rename(it.sim.ring_path(2))
            it.dom0.introduce(2)
            assert guest.get_domain_path(2) == "/local/domain/2"
        else:
            it.guest(2).write("x", "1")
        it.check()


# -- messages


def test_messages_at_every_place_of_the_ring(both: House) -> None:
    """Sizes that cross the end of the ring at every offset, in both directions."""
    guest = both.guest(1)
    crossed = 0
    for size in (*range(40), 255, 1007, 1008, 1009, 1024, 1500, 1900, 1901):
        value = bytes(range(256)) * 8
        start = guest.get_field(REQ_PROD) % RING_SIZE
        guest.write("x", value[:size])
        crossed += start + 18 + size > RING_SIZE
        assert guest.read("x") == value[:size]
    assert crossed > 5
    assert guest.get_field(REQ_PROD) > 2 * RING_SIZE


@pytest.mark.parametrize("kind", [M.WRITE, M.READ, 77])
def test_the_largest_message(both: House, kind: int) -> None:
    """4,112 bytes: four times the ring. Refused by what it asks, not by its size."""
    guest = both.guest(1)
    payload = b"/" + b"x" * 4094 + b"\0"
    for _ in range(3):
        answer = guest.request(kind, payload)
        assert answer.error == ("ENOSYS" if kind == 77 else "EINVAL")
    assert guest.get_field(RING_ERROR) == 0


def test_the_largest_reply(both: House) -> None:
    guest = both.guest(1)
    names = [f"{number:03}{'n' * 96}" for number in range(40)]
    for name in names:
        both.dom0.mkdir(f"/local/domain/1/big/{name}")
    assert guest.directory("big") == names
    both.dom0.mkdir(f"/local/domain/1/big/{'m' * 95}")  # 4,096 bytes, exactly
    assert len(guest.directory("big")) == 41
    both.dom0.mkdir("/local/domain/1/big/o")
    assert refused(guest.directory, "big") == "E2BIG"


def test_a_payload_of_nothing(both: House) -> None:
    """Pitfall 12: it is legal, and answered at once."""
    guest = both.guest(1)
    assert guest.request(M.READ, b"", timeout_s=2).error is not None
    assert guest.request(M.RESET_WATCHES, b"", timeout_s=2).error is None
    put_raw(guest, packet(M.RESET_WATCHES, b"") * 3)
    assert [guest.receive_reply(99).error for _ in range(3)] == [None] * 3


def test_unknown_types_leave_the_connection_up(both: House) -> None:
    guest = both.guest(1)
    for kind in (15, 16, 20, 77, 0xFFFF, 0xFFFFFFFF):
        assert guest.request(kind, b"x\0").error == "ENOSYS"


def test_a_message_byte_by_byte(both: House) -> None:
    guest = both.guest(1)
    message = packet(M.WRITE, strings("x") + b"slow")
    for index in range(len(message)):
        put_raw(guest, message[index:index + 1])
        both.dom0.read("/")  # the server has had a turn
    assert guest.receive_reply(99).error is None
    assert guest.read("x") == b"slow"


def test_what_is_not_whole_yet_survives_a_crash(ours: House) -> None:
    """Half a short message stays in the ring, half a long one was taken out of it."""
    guest = ours.guest(1)
    for size in (8, 100, 1900):
        message = packet(M.WRITE, strings("x") + bytes([65 + size % 26]) * size)
        half, sent = len(message) // 2 + 9, 0
        while sent < len(message):
            free = RING_SIZE - (guest.get_field(REQ_PROD) - guest.get_field(REQ_CONS))
            end = min(half, sent + free) if sent < half else min(len(message), sent + free)
            put_raw(guest, message[sent:end])
            sent = end
            if sent == half:
                ours.crash()
            elif sent < half:
                wait_until(lambda: guest.get_field(REQ_PROD) - guest.get_field(REQ_CONS)
                           < RING_SIZE, "room in the ring")
        assert guest.receive_reply(99).error is None
        assert guest.read("x") == bytes([65 + size % 26]) * size
        assert guest.receive(0) is None


# -- notifications


def test_every_chunk_is_notified(both: House) -> None:
    """A full request ring is told of room, a full response ring of each further part; the guest
    here sleeps until it is told."""
    guest = both.guest(1)
    guest.write("x", b"v" * 1900)
    forget_notifications(guest)
    message = packet(M.WRITE, strings("y") + b"w" * 1900)
    while message:
        free = RING_SIZE - (guest.get_field(REQ_PROD) - guest.get_field(REQ_CONS))
        put_raw(guest, message[:free])
        message = message[free:]
        assert is_notified(guest)
    data = b""
    guest.send(M.READ, strings("x"))
    while len(data) < 16 + 3 + 16 + 1900:
        if guest.get_field(RSP_PROD) == guest.get_field(RSP_CONS):
            assert is_notified(guest), len(data)
        data += guest.receive_bytes(0)
    assert data.endswith(b"v" * 1900)
    assert guest.receive_bytes(0) == b""


def test_a_start_notifies_every_ring(ours: House) -> None:
    """Notifications of the last life may be lost: who was silent is told, too."""
    guests = [ours.guest(domid) for domid in (1, 2, 3)]
    own = ours.connect(0)
    for guest in (*guests, own):
        guest.get_domain_path(0)
        forget_notifications(guest)
    ours.crash()
    for guest in (*guests, own):
        assert is_notified(guest)
        assert guest.receive(0) is None


def test_requests_of_the_time_without_a_server_are_served(ours: House) -> None:
    guest = ours.guest(1)
    assert ours.server is not None
    ours.server.kill9()
    put_raw(guest, packet(M.GET_DOMAIN_PATH, strings(4)))
    ours.server.restart()
    answer = guest.receive_reply(99)
    assert answer.payload == b"/local/domain/4\0"


def test_domain_0_has_a_ring_without_being_introduced(both: House) -> None:
    """It is notified once at the start, and served like a socket."""
    own = both.connect(0)
    own.write("/x", "from the ring")
    assert both.dom0.read("/x") == b"from the ring"
    assert own.is_introduced(0)
    own.watch("/x", "t")
    both.dom0.write("/x", "2")
    assert settled(own) == [("/x", "t")] * 2


# -- broken rings


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_ring_is_ignored_with_an_error(both: House, way: str) -> None:
    """The others go on; its watches and transactions are gone; nothing that it does is heard."""
    guest, other = both.guest(1), both.guest(2)
    both.public()
    guest.watch("/pub", "t")
    guest.transaction_start()
    settled(guest)
    wait_error(guest, break_ring(guest, way))
    both.dom0.write("/pub/x", "1")
    other.write("/pub/y", "1")
    for offset in INDICES:
        guest.set_field(offset, 0)
    with pytest.raises(NoReply):
        guest.request(M.GET_DOMAIN_PATH, b"0\0", timeout_s=0.3)
    assert both.dom0.is_introduced(1)
    both.check()


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_ring_is_ignored_in_the_next_life_too(ours: House, way: str) -> None:
    guest = ours.guest(1)
    code = break_ring(guest, way)
    wait_error(guest, code)
    ours.crash()
    assert guest.get_field(RING_ERROR) == code
    for offset in INDICES:
        guest.set_field(offset, 0)
    with pytest.raises(NoReply):
        guest.request(M.GET_DOMAIN_PATH, b"0\0", timeout_s=0.3)
    ours.check()


@pytest.mark.parametrize("way", WAYS)
def test_introduced_again_a_broken_ring_is_revived(ours: House, way: str) -> None:
    """Better than C xenstored, where it stays dead (reference 1.6)."""
    guest = ours.guest(1)
    wait_error(guest, break_ring(guest, way))
    ours.dom0.introduce(1)
    guest.received = b""
    assert [guest.get_field(offset) for offset in (*INDICES, RING_ERROR)] == [0] * 5
    guest.write("x", "1")
    assert guest.read("x") == b"1"
    ours.crash()
    assert guest.read("x") == b"1"


def test_a_ring_that_breaks_while_there_is_no_server(ours: House) -> None:
    """The next life does not believe indices that it has not left there."""
    guest, other = ours.guest(1), ours.guest(2)
    guest.get_domain_path(1)
    assert ours.server is not None
    ours.server.kill9()
    guest.set_field(REQ_CONS, guest.get_field(REQ_CONS) - 5)
    guest.set_field(RSP_PROD, guest.get_field(RSP_PROD) + 7)
    ours.server.restart()
    wait_error(guest, 2)
    assert other.get_domain_path(1) == "/local/domain/1"


def test_own_indices_overwritten_by_the_guest_change_nothing(ours: House) -> None:
    """The server's two are local copies: the guest confuses itself only."""
    guest = ours.guest(1)
    for number in range(5):
        req_cons, rsp_prod = guest.get_field(REQ_CONS), guest.get_field(RSP_PROD)
        guest.set_field(REQ_CONS, req_cons + 400 + number)
        guest.set_field(RSP_PROD, rsp_prod + 300)
        put_raw(guest, packet(M.GET_DOMAIN_PATH, strings(number)))
        wait_until(lambda before=req_cons: guest.get_field(REQ_CONS)  # type: ignore[misc]
                   == before + 18, "its index is stored again")
        answer = guest.receive_reply(99)
        assert answer.payload == b"/local/domain/%d\0" % number


def test_a_request_changed_behind_its_announcement(ours: House) -> None:
    """What is executed is a copy: the bytes may change any time, and be anything."""
    guest = ours.guest(1)
    for _ in range(50):
        message = packet(M.GET_DOMAIN_PATH, strings(4))
        start = guest.get_field(REQ_PROD) % RING_SIZE
        put_raw(guest, message)
        for index in range(16, 18):
            guest.page[REQ_OFFSET + (start + index) % RING_SIZE] = ord("9")
        answer = guest.receive_reply(99)
        assert answer.error == "EINVAL" or answer.payload in (
            b"/local/domain/4\0", b"/local/domain/9\0")
    ours.check()
