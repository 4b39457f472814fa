# SPDX-License-Identifier: Apache-2.0
"""The store does what a naive model does (tests/model.py), whatever is asked in whatever order by
two connections of domain 0 and the rings of guests: transactions, watches, permissions, removal of
trees, relative paths, odd payloads, small quotas, sockets that come and go, domains that are
introduced, act for others, shut down, die and come again. Method: the same requests on both, from
Hypothesis, which looks for short sequences, and from seeds, which give long ones with many
transactions under way; duel.py says what is compared.

A failure prints a sequence that cannot be shortened, and the one command that replays it.
Cannot show: what the model does not know (its header says it)."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app import wire
from tests.app.duel import (
    BEGIN,
    DISCONNECT,
    END,
    LOOK,
    NEWEST,
    OLDEST,
    OTHERS,
    SHUT_DOWN,
    SOCKETS,
    Duel,
    Step,
    problem_of,
    shorten,
)
from tests.app.world import nul

SEEDS = int(os.environ.get("MODEL_SEEDS", "30"))
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "400"))
STEPS_OF_A_SEED = 2500

# Few of everything, so that what one request does matters to the next. Repetition is weight.
UNKNOWN_TX = 999_999
WHO = ["d0", "d0", "d0b", "r3", "r2", "r1", "r1", "r7"]
TX = [OLDEST] * 8 + [NEWEST] * 4 + [OTHERS, UNKNOWN_TX] + [0] * 12
PATHS = [
    b"/s/a", b"/s/a", b"/s/b", b"/s/a/a", b"/s/a/b", b"/s/b/a", b"/s/a/a/a", b"/s/c",
    b"/local/domain/1", b"/local/domain/1/a", b"/local/domain/1/a/b", b"a", b"a/a", b"b", b"/a",
    b"/a/b", b"/", b"/s"]
ODD_PATHS = [
    b"/local/domain", b"/local", b"/tool", b"", b"/s/", b"s//a", b"/local/domain/", b"/s.a",
    b"@releaseDomain", b"@introduceDomain", b"@other", b"/@x", b"/s/\xe9", b"/" + b"a" * 2046,
    b"/s/" + b"a" * 2045, b"b" * 2047, b"b" * 2048, b"/none/none"]
VALUES = [b"v", b"v", b"", b"\0x\0", b"!ENOENT", b"v" * 2014, b"v" * 2016, b"w"]
PERMS = [one.split(b" ") for one in [
    b"b0", b"n0 b1 r2", b"n0", b"r0", b"n1 b2", b"b1", b"w0", b"n2 r1", b"n0 r32757", b"n7",
    b"n9", b"n0 r9", b"r0 n1 b1", b"n1 r2 r3 r0", b"n1"]]
TOKENS = [b"t", b"u", b"", b"t"]
DEPTHS = [[], [], [b"0"], [b"1"], [b"2"], [b"x"], []]
LOOKING = [(wire.XS_READ, []), (wire.XS_GET_PERMS, []), (wire.XS_DIRECTORY_PART, [b"0"]),
           (wire.XS_DIRECTORY_PART, [b"2"]), (wire.XS_READ, []), (wire.XS_DIRECTORY, [])]
LETTERS = [b"T\0"] * 6 + [b"F\0", b"X\0", b"T", b""] + [b"T\0"] * 6
ODD_TYPES = [
    wire.XS_READ, wire.XS_DIRECTORY, wire.XS_GET_PERMS, wire.XS_WATCH, wire.XS_UNWATCH,
    wire.XS_WRITE, wire.XS_MKDIR, wire.XS_RM, wire.XS_SET_PERMS, wire.XS_DIRECTORY_PART,
    wire.XS_GET_DOMAIN_PATH, wire.XS_TRANSACTION_START, wire.XS_RESET_WATCHES, 15, 16, 20, 99,
    wire.XS_INTRODUCE, wire.XS_RELEASE, wire.XS_IS_DOMAIN_INTRODUCED, wire.XS_RESUME,
    wire.XS_SET_TARGET]
ODD_ENDS = [b"\0", b"", b"\0\0", b"\0x", b"\0t\0", b"\0n0", b"\0n0\0", b"\0" + b"99\0", b"\0-1\0",
            b"\0n0\0x1\0", b"\0a\0b\0c\0", b"\0"]

LIVES = [b"1", b"3", b"2", b"3", b"7", b"9"]
EVENTS = [BEGIN, LOOK, END, BEGIN, LOOK, SHUT_DOWN, LOOK]
MANAGING = [wire.XS_INTRODUCE, wire.XS_INTRODUCE, wire.XS_INTRODUCE, wire.XS_SET_TARGET,
            wire.XS_SET_TARGET, wire.XS_RELEASE, wire.XS_RESUME, wire.XS_IS_DOMAIN_INTRODUCED]
SPECIAL_PATHS = [b"@releaseDomain", b"@introduceDomain", b"@releaseDomain/3", b"@introduceDomain/1"]
SPECIAL_PERMS = [one.split(b" ") for one in [
    b"n0 r32757", b"n0 r1", b"n0 b2 r3", b"r0", b"n0", b"r0 n7", b"n0 r9 r7", b"n7 r1", b"n3"]]

# What both begin with: three guests; two homes and a shared directory.
INTRODUCED: list[Step] = [("d0", wire.XS_INTRODUCE, 0, nul(domid, 1, 1)) for domid in (1, 2, 3)]
BEGINNING: list[Step] = [
    step for path, perms in ((b"/local/domain/1", b"n1"), (b"/local/domain/2", b"n2"),
                             (b"/s", b"b0"))
    for step in (("d0", wire.XS_MKDIR, 0, nul(path)),
                 ("d0", wire.XS_SET_PERMS, 0, nul(path, perms)))]


# -- from seeds


def random_change_or_look(rng: random.Random, who: str, tx: int, paths: list[bytes]) -> Step:
    """What transactions are made of."""
    what, path = rng.randrange(56), rng.choice(paths)
    if what < 20:
        return who, wire.XS_WRITE, tx, nul(path) + rng.choice(VALUES)
    if what < 26:
        return who, wire.XS_MKDIR, tx, nul(path)
    if what < 36:
        return who, wire.XS_RM, tx, nul(path)
    if what < 50:
        kind, more = rng.choice(LOOKING)
        return who, kind, tx, nul(path, *more)
    return who, wire.XS_SET_PERMS, tx, nul(path, *rng.choice(PERMS))


def life_step(kind: int, domid: bytes, other: bytes) -> Step:
    """What happens to domains, or what domain 0 tells of them."""
    if kind < 0:
        return "d0", kind, 0, domid if kind != LOOK else domid + b" " + other
    more = {wire.XS_INTRODUCE: [b"1", b"1"], wire.XS_SET_TARGET: [other]}.get(kind, [])
    return "d0", kind, 0, nul(domid, *more)


def special_step(who: str, path: bytes, token: bytes, depth: list[bytes],
                 perms: list[bytes] | None) -> Step:
    """A special watch, or who may hear it."""
    if perms is None:
        return who, wire.XS_WATCH, 0, nul(path, token, *depth)
    return "d0", wire.XS_SET_PERMS, 0, nul(path.partition(b"/")[0], *perms)


def random_life(rng: random.Random) -> list[Step]:
    """A domain's end and the next one's beginning, with gaps, and whom it shares things with."""
    domid, other = rng.choice(LIVES), rng.choice(LIVES)
    whole = [
        special_step(rng.choice(WHO), rng.choice(SPECIAL_PATHS), rng.choice(TOKENS),
                     rng.choice(DEPTHS), rng.choice([None, None, *SPECIAL_PERMS])),
        ("d0", wire.XS_SET_PERMS, 0, nul(rng.choice(PATHS), b"n" + domid, b"b" + other)),
        ("d0", wire.XS_SET_PERMS, 0, nul(rng.choice(PATHS), b"n" + other, b"r" + domid)),
        *[life_step(kind, domid, other) for kind in (SHUT_DOWN, LOOK, wire.XS_RESUME, LOOK, END,
                                                     LOOK, BEGIN)],
        ("d0", wire.XS_SET_PERMS, 0, nul(rng.choice(PATHS), b"n" + other, b"b" + domid)),
        *[life_step(kind, domid, other) for kind in (wire.XS_INTRODUCE, wire.XS_SET_TARGET)]]
    again = ("d0", wire.XS_INTRODUCE, 0, nul(rng.choice([b"1", b"2"]), 1, 1))
    return [*(step for step in whole if rng.random() < 0.75), *BEGINNING, again]


def random_step(rng: random.Random) -> Step:
    """Any step."""
    if rng.random() < 0.08:
        kind = rng.choice(EVENTS if rng.random() < 0.5 else MANAGING)
        return life_step(kind, rng.choice(LIVES), rng.choice([*LIVES, b"0"]))
    who, tx, path, what = rng.choice(WHO), rng.choice(TX), rng.choice(PATHS), rng.randrange(100)
    if what < 62:
        return random_change_or_look(rng, who, tx, PATHS)
    if what < 72:
        return who, wire.XS_WATCH, tx, nul(path, rng.choice(TOKENS), *rng.choice(DEPTHS))
    if what < 74:
        return who, wire.XS_UNWATCH, tx, nul(path, rng.choice(TOKENS))
    if what < 82:
        return who, wire.XS_TRANSACTION_START, 0, b"\0"
    if what < 92:
        tx = rng.choice([OLDEST, OLDEST, OLDEST, NEWEST, OTHERS, 0])
        return who, wire.XS_TRANSACTION_END, tx, rng.choice(LETTERS)
    if what < 93:
        return who, wire.XS_RESET_WATCHES, tx, b"\0"
    if what < 94:
        return rng.choice(SOCKETS), DISCONNECT, 0, b""
    return (who, rng.choice(ODD_TYPES), tx,
            rng.choice([*PATHS, *ODD_PATHS]) + rng.choice(ODD_ENDS))


def random_transaction(rng: random.Random) -> list[Step]:
    """A whole one on few nodes, which others use meanwhile; some of it is asked again."""
    who, paths = rng.choice(WHO), rng.sample(PATHS, 2)
    steps: list[Step] = [(who, wire.XS_TRANSACTION_START, 0, b"\0")]
    for _ in range(rng.randrange(1, 9)):
        what = rng.random()
        if what < 0.25 and len(steps) > 1:
            steps.append(rng.choice(steps[1:]))
        elif what < 0.55:
            steps.append(random_change_or_look(rng, rng.choice(WHO), 0, paths))
        else:
            steps.append(random_change_or_look(rng, who, NEWEST, paths))
    return [*steps, (who, wire.XS_TRANSACTION_END, NEWEST, b"T\0")]


def random_script(rng: random.Random) -> list[Step]:
    """A long sequence."""
    script = INTRODUCED + BEGINNING
    while len(script) < STEPS_OF_A_SEED:
        chance = rng.random()
        script += (random_transaction(rng) if chance < 0.3 else random_life(rng) if chance < 0.34
                   else [random_step(rng)])
    return script


@pytest.mark.parametrize("seed", range(SEEDS))
def test_long_sequences(seed: int) -> None:
    """And they are not idle ones: transactions are committed, and conflict; domains leave."""
    duel = Duel()
    outcomes: Counter[str | bytes] = Counter()
    try:
        for step in random_script(random.Random(seed)):
            known = len(duel.model.known)
            duel.step(*step)
            if step[1] == wire.XS_TRANSACTION_END and step[2] < 0:
                outcomes[duel.world.reply.answer] += 1
            outcomes["left"] += known > len(duel.model.known)
    except AssertionError:
        problem = problem_of(shorten(duel.script))
        raise AssertionError(f"seed {seed}, shortened: {problem}") from None
    assert outcomes["OK"] > 20 and outcomes["EAGAIN"] and outcomes["left"] > 3, outcomes


# -- from Hypothesis


class Machine(RuleBasedStateMachine):
    """One short sequence. Each rule is one kind of step; some are left out of a sequence."""

    duel: Duel

    @initialize()
    def begin(self) -> None:
        """Two homes and a shared directory."""
        self.duel = Duel()
        for step in INTRODUCED + BEGINNING:
            self.duel.step(*step)

    def step(self, who: str, kind: int, tx: int, payload: bytes) -> None:
        """One step; a sequence that tells the two apart is shortened by ourselves, which takes a
        second where Hypothesis takes minutes."""
        try:
            self.duel.step(who, kind, tx, payload)
        except AssertionError:
            raise AssertionError(problem_of(shorten(self.duel.script))) from None

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), path=st.sampled_from(PATHS),
          value=st.sampled_from(VALUES))
    def write(self, who: str, tx: int, path: bytes, value: bytes) -> None:
        """WRITE."""
        self.step(who, wire.XS_WRITE, tx, nul(path) + value)

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), path=st.sampled_from(PATHS),
          kind=st.sampled_from([wire.XS_MKDIR, wire.XS_RM]))
    def make_or_remove(self, who: str, tx: int, path: bytes, kind: int) -> None:
        """MKDIR, RM."""
        self.step(who, kind, tx, nul(path))

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), path=st.sampled_from(PATHS),
          looking=st.sampled_from(LOOKING))
    def look(self, who: str, tx: int, path: bytes, looking: tuple[int, list[bytes]]) -> None:
        """READ, DIRECTORY, GET_PERMS, DIRECTORY_PART."""
        self.step(who, looking[0], tx, nul(path, *looking[1]))

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), path=st.sampled_from(PATHS),
          perms=st.sampled_from(PERMS))
    def set_perms(self, who: str, tx: int, path: bytes, perms: list[bytes]) -> None:
        """SET_PERMS."""
        self.step(who, wire.XS_SET_PERMS, tx, nul(path, *perms))

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), path=st.sampled_from(PATHS),
          token=st.sampled_from(TOKENS), depth=st.sampled_from(DEPTHS))
    def watch(self, who: str, tx: int, path: bytes, token: bytes, depth: list[bytes]) -> None:
        """WATCH."""
        self.step(who, wire.XS_WATCH, tx, nul(path, token, *depth))

    @rule(who=st.sampled_from(WHO), path=st.sampled_from(PATHS), token=st.sampled_from(TOKENS))
    def unwatch(self, who: str, path: bytes, token: bytes) -> None:
        """UNWATCH."""
        self.step(who, wire.XS_UNWATCH, 0, nul(path, token))

    @rule(who=st.sampled_from(WHO))
    def start(self, who: str) -> None:
        """TRANSACTION_START."""
        self.step(who, wire.XS_TRANSACTION_START, 0, b"\0")

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from([OLDEST, OTHERS, 0, NEWEST, OLDEST]),
          letter=st.sampled_from(LETTERS))
    def end(self, who: str, tx: int, letter: bytes) -> None:
        """TRANSACTION_END."""
        self.step(who, wire.XS_TRANSACTION_END, tx, letter)

    @rule(who=st.sampled_from(WHO), tx=st.sampled_from(TX), kind=st.sampled_from(ODD_TYPES),
          path=st.sampled_from([*PATHS, *ODD_PATHS]), end=st.sampled_from(ODD_ENDS))
    def odd(self, who: str, tx: int, kind: int, path: bytes, end: bytes) -> None:
        """Any type with a payload that is nearly right, or right and rare."""
        self.step(who, kind, tx, path + end)

    @rule(who=st.sampled_from(SOCKETS))
    def disconnect(self, who: str) -> None:
        """The socket goes, another one comes in its place."""
        self.step(who, DISCONNECT, 0, b"")

    @rule(kind=st.sampled_from(EVENTS + MANAGING), domid=st.sampled_from(LIVES),
          other=st.sampled_from([*LIVES, b"0"]))
    def life(self, kind: int, domid: bytes, other: bytes) -> None:
        """Domains begin, shut down, end, are looked at, introduced, released, given a target."""
        self.step(*life_step(kind, domid, other))

    @rule(who=st.sampled_from(WHO), path=st.sampled_from(SPECIAL_PATHS),
          token=st.sampled_from(TOKENS), depth=st.sampled_from(DEPTHS),
          perms=st.sampled_from([None, None, *SPECIAL_PERMS]))
    def special(self, who: str, path: bytes, token: bytes, depth: list[bytes],
                perms: list[bytes] | None) -> None:
        """Special watches, and their permissions."""
        self.step(*special_step(who, path, token, depth, perms))


Machine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=50,
                                     phases=[Phase.generate])
TestModel = Machine.TestCase
