# SPDX-License-Identifier: Apache-2.0
"""The alphabet of operations that are crashed, and the image that every sequence starts from.

The start: domain 0 on its own ring, guests 1 and 2 introduced, 3 not yet. Both guests watch
/shared, domain 0 watches guest 1's nodes and @releaseDomain. Guest 1 has an open transaction that
has read /shared/y and written data/t. Its positions, and domain 0's, are a few bytes below 2^32,
so that nearly every operation carries them across.
Every value that is written holds the request's number: a request done twice shows.
Change with: nothing; a letter may be added freely."""

from __future__ import annotations

from collections.abc import Callable

from app import wire
from persist import layout as region_layout
from ring import layout
from ring.host import DomainState
from tests.crash.ring_guest import RingGuest
from tests.crash.ring_world import (
    LOG_BYTES,
    NEVER,
    PORT_BASE,
    Image,
    Outside,
    Step,
    World,
    empty_page,
)

BIG = 1900  # of a value: neither a request with it nor a reply fits the ring
BELOW_WRAP = (1 << 32) - 8  # where requests and replies of guest 1 and domain 0 stand
_REQUESTS_OF_TX, _REPLIES_OF_TX = 68, 54  # bytes of guest 1 before that
DOM0, ONE, TWO, THREE = 0, 1, 2, 3
_HOME = b"/local/domain/1/"
Text = bytes | Callable[[RingGuest], bytes]


def ask(domid: int, kind: int, payload: Text, in_tx: bool = False) -> Step:
    """A guest has a request."""
    def step(world: World) -> None:
        guest = world.guests[domid]
        if guest.is_connected:
            guest.ask(kind, payload if isinstance(payload, bytes) else payload(guest),
                      guest.tx_id() if in_tx else 0)
    return step


def all_of(*steps: Step) -> Step:
    """Several things at once: requests of one guest are pipelined."""
    def step(world: World) -> None:
        for one in steps:
            one(world)
    return step


def write(domid: int, path: bytes, size: int = 0, in_tx: bool = False) -> Step:
    """A WRITE of the request's number, filled up to `size`."""
    return ask(domid, wire.XS_WRITE, lambda guest: path + b"\0" + (
        b"%d." % guest.next_req_id).ljust(size, b"x"), in_tx)


def die(domid: int) -> Step:
    """The domain is gone."""
    def step(world: World) -> None:
        world.guests[domid].stop()
        world.set_domain(domid, None)
    return step


def shut_down(domid: int) -> Step:
    """The domain has crashed, but is still there."""
    def step(world: World) -> None:
        if domid in world.domains:
            world.set_domain(domid, world.domains[domid]._replace(is_shutdown=True))
    return step


def replace(domid: int) -> Step:
    """The domain is gone, and another has its number already, with a page of its own."""
    def step(world: World) -> None:
        world.guests[domid].stop()
        world.memory.pages[domid] = empty_page(layout.RECONNECT)
        before = world.domains.get(domid)
        world.set_domain(domid, DomainState((before.identity if before else 500) + 10, False))
    return step


def break_ring(domid: int) -> tuple[Step, ...]:
    """A guest claims to have written more than the ring holds."""
    def step(world: World) -> None:
        guest = world.guests[domid]
        if guest.is_connected:
            memoryview(world.memory.pages[domid]).cast("I")[layout.REQ_PROD >> 2] = (
                guest.req_prod + 5000) & 0xFFFFFFFF
            guest.stop()
            world.machine.raise_event(PORT_BASE + domid)
    return (step,)


def bad_length(domid: int) -> tuple[Step, ...]:
    """A guest sends a message that is longer than messages are."""
    def send(world: World) -> None:
        if world.guests[domid].is_connected:
            world.guests[domid].unsent = wire.HEADER.pack(wire.XS_READ, 1, 0, 9999)

    def stop(world: World) -> None:
        world.guests[domid].stop()
    return send, stop


def introduce(domid: int) -> tuple[Step, ...]:
    """A domain is introduced, for the first time or again; its guest begins anew then."""
    def stop(world: World) -> None:
        world.guests[domid].stop()

    def begin(world: World) -> None:
        if world.guests[DOM0].last_reply() == (wire.XS_INTRODUCE, wire.OK):
            world.guests[domid].begin(world.memory.pages[domid])

    return (all_of(stop, ask(DOM0, wire.XS_INTRODUCE, b"%d\0%d\0%d\0" % (domid, domid, domid))),
            begin, ask(domid, wire.XS_READ, b"/shared/y\0"))


def release(domid: int) -> tuple[Step, ...]:
    """The toolstack lets go of a domain."""
    def stop(world: World) -> None:
        world.guests[domid].stop()
    return (all_of(stop, ask(DOM0, wire.XS_RELEASE, b"%d\0" % domid)),)


LETTERS: dict[str, tuple[Step, ...]] = {
    "read": (ask(ONE, wire.XS_READ, b"data/x\0"),),
    "read-big": (ask(ONE, wire.XS_READ, b"big\0"),),
    "directory": (ask(ONE, wire.XS_DIRECTORY, b"tree\0"),),
    "write": (write(ONE, b"data/x"),),
    "write-big": (write(ONE, b"big", BIG),),
    "rm": (ask(ONE, wire.XS_RM, b"tree\0"),),
    "mkdir": (ask(ONE, wire.XS_MKDIR, b"tree/new/er\0"),),
    "set-perms": (ask(ONE, wire.XS_SET_PERMS, b"data\0n1\0r2\0r3\0"),),
    "watch": (ask(ONE, wire.XS_WATCH, b"data\0token\0"),),
    "unwatch": (ask(ONE, wire.XS_UNWATCH, b"/shared\0one\0"),),
    "start": (ask(ONE, wire.XS_TRANSACTION_START, b"\0"),),
    "tx-read": (ask(ONE, wire.XS_READ, b"data/x\0", in_tx=True),),
    "tx-write": (write(ONE, b"data/x", in_tx=True),),
    "tx-rm": (ask(ONE, wire.XS_RM, b"tree\0", in_tx=True),),
    "commit": (ask(ONE, wire.XS_TRANSACTION_END, b"T\0", in_tx=True),),
    "abort": (ask(ONE, wire.XS_TRANSACTION_END, b"F\0", in_tx=True),),
    "error": (ask(ONE, wire.XS_WRITE, b"/not/mine\0v"),),
    "pipelined": (all_of(
        ask(ONE, wire.XS_READ, b"nothing\0"), write(ONE, b"data/x"), write(ONE, b"data/y", 300),
        ask(ONE, 99, b"what?"), ask(ONE, wire.XS_READ, b"big\0"), write(ONE, b"big", BIG),
        ask(ONE, wire.XS_MKDIR, b"tree/pipe\0"), ask(ONE, wire.XS_READ, b"data/y\0")),),
    "dom0-write": (write(DOM0, b"/shared/x"),),
    "two-write": (write(TWO, b"/shared/y"),),
    "introduce-new": introduce(THREE),
    "introduce-again": introduce(TWO),
    "introduce-one": introduce(ONE),
    "release": release(TWO),
    "die": (die(TWO),),
    "die-one": (die(ONE),),
    "replace": (replace(TWO),),
    "shut-down": (shut_down(TWO),),
    "break-ring": break_ring(TWO),
    "bad-length": bad_length(TWO),
    "set-target": (ask(DOM0, wire.XS_SET_TARGET, b"1\0" b"2\0"),),
}

_SETUP: tuple[Step, ...] = (
    all_of(
        *(ask(DOM0, wire.XS_WRITE, path + b"\0" + value) for path, value in (
            (b"/shared/y", b"y"), (_HOME + b"big", b"b" * BIG), (_HOME + b"data/x", b"first"))),
        *(ask(DOM0, wire.XS_MKDIR, path + b"\0") for path in (
            _HOME + b"tree/a/b", _HOME + b"tree/c")),
        *(ask(DOM0, wire.XS_SET_PERMS, path + b"\0" + perms) for path, perms in (
            (b"/shared", b"n0\0b1\0b2\0b3\0"), (b"/shared/y", b"n0\0b1\0b2\0b3\0"),
            *((_HOME + path, b"n1\0") for path in (b"big", b"data", b"data/x", b"tree", b"tree/a",
                                                   b"tree/a/b", b"tree/c")),
            (_HOME[:-1], b"n1\0"))),
        ask(DOM0, wire.XS_WATCH, _HOME[:-1] + b"\0zero\0"),
        ask(DOM0, wire.XS_WATCH, b"@releaseDomain\0gone\0")),
    *map(all_of, introduce(ONE), introduce(TWO)),
    all_of(ask(DOM0, wire.XS_WATCH, b"@introduceDomain\0new\0"),
           ask(ONE, wire.XS_WATCH, b"/shared\0one\0"),
           ask(TWO, wire.XS_WATCH, b"/shared\0two\0")),
)
_OPEN: tuple[Step, ...] = (
    ask(ONE, wire.XS_TRANSACTION_START, b"\0"),
    all_of(ask(ONE, wire.XS_READ, b"/shared/y\0", in_tx=True), write(ONE, b"data/t", in_tx=True)),
)


def place(world: World, domid: int, consumed: int, sent: int, is_logged: bool = True) -> None:
    """Move a quiet connection to other stream positions, on both sides, and log it."""
    assert world.server.rings is not None
    client, guest = world.server.rings.guests.by_domid[domid], world.guests[domid]
    assert client.ring is not None
    assert not client.unsent and not client.input
    client.consumed = client.ring.requests.position = consumed
    client.ring.responses.position = sent
    guest.req_prod, guest.rsp_cons = consumed & 0xFFFFFFFF, sent & 0xFFFFFFFF
    words = memoryview(world.memory.pages[domid]).cast("I")
    words[layout.REQ_CONS >> 2] = words[layout.REQ_PROD >> 2] = guest.req_prod
    words[layout.RSP_CONS >> 2] = words[layout.RSP_PROD >> 2] = guest.rsp_cons
    if is_logged:
        world.journal.commit([], [client.whole_stream()])


def begin_image(log_bytes: int = LOG_BYTES) -> Image:
    """The image that every sequence starts from, between two lives."""
    guests = {domid: RingGuest(domid) for domid in range(4)}
    guests[DOM0].is_connected = True
    domains = {domid: DomainState(100 + domid, False) for domid in range(4)}
    pages = {domid: bytes(empty_page(layout.RECONNECT if domid else layout.CONNECTED))
             for domid in range(4)}
    world = World(Image(bytes(region_layout.LOG_OFFSET + log_bytes), pages,
                        Outside(0, False, guests, domains), False, NEVER), _SETUP + _OPEN)
    world.start()
    world.play(len(_SETUP))
    place(world, DOM0, BELOW_WRAP, BELOW_WRAP)
    place(world, ONE, BELOW_WRAP - _REQUESTS_OF_TX, BELOW_WRAP - _REPLIES_OF_TX)
    world.play()
    image = world.image()
    one = world.guests[ONE]
    assert (one.req_prod, one.rsp_cons) == (BELOW_WRAP, BELOW_WRAP), one.__dict__
    world.close()
    return image._replace(outside=image.outside._replace(step=0))
