# SPDX-License-Identifier: Apache-2.0
"""Crash a sequence of operations at every store, and its recovery too; compare what guests saw.

Method: the sequence is played once without a crash: that is the reference. From the image that
every point would leave, a new life goes on with the schedule to its end: each guest must have got
the same packets, each once, its page must say so, and the store must hold the same. The recovery
of every image, or of a share of them, is crashed at every store as well. Identical images are
tried once. One crash is replayed, by really dying there, with
    python -m tests.crash.ring_sweep LETTER... [--point N [--second N]]
Cannot show: damage, deaths of other processes, real hypervisors."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from app.store import Store
from ring import layout
from tests.crash.ring_guest import Packet
from tests.crash.ring_letters import LETTERS, begin_image
from tests.crash.ring_scenarios import SCENARIOS
from tests.crash.ring_world import NEVER, Image, Plan, World, life
from tests.crash.world import Died

ALL, NONE = slice(None), slice(0)
_WORDS = (layout.SERVER_FEATURES, layout.CONNECTION, layout.ERROR)


class Counts(NamedTuple):
    """What was tried."""

    sequences: int = 0
    points: int = 0
    images: int = 0
    second_points: int = 0
    second_images: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(*(one + two for one, two in zip(self, other, strict=True)))

    def text(self) -> str:
        """For tell()."""
        return (f"{self.sequences} sequences, {self.points} crash points, {self.images} distinct "
                f"images; {self.second_points} points in recoveries, {self.second_images} images")


class Seen(NamedTuple):
    """What a whole schedule has led to, as far as anybody outside could tell."""

    packets: dict[int, list[list[Packet]]]
    words: dict[int, list[int]]
    state: dict[str, Any]


def seen(world: World) -> Seen:
    """Look at a world in which all is quiet."""
    packets, words = {}, {}
    for domid, guest in world.guests.items():
        packets[domid] = guest.packets()
        assert not guest.unsent, f"guest {domid} could not send all"
        page = memoryview(world.memory.pages[domid]).cast("I")
        words[domid] = [page[offset >> 2] for offset in _WORDS]
        if guest.is_connected:
            assert page[layout.REQ_CONS >> 2] == guest.req_prod, f"guest {domid}: req_cons"
            assert page[layout.RSP_PROD >> 2] == guest.rsp_cons, f"guest {domid}: rsp_prod"
        elif len(guest.received) == 1:
            words[domid] += world.memory.pages[domid]
    return Seen(packets, words, state_of(world.store))


def state_of(store: Store) -> dict[str, Any]:
    """Everything durable, without what a crash may change: ordinals, transactions' ids, the
    number of lives. Suspects must have been acquitted."""
    problem = store.check()
    assert problem is None, problem
    state: dict[str, Any] = {
        path.decode(): (node.value, node.perms.wire, store.tree.listing(path))
        for path, node in store.tree.nodes.items()}
    watches, transactions = [], []
    for key, value in store.items.values.items():
        kind, _, rest = key.partition(".")
        if kind == "watch":
            epoch, ordinal = map(int, rest.split("."))
            watches.append((epoch, ordinal, value))
        elif kind == "tx":
            numbers = tuple(map(int, rest.split(".")))
            transactions.append((numbers, _told(value) if len(numbers) == 3 else value))
        elif key not in ("next.life", "next.tx", "last.death"):
            state[key] = value
    state["watches"] = [(epoch, value) for epoch, _, value in sorted(watches)]
    ids = sorted({numbers[1] for numbers, _ in transactions})
    state["tx"] = [(epoch, ids.index(tx_id), *number, value)
                   for (epoch, tx_id, *number), value in sorted(transactions)]
    state["heard by"] = {path.decode(): [(one.client.domid, one.token) for one in by]
                         for path, by in sorted(store.watches.by_path.items())}
    state["targets"] = {domid: client.target for domid, client in store.rings.items()}
    return state


def _told(value: Any) -> Any:
    """One request of a transaction, without the ordinals of the nodes that it has seen."""
    kind, payload, answer, (is_poisoned, recalled, *views) = value
    return kind, payload, answer, is_poisoned, recalled, [
        (path, is_touched, *(node[:2] if node else node for node in (own, was)), listing)
        for path, is_touched, own, was, listing in views]


def compare(reference: Seen, world: World) -> None:
    """Raises AssertionError with the first difference."""
    now = seen(world)
    for domid, packets in reference.packets.items():
        assert now.packets[domid] == packets, (
            f"guest {domid} was told\n  {now.packets[domid]}\ninstead of\n  {packets}")
    for domid, words in reference.words.items():
        assert now.words[domid] == words, f"page of {domid}: {now.words[domid]}, not {words}"
    for key in {**reference.state, **now.state}:
        one, two = now.state.get(key), reference.state.get(key)
        assert one == two, f"{key}: {one!r} instead of {two!r}"


# -- the enumeration


@cache
def begin() -> Image:
    """The image of ring_letters.py, made once."""
    return begin_image()


def plan_of(names: Sequence[str]) -> Plan:
    """A sequence of letters, or a scenario."""
    if names[0] in SCENARIOS:
        return scenario(names[0])
    return Plan(begin(), [step for letter in names for step in LETTERS[letter]])


@cache
def scenario(name: str) -> Plan:
    """A scenario's plan, made once."""
    return SCENARIOS[name](begin())


def images_of(image: Image, plan: Plan, is_start: bool) -> tuple[list[Image], World]:
    """The distinct images of all points: of a start alone, or of all behind it. With the world
    that has passed them; its memory counts the points."""
    world = World(image, plan.steps, keeps=True, quiet=plan.quiet)
    with contextlib.closing(world):
        world.start()
        if is_start:
            return [one for one in world.kept if one[:2] != image[:2]], world
        count, before = len(world.kept), world.memory.points
        world.play()
        world.memory.points -= before
        return world.kept[count:], world


def sweep(names: Sequence[str], share: slice = ALL, second: slice = NONE) -> Counts:
    """Crash a sequence at every store, or at a share of its images; and the recoveries of a share
    of these images, at all of their stores."""
    plan = plan_of(names)
    kept, world = images_of(plan.image, plan, is_start=False)
    reference = seen(world)
    chosen, doubled = kept[share], {one.point for one in kept[second]}
    second_points = second_images = 0
    for image in chosen:
        with failing(names, image.point):
            compare(reference, life(image, plan.steps, plan.quiet))
        if image.point in doubled:
            inner, start = images_of(image, plan, is_start=True)
            second_points += start.memory.points
            second_images += len(inner)
            for one in inner:
                with failing(names, image.point, one.point):
                    compare(reference, life(one, plan.steps, plan.quiet))
    return Counts(1, world.memory.points, len(chosen), second_points, second_images)


@contextlib.contextmanager
def failing(names: Sequence[str], *points: int) -> Iterator[None]:
    """Say how to replay what fails inside."""
    try:
        yield
    except (AssertionError, LookupError, ValueError) as error:
        options = "".join(f" --{name} {point}" for name, point in zip(
            ("point", "second"), points, strict=False))
        raise AssertionError(f"{type(error).__name__}: {error}\nreplay: {sys.executable} -m "
                             f"tests.crash.ring_sweep {' '.join(names)}{options}") from error


def die(image: Image, plan: Plan, point: int) -> Image:
    """Really die at a point; what is left."""
    world = World(image, plan.steps, die_at=point, quiet=plan.quiet)
    with contextlib.closing(world):
        try:
            world.start()
            world.play()
        except Died:
            return world.image(point)
    raise AssertionError(f"point {point} was not reached")


def main() -> None:
    """Replay one crash, or all of a sequence."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.ring_sweep")
    parser.add_argument("names", nargs="+", choices=[*LETTERS, *SCENARIOS], metavar="NAME",
                        help=" ".join([*LETTERS, "or one of", *SCENARIOS]))
    parser.add_argument("--point", type=int, default=NEVER)
    parser.add_argument("--second", type=int, default=NEVER)
    options = parser.parse_args()
    if options.point == NEVER:
        print(sweep(options.names, second=ALL).text())
        return
    plan = plan_of(options.names)
    reference = seen(life(plan.image, plan.steps, plan.quiet))
    image = die(plan.image, plan, options.point)
    print(f"died in step {image.outside.step}")
    if options.second != NEVER:
        image = die(image, plan, options.second)
        print("died again" + " while recovering" * image.is_recovering)
    compare(reference, life(image, plan.steps, plan.quiet))
    print("the guests have seen nothing of it")


if __name__ == "__main__":
    main()
