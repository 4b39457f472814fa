# SPDX-License-Identifier: Apache-2.0
"""Longer schedules than the alphabet reaches, each for one thing that is hard about rings.

Method: as ring_letters.py; what must have happened on the way, each scenario's `must` says, and
test_ring_scenarios.py looks whether it did. Cannot show: guests that act within a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app import wire
from tests.crash.ring_letters import (
    BIG,
    DOM0,
    LETTERS,
    ONE,
    THREE,
    TWO,
    all_of,
    ask,
    die,
    place,
    release,
    write,
)
from tests.crash.ring_world import Image, Plan, Step, World

FAR = (1 << 30) - 20
_BIG_OF_TWO = b"/shared/big\0"
_LOOK_ON: tuple[Step, ...] = (ask(TWO, wire.XS_READ, b"/shared/y\0"),)


def after(image: Image, steps: Sequence[Step],
          then: Callable[[World], None] = lambda world: None) -> Image:
    """The image after an uncrashed life of `steps`, between two lives."""
    world = World(image._replace(outside=image.outside._replace(step=0)), steps)
    world.start()
    world.play()
    then(world)
    found = world.image()
    world.close()
    return found._replace(outside=found.outside._replace(step=0))


def may_read(domid: int, size: int) -> Step:
    """A slow reader takes so many bytes more."""
    def step(world: World) -> None:
        world.guests[domid].may_read = size
    return step


def may_send(domid: int, size: int) -> Step:
    """A slow writer."""
    def step(world: World) -> None:
        world.guests[domid].may_send = size
    return step


def copy_only(domid: int, size: int) -> Step:
    """A guest has copied bytes of its request into the ring, and not said so yet."""
    def step(world: World) -> None:
        guest = world.guests[domid]
        guest.may_send = size
        guest.copy_request(world.memory.pages[domid])
        guest.may_send = 0
    return step


def _with_big(image: Image) -> Image:
    """There is something that TWO may read and that does not fit its ring."""
    return after(image, [write(DOM0, b"/shared/big", BIG)])


def slots(image: Image) -> Plan:
    """A guest is owed bytes from a slot turn; turns of others go over the slots again and again."""
    others = [LETTERS["read"][0], ask(DOM0, wire.XS_READ, b"/shared/y\0")]
    return Plan(_with_big(image), [
        may_read(TWO, 0), ask(TWO, wire.XS_READ, _BIG_OF_TWO), *others, *others,
        ask(TWO, wire.XS_READ, b"/shared/y\0"), *others, may_read(TWO, 900), *others,
        may_read(TWO, 300), others[0], LETTERS["write"][0], *others,
        ask(TWO, wire.XS_DIRECTORY, b"/shared\0"), may_read(TWO, 1 << 30), *others])


def slow_reader(image: Image) -> Plan:
    """Replies and events pile up for a guest that reads a little now and then."""
    ask_big = ask(TWO, wire.XS_READ, _BIG_OF_TWO)
    return Plan(_with_big(image), [
        may_read(TWO, 0), ask_big, LETTERS["dom0-write"][0], ask_big,
        *(step for size in (1, 15, 700, 1300, 17) for step in (
            may_read(TWO, size), LETTERS["dom0-write"][0])),
        LETTERS["two-write"][0], may_read(TWO, 1 << 30), *LETTERS["two-write"]])


def half_requests(image: Image) -> Plan:
    """Requests that are half in the ring while others are served: bytes that are not announced
    yet, half a header, half a payload, the first ring full of a long one."""
    other = LETTERS["dom0-write"][0]
    tell = may_send(ONE, 1 << 30)
    return Plan(image, [
        may_send(ONE, 0), write(ONE, b"data/x", 700), copy_only(ONE, 400), other, tell,
        may_send(ONE, 10), write(ONE, b"data/x", 700), other, may_send(ONE, 300), other, tell,
        may_send(ONE, 1024), write(ONE, b"big", BIG), other, may_send(ONE, 100), other,
        may_send(ONE, 800), LETTERS["read"][0], other, copy_only(ONE, 12), other, tell,
        may_send(ONE, 0), all_of(LETTERS["read"][0], write(ONE, b"big", BIG)),
        may_send(ONE, 500), other, copy_only(ONE, 600), tell])


def owed_then(name: str) -> Callable[[Image], Plan]:
    """A guest that is owed bytes is gone, or begins anew."""
    def plan(image: Image) -> Plan:
        return Plan(_with_big(image), [
            may_read(TWO, 0), ask(TWO, wire.XS_READ, _BIG_OF_TWO), LETTERS["dom0-write"][0],
            *LETTERS[name], *LETTERS["dom0-write"], *LETTERS["introduce-again"], *_LOOK_ON])
    return plan


def together(image: Image) -> Plan:
    """All three ask in the same turn, with replies and requests longer than the ring; nobody hears
    of what the others do."""
    burst = all_of(
        LETTERS["read-big"][0], *LETTERS["tx-write"], LETTERS["read"][0], *LETTERS["error"],
        ask(TWO, wire.XS_READ, _BIG_OF_TWO), ask(TWO, wire.XS_DIRECTORY, b"/shared\0"),
        write(DOM0, b"/other/a"), ask(DOM0, wire.XS_READ, _BIG_OF_TWO), write(DOM0, b"/other/b"))
    return Plan(_with_big(image), [burst, burst])


def leaving(image: Image) -> Plan:
    """A domain dies whose nodes are too many for one record; meanwhile others are served."""
    above = [b"/shared/%d" % number for number in range(6)]
    mine = [ask(THREE, wire.XS_WRITE, path + b"/%02d" % number + b"n" * 70 + b"\0")
            for path in above for number in range(25)]
    begin = after(image, [
        *LETTERS["introduce-new"], ask(TWO, wire.XS_UNWATCH, b"/shared\0two\0"),
        ask(ONE, wire.XS_UNWATCH, b"/shared\0one\0"),
        all_of(*(ask(DOM0, wire.XS_MKDIR, path + b"\0") for path in above)), all_of(*mine)])
    return Plan(begin, [all_of(die(THREE), LETTERS["read"][0]), *LETTERS["introduce-new"],
                        all_of(LETTERS["write"][0])])


def all_released(image: Image) -> Plan:
    """Guests come, go, and come back, while one of them is owed bytes."""
    return Plan(_with_big(image), [
        may_read(TWO, 0), ask(TWO, wire.XS_READ, _BIG_OF_TWO), *LETTERS["introduce-new"],
        *LETTERS["introduce-one"], *LETTERS["replace"], *LETTERS["introduce-again"],
        *release(THREE), *LETTERS["introduce-new"], *LETTERS["die-one"], *_LOOK_ON])


def gone_far(image: Image) -> Plan:
    """Guest 1 has gone on by slot turns for as far as it may before it is logged anew, which none
    of the entries says: only its page. The very last turn was domain 0's."""
    def jump(world: World) -> None:
        assert world.server.rings is not None
        client = world.server.rings.guests.by_domid[ONE]
        assert client.ring is not None
        place(world, ONE, client.consumed + FAR, client.ring.responses.position + FAR,
              is_logged=False)
    begin = after(image, [ask(DOM0, wire.XS_READ, b"/shared/y\0")], jump)
    return Plan(begin, [*LETTERS["read"], *LETTERS["read"], *LETTERS["dom0-write"],
                        *LETTERS["read-big"], *LETTERS["write-big"]])


def _filled(image: Image) -> Image:
    """The log is filled nearly to its end; a guest is owed bytes from far behind."""
    def fill(number: int) -> Step:
        return write(DOM0, b"/fill/%d" % (number % 5), 3000)
    image = after(_with_big(image), [fill(number) for number in range(26)])
    owing = after(image, [may_read(TWO, 0), ask(TWO, wire.XS_READ, _BIG_OF_TWO),
                          ask(TWO, wire.XS_READ, _BIG_OF_TWO), LETTERS["dom0-write"][0]])
    return after(owing, [fill(number) for number in range(45)])


def log_wrap(image: Image) -> Plan:
    """The log crosses its end while owed bytes are carried forward; with hashing and seals."""
    return Plan(_filled(image), [
        *(LETTERS["write-big"][0] for _ in range(5)), LETTERS["read-big"][0],
        LETTERS["two-write"][0], may_read(TWO, 1500), *(LETTERS["write-big"] * 9),
        ask(ONE, wire.XS_TRANSACTION_END, b"T\0", in_tx=True), may_read(TWO, 1 << 30),
        *_LOOK_ON], quiet=4)


SCENARIOS: dict[str, Callable[[Image], Plan]] = {
    "slots": slots,
    "slow-reader": slow_reader,
    "half-requests": half_requests,
    "together": together,
    "leaving": leaving,
    "owed-then-die": owed_then("die"),
    "owed-then-release": owed_then("release"),
    "owed-then-replace": owed_then("replace"),
    "owed-then-introduce": owed_then("introduce-again"),
    "owed-then-break": owed_then("break-ring"),
    "all-released": all_released,
    "gone-far": gone_far,
    "log-wrap": log_wrap,
}
