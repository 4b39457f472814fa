# SPDX-License-Identifier: Apache-2.0
"""Random requests, the same to this server and to C xenstored: same replies, same events.

Method: seeded sequences from two clients, with watches, transactions and malformed payloads, go to
both servers as real processes. After every request both clients' events are collected behind a
request that changes nothing (so nothing is waited for), and compared in order with the reply.
A difference must be one of ACCEPTED, each with its reason; one after which the states may differ
ends its sequence, and so does a death of C (it has some; it is started anew). Cannot show: guests
(no rings yet); a wrong number of NULs in READ and its like, which 4.17 answers with a stale errno,
and with its own death where that is 0."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.oracle import oracle
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import ConnectionClosed, Message, MessageType, SocketConnection, strings

SEQUENCES = 120
LENGTH = 60
M = MessageType
NODE_TYPES = (M.READ, M.MKDIR, M.RM, M.DIRECTORY, M.GET_PERMS)


class PeerDied(Exception):
    """C xenstored has ended while it was asked."""


class Asked(NamedTuple):
    """One request: which client, type, payload, and whether inside the open transaction."""

    client: int
    type: int
    payload: bytes
    in_tx: bool


class Outcome(NamedTuple):
    """What came of it: the reply, and each client's events in order."""

    type: int
    payload: bytes
    events: tuple[tuple[tuple[str, str], ...], ...]
    is_error: bool


class Case(NamedTuple):
    """A difference: the request, both outcomes, and whether others changed things in the tx."""

    asked: Asked
    ours: Outcome
    theirs: Outcome
    outside_changes: bool


class Accepted(NamedTuple):
    """An accepted difference. `ends`: afterwards the states may differ."""

    reason: str
    ends: bool
    applies: Callable[[Case], bool]


def _is(outcome: Outcome, *names: bytes) -> bool:
    return outcome.is_error and outcome.payload.rstrip(b"\0") in names



ACCEPTED = [
    Accepted("C conflicts on the generation of any touched node; we, if an answer would differ",
             True, lambda case: case.asked.type == M.TRANSACTION_END
             and _is(case.theirs, b"EAGAIN") and not case.ours.is_error),
    Accepted("C shows a transaction the node as first touched, children included; we keep value "
             "and permissions, and a listing from when it was first listed", True,
             lambda case: case.asked.in_tx and case.outside_changes),
    Accepted("4.17 reads junk as domid 0 and takes any number; later versions EINVAL", False,
             lambda case: case.asked.type in (M.GET_DOMAIN_PATH, M.IS_DOMAIN_INTRODUCED)
             and _is(case.ours, b"EINVAL")),
    Accepted("4.17 cannot show special nodes' permissions; later versions can", False,
             lambda case: case.asked.type == M.GET_PERMS and case.asked.payload.startswith(b"@")
             and _is(case.theirs, b"EINVAL")),
]


class Pair:
    """The same two clients on one server."""

    def __init__(self, socket_path: object) -> None:
        self.clients = [SocketConnection(str(socket_path)) for _ in range(2)]
        self.tx_id = 0

    def ask(self, asked: Asked) -> Outcome:
        """Send one request, and collect all that comes of it."""
        reply = self.clients[asked.client].request(asked.type, asked.payload,
                                                   self.tx_id if asked.in_tx else 0)
        events = []
        for client in self.clients:
            client.request(M.GET_DOMAIN_PATH, b"0\0")
            events.append(tuple((event.path, event.token)
                                for event in client.take_queued_events()))
        return Outcome(reply.type, self._comparable(asked, reply), tuple(events),
                       reply.error is not None)

    def _comparable(self, asked: Asked, reply: Message) -> bytes:
        """The reply without numbers that are each server's own."""
        if reply.error is None and asked.type == M.TRANSACTION_START:
            self.tx_id = int(reply.payload.rstrip(b"\0"))
            return b"id"
        if reply.error is None and asked.type == M.DIRECTORY_PART:
            return reply.payload.partition(b"\0")[2]
        return reply.payload

    def close(self) -> None:
        """End both clients, their watches and transactions with them."""
        for client in self.clients:
            client.close()


def sequence(chance: random.Random, number: int) -> Iterator[Asked]:
    """One sequence in a directory of its own."""
    root = f"/d{number}"
    names = ["", "/a", "/a/b", "/a/b/c", "/a/-", "/x", "/x/y"]
    is_open = False
    yield Asked(0, M.MKDIR, strings(root), False)
    for _ in range(LENGTH):
        path = root + chance.choice(names)
        if chance.random() < 0.1:
            path = chance.choice([f"rel{number}", f"rel{number}/b"])
        client = chance.randrange(2)
        in_tx = is_open and client == 0 and chance.random() < 0.8
        kind = chance.randrange(22)
        if kind < 6:
            yield Asked(client, M.WRITE, strings(path) + chance.choice([b"", b"v", b"w" * 90]),
                        in_tx)
        elif kind < 12:
            yield Asked(client, chance.choice(NODE_TYPES), strings(path), in_tx)
        elif kind < 14:
            perms = chance.choice([("n0",), ("r0", "w7"), ("b0", "n3", "r4"), ("n0", "r5", "r5")])
            yield Asked(client, M.SET_PERMS, strings(path, *perms), in_tx)
        elif kind < 16:
            yield Asked(client, chance.choice([M.WATCH, M.WATCH, M.UNWATCH]),
                        strings(chance.choice([path, "@releaseDomain", "@other"]),
                                chance.choice("tu")), in_tx)
        elif kind < 17:
            yield Asked(client, M.DIRECTORY_PART,
                        strings(path, chance.choice([0, 2, 99])), in_tx)
        elif kind < 18:
            yield Asked(client, *malformed(chance, path), in_tx)
        elif kind == 18:
            yield Asked(client, M.RESET_WATCHES, b"\0", False)
            is_open = is_open and client != 0
        elif not is_open:
            yield Asked(0, M.TRANSACTION_START, b"\0", False)
            is_open = True
        elif chance.random() < 0.5:
            yield Asked(0, M.TRANSACTION_END, strings(chance.choice("TTF")), True)
            is_open = False
    if is_open:
        yield Asked(0, M.TRANSACTION_END, strings("T"), True)


def malformed(chance: random.Random, path: str) -> tuple[int, bytes]:
    """A request with something wrong, in ways that both servers understand alike."""
    bad_path = chance.choice([path + "/", "/" + path, path + "//x", path + "/a.b", "", path + " ",
                              "@foo", "@releaseDomain", "/local/domain/"])
    return chance.choice([
        (chance.choice(NODE_TYPES), strings(bad_path)),
        (M.WRITE, path.encode()),
        (M.RM, strings("/")),
        (M.WRITE, strings(bad_path) + b"v"),
        (M.WATCH, strings(path)),
        (M.SET_PERMS, strings(path)),
        (M.SET_PERMS, strings(path, chance.choice(["x0", "n", "0", "n0x", ""]))),
        (M.TRANSACTION_END, strings("T")),
        (M.GET_DOMAIN_PATH, strings(chance.choice(["5", "007", "junk", "70000"]))),
        (M.IS_DOMAIN_INTRODUCED, strings(chance.choice(["0", "5", "32752", "junk"]))),
        (M.RELEASE, strings(chance.choice(["0", "9"]))),
        (M.RESUME, strings(chance.choice(["0", "9"]))),
        (M.SET_TARGET, strings("9", "8")),
        (M.CONTROL, strings(chance.choice(["bogus", "check", "print"]))),
        (chance.choice([15, 16, 20, 77]), b"\0"),
    ])


def compare(seed: int, number: int, ours: Pair, theirs: Pair, seen: Counter[str]) -> None:
    """Run one sequence on both."""
    chance = random.Random(f"{seed}:{number}")
    history: list[Asked] = []
    outside_changes = False
    for asked in sequence(chance, number):
        history.append(asked)
        if asked.type == M.TRANSACTION_START:
            outside_changes = False
        elif not asked.in_tx:
            outside_changes = True
        our_outcome = ours.ask(asked)
        try:
            case = Case(asked, our_outcome, theirs.ask(asked), outside_changes)
        except ConnectionClosed as error:
            raise PeerDied from error
        seen["requests"] += 1
        if case.ours == case.theirs:
            continue
        for accepted in ACCEPTED:
            if accepted.applies(case):
                seen[accepted.reason] += 1
                if accepted.ends:
                    return
                break
        else:
            raise AssertionError(f"seed {seed}, sequence {number}:\n"
                                 + "\n".join(map(str, history[-12:]))
                                 + f"\nours   {case.ours}\ntheirs {case.theirs}")


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow)
                                      for seed in (2, 3, 4))])
def test_same_as_c(seed: int) -> None:
    """All sequences of a seed."""
    seen: Counter[str] = Counter()
    with OurServer() as server, oracle.running("c", big_quotas=True) as directory:
        for number in range(SEQUENCES):
            ours, theirs = Pair(server.socket_path), Pair(directory / "socket")
            try:
                compare(seed, number, ours, theirs, seen)
            except PeerDied:
                seen["deaths of C"] += 1
                oracle.start("c", directory, big_quotas=True)
            finally:
                ours.close()
                theirs.close()
    print(f"seed {seed}: " + ", ".join(f"{count} {what}" for what, count in seen.items()))
    assert seen["deaths of C"] < SEQUENCES / 10
    assert seen["requests"] > SEQUENCES * LENGTH / 3
