# SPDX-License-Identifier: Apache-2.0
"""The oracle: a naive xenstore, slow and plain, written from the protocol reference alone.

One dict from path to (value, permissions), in order of creation. Children are found by looking at
every path, a transaction is run on copies of the whole dict, a watch is matched by looking at all.
It says what a request must be answered and who must hear what; judge() compares.

O1. Outside of transactions there is one right answer, and one right list of events.
O2. Inside, each answer must be what the transaction would be told on one of the states that the
    tree has had since its start, alone: how early a server looks, and at how much, is its own
    affair. The same reading without own changes in between must be told the same again.
    But a mixture of states may be told about what others have changed meanwhile, a quota may
    count a mixture, and anything goes once a commit is ruled out. (C, too: after an own RM f it
    shows an f/x that was made outside.)
O3. The commit follows from what was told: run again now, if every answer is the same it must
    succeed, with the changes and events of this run; otherwise it is EAGAIN (a quota that is used
    up now: ENOSPC), and ENOMEM if a create has failed before. RM of a node that was there and of
    one that was not are different answers, though both read OK.
O4. A domain is known from when a permission or INTRODUCE names it while it exists, until it is
    seen to be gone; with it go its nodes and all rights that it had. An entry for a domain that
    was neither known nor there is shown, and grants nothing, ever: its letter is a capital.
Source: reference 1.3, 1.4, 2.1-2.5, 3 and DESIGN.md 3; the order of a commit's events was measured
on C xenstored 4.17. Knows nothing of app/: not its names, not its errors. Does not know: memory
and transaction-nodes quotas, CONTROL, features, messages about quotas, rings that are ignored.
Over 500 lines because it is one thing, to be read beside the reference from top to bottom."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, END = range(1, 8)
INTRODUCE, RELEASE, GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS = range(8, 15)
IS_DOMAIN_INTRODUCED, RESUME, SET_TARGET = range(17, 20)
RESET_WATCHES, DIRECTORY_PART = 21, 22
IN_TRANSACTION = {DIRECTORY, READ, GET_PERMS, WRITE, MKDIR, RM, SET_PERMS, DIRECTORY_PART}
OWN_CHANGES = {WRITE, MKDIR, RM, SET_PERMS}
ABOUT_DOMAINS = {INTRODUCE, RELEASE, IS_DOMAIN_INTRODUCED, RESUME, SET_TARGET}
ANYBODY, ASKING, RESERVED = 32757, 0x7FF0, 0x7FF0

Perms = tuple[tuple[str, int], ...]
Tree = dict[str, tuple[bytes, Perms]]
Answer = bytes | str  # a payload, or an error's name
Item = tuple[str, ...] | Answer  # one packet: ("/path", "token"), or the reply

SPECIALS: Tree = {"@introduceDomain": (b"", (("n", 0),)),
                  "@releaseDomain": (b"", (("n", 0), ("r", ANYBODY)))}
THERE, NOT_THERE = "it was there", "it was not there"  # what RM found
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_@"


class Refused(Exception):
    """A request is answered by an error, whose name this holds."""


class Caller:
    """Who asks."""

    def __init__(self, name: str, domid: int) -> None:
        self.name = name
        self.domid = domid
        self.target = -1  # for whom it acts, too; -1: for nobody

    @property
    def is_privileged(self) -> bool:
        """Only domain 0 is, here."""
        return self.domid == 0

    def may(self, perms: Perms, wanted: str) -> bool:
        """Whether a node with `perms` may be read ('r') or written ('w')."""
        if self.is_privileged or self.owns(perms):
            return True
        for letter, domid in perms[1:]:
            if letter.islower() and domid in (self.domid, self.target, ANYBODY):
                return letter in (wanted, "b")
        return perms[0][0] in (wanted, "b")

    def owns(self, perms: Perms) -> bool:
        """Whether it is the owner, itself or for its target."""
        return self.is_privileged or perms[0][1] in (self.domid, self.target)


class Told(NamedTuple):
    """What a request is told: the reply, and what a commit must find again behind an OK."""

    answer: Answer
    fact: str = ""
    poisons: bool = False

    def is_told_again(self, before: list[Told]) -> bool:
        """Whether this is one of the things that may have been told before."""
        return any(self[:2] == one[:2] for one in before)


class View:
    """A state of the tree that requests are run on, and what they did to it."""

    def __init__(self, tree: Tree, is_in_transaction: bool = False) -> None:
        self.tree = dict(tree)
        self.is_in_transaction = is_in_transaction
        self.touched: list[str] = []  # each path once, in order of first touch
        self.fires: dict[str, bool] = {}  # changed path -> whether only its own watches hear
        self.told: list[Told] = []

    def look(self, path: str) -> tuple[bytes, Perms] | None:
        """The node, and that it was touched."""
        if path not in self.touched:
            self.touched.append(path)
        return self.tree.get(path)

    def put(self, path: str, value: bytes, perms: Perms, is_silent: bool = False) -> None:
        """Make or change a node."""
        self.tree[path] = (value, perms)
        if not is_silent:
            self.fires[path] = False

    def remove(self, path: str) -> None:
        """Take a node and all below it away."""
        self.look(parent(path))
        for one in list(walk(self.tree, path)):
            self.look(one)
            del self.tree[one]
            self.fires.setdefault(one, True)
        self.fires[path] = False


class Domain:
    """One that the server knows, and what it has seen of it."""

    def __init__(self, identity: int) -> None:
        self.identity = identity
        self.is_introduced = False
        self.was_seen_shut_down = False


class Transaction:
    """One that is open: what it asked and was told, and a view for each state since its start."""

    def __init__(self, first_state: int) -> None:
        self.first_state = first_state
        self.views: dict[int, View] = {}
        self.asked: list[tuple[int, bytes]] = []
        self.targets: list[int] = []  # for whom the caller acted then
        self.told: list[list[Told]] = []  # each with all that the answer may have meant


class Watch(NamedTuple):
    """One registration."""

    caller: Caller
    path: str
    token: str
    hidden: int  # characters of the path that its events leave out
    depth: int | None


# -- paths and payloads


def parent(path: str) -> str:
    """'/a' of '/a/b', '/' of '/a'."""
    return path[:path.rindex("/")] or "/"


def is_within(path: str, above: str) -> bool:
    """Whether `path` is `above` or below it."""
    return path == above or path.startswith(above.rstrip("/") + "/")


def children(tree: Tree, path: str) -> list[str]:
    """The paths of the children, in order of creation."""
    return [one for one in tree if one[0] != "@" and one != "/" and parent(one) == path]


def walk(tree: Tree, path: str) -> Iterator[str]:
    """The path and all below it, parents first."""
    yield path
    for one in children(tree, path):
        yield from walk(tree, one)


def walk_up(tree: Tree, path: str) -> Iterator[str]:
    """The same, children first."""
    for one in children(tree, path):
        yield from walk_up(tree, one)
    yield path


def names_bytes(tree: Tree, path: str) -> bytes:
    """The children's names, each with a NUL."""
    return b"".join(one[one.rindex("/") + 1:].encode() + b"\0" for one in children(tree, path))


def split(payload: bytes, least: int, most: int) -> list[str]:
    """The strings of a payload, each of which must end in NUL."""
    parts = payload.decode("latin-1").split("\0")
    if parts[-1] != "" or not least <= len(parts) - 1 <= most:
        raise Refused("EINVAL")
    return parts[:-1]


def number(text: str, most: int) -> int:
    """A decimal number."""
    if not text or any(letter not in "0123456789" for letter in text) or int(text) > most:
        raise Refused("EINVAL")
    return int(text)


def parse_perms(texts: list[str]) -> Perms:
    """['n0', 'r1'] -> (('n', 0), ('r', 1))."""
    perms = []
    for text in texts:
        if text[:1] not in ("n", "r", "w", "b"):
            raise Refused("EINVAL")
        perms.append((text[0], number(text[1:], 65535)))
    return tuple(perms)


def perms_bytes(perms: Perms) -> bytes:
    """The permissions as they are kept."""
    return b"".join(f"{letter}{domid}\0".encode() for letter, domid in perms)


class Model:
    """The whole store. `machine`: the domains that exist, but for 0: what tells one from another
    with its number, and whether it has shut down; it is changed from outside. `quotas` are limits
    of the unprivileged, 0 for none. Domain N's connection is called "rN"."""

    def __init__(self, machine: dict[int, tuple[int, bool]], quotas: dict[str, int]) -> None:
        self.machine = machine
        self.quotas = quotas
        self.known: dict[int, Domain] = {}
        # What the present step has removed (whether only own watches hear), and who has gone, come.
        self.removed: list[tuple[str, bool]] = []
        self.gone: list[int] = []
        self.came: list[int] = []
        # The special nodes are in it, too, by their names, which begin with no '/'.
        self.tree: Tree = {**dict.fromkeys(("/", "/tool", "/tool/xenstored"), (b"", (("n", 0),))),
                           **SPECIALS}
        self.states: list[Tree] = [dict(self.tree)]  # all that the tree has been
        self.callers: dict[str, Caller] = {}
        self.watches: list[Watch] = []  # in order of registration
        self.transactions: dict[str, dict[int, Transaction]] = {}
        self.used_ids: set[int] = set()

    def connect(self, name: str, domid: int) -> None:
        """A new client."""
        self.callers[name] = Caller(name, domid)
        self.transactions[name] = {}

    def disconnect(self, name: str) -> None:
        """It is gone, with all that was open."""
        caller = self.callers.pop(name)
        del self.transactions[name]
        self.watches = [one for one in self.watches if one.caller != caller]

    def look(self, domids: list[int], got: dict[str, list[Item]]) -> str | None:
        """The server looks at the state of these domains, in this order, and sends `got`."""
        before = self.tree
        for domid in domids:
            one = self.known.get(domid)
            if one is None:
                continue
            identity, is_shut_down = self.machine.get(domid, (None, False))
            if identity != one.identity:
                self._leave(domid)
            elif one.is_introduced and is_shut_down and not one.was_seen_shut_down:
                one.was_seen_shut_down = True
                self.gone.append(domid)
        events: list[tuple[Caller, str, str]] = []
        self._tell(events, before)
        expected = self._by_hearer({}, events)
        return None if got == expected else f"sent {got}, and should be {expected}"

    def judge(self, who: str, kind: int, tx_id: int, payload: bytes,
              got: dict[str, list[Item]]) -> str | None:
        """Take a request in, as the server has answered it: `got` holds what each client was
        sent, in order. None, or what is wrong with it."""
        caller = self.callers[who]
        (answer,) = [one for one in got[who] if not isinstance(one, tuple)]
        if kind == DIRECTORY_PART and isinstance(answer, bytes):
            generation, _, answer = answer.partition(b"\0")
            if not generation.isdigit():
                return f"no generation in {answer!r}"
        events: list[tuple[Caller, str, str]] = []
        try:
            if kind == END and tx_id:
                right = self._end(caller, tx_id, payload, events, answer)
            elif tx_id and kind in IN_TRANSACTION | {START}:
                right = self._inside(caller, kind, tx_id, payload, answer)
            else:
                right = self._outside(caller, kind, payload, events, answer)
        except Refused as refused:
            right, events = [refused.args[0]], []
        if answer not in right:
            return f"answered {answer!r}, and should be {' or '.join(map(repr, right))}"
        if kind == SET_PERMS and answer == b"OK\0":
            self._learn(payload)
        expected = self._by_hearer({who: []}, events)
        is_behind = kind == WATCH and events
        expected[who].insert(0 if is_behind else len(expected[who]), answer)
        if kind == DIRECTORY_PART:
            got = {who: [answer]} if got.keys() == {who} and len(got[who]) == 1 else got
        if got != expected:
            return f"sent {got}, and should be {expected}"
        return None

    def _by_hearer(self, expected: dict[str, list[Item]],
                   events: list[tuple[Caller, str, str]]) -> dict[str, list[Item]]:
        for hearer, path, token in events:
            expected.setdefault(hearer.name, []).append((path, token))
        return expected

    # -- the three ways to run a request; each returns the right answers

    def _outside(self, caller: Caller, kind: int, payload: bytes,
                 events: list[tuple[Caller, str, str]], answer: Answer) -> list[Answer]:
        if kind in IN_TRANSACTION:
            view, before = View(self.tree), self.tree
            told = self._run(view, caller, kind, payload)
            self._become(view.tree)
            for path, is_exact in self._plain_order(before, view):
                self._fire(events, path, is_exact, before, [self.tree, before])
            return [told.answer]
        if kind == START:
            if self._over(caller, "transactions", len(self.transactions[caller.name]) + 1):
                raise Refused("ENOSPC")
            return [self._start(caller, answer)]
        if kind == END:
            raise Refused("ENOENT" if payload in (b"T\0", b"F\0") else "EINVAL")
        if kind == WATCH:
            return [self._watch(caller, payload, events)]
        if kind == UNWATCH:
            return [self._unwatch(caller, payload)]
        if kind == RESET_WATCHES:
            self.watches = [one for one in self.watches if one.caller != caller]
            self.transactions[caller.name].clear()
            return [b"OK\0"]
        if kind in ABOUT_DOMAINS:
            if not caller.is_privileged:
                raise Refused("EACCES")
            before = self.tree
            answered = self._about_domain(caller, kind, payload)
            self._tell(events, before)
            return [answered]
        if kind == GET_DOMAIN_PATH:
            return [b"/local/domain/%d\0" % number(split(payload, 1, 1)[0], 65535)]
        raise Refused("ENOSYS")

    def _inside(self, caller: Caller, kind: int, tx_id: int, payload: bytes,
                answer: Answer) -> list[Answer]:
        tx = self.transactions[caller.name].get(tx_id)
        if tx is None:
            raise Refused("ENOENT")
        if kind == START:
            raise Refused("EBUSY")
        views = list(self._views(caller, tx))
        is_lost = any(not told.is_told_again(before)
                      for told, before in zip(views[-1].told, tx.told, strict=True))
        possible: list[Told] = []
        for view in views:
            told = self._run(view, caller, kind, payload)
            view.told.append(told)
            if told not in possible:
                possible.append(told)
        is_repeated = False
        for index in reversed(range(len(tx.asked))):
            if tx.asked[index][0] in OWN_CHANGES or tx.targets[index] != caller.target:
                break
            if tx.asked[index] == (kind, payload):
                possible, is_repeated = tx.told[index], True
                break
        mixed: list[Told] = []
        if len(views) > 1 and kind in (WRITE, MKDIR):
            mixed = [Told("ENOSPC", poisons=True), Told("ENOSPC")]
        if not is_repeated and (is_lost or self._is_changed(caller, tx, payload)):
            mixed += [Told(answer, fact) for fact in (THERE, NOT_THERE, "")]
        meant = [told for told in possible if told.answer == answer]
        if not meant or kind in OWN_CHANGES:
            meant += [told for told in mixed if told.answer == answer]
        possible += mixed
        tx.asked.append((kind, payload))
        tx.targets.append(caller.target)
        tx.told.append(meant)
        return [told.answer for told in possible]

    def _is_changed(self, caller: Caller, tx: Transaction, payload: bytes) -> bool:
        """Whether what the request names, or anything above or below it, has been changed by
        others since the transaction began."""
        try:
            path = payload.partition(b"\0")[0].decode("latin-1")
            path = path if path in SPECIALS else self._path(caller, path)
        except Refused:
            return False
        states = self.states[tx.first_state:]
        changed = {one for old, new in itertools.pairwise(states)
                   for one, _ in set(old.items()) ^ set(new.items())}
        return any(is_within(one, path) or is_within(path, one) for one in changed)

    def _end(self, caller: Caller, tx_id: int, payload: bytes,
             events: list[tuple[Caller, str, str]], answer: Answer) -> list[Answer]:
        tx = self.transactions[caller.name].get(tx_id)
        if tx is None:
            raise Refused("ENOENT")
        if payload not in (b"T\0", b"F\0"):
            raise Refused("EINVAL")
        del self.transactions[caller.name][tx_id]
        if payload == b"F\0":
            return [b"OK\0"]
        if any(all(told.poisons for told in possible) for possible in tx.told):
            return ["ENOMEM"]
        right: list[Answer] = []
        if any(told.poisons for possible in tx.told for told in possible):
            right.append("ENOMEM")
        if any(len(possible) > 1 for possible in tx.told):
            right.append("EAGAIN")  # one answer may have meant two things: either is right
        *_, now = self._views(caller, tx)
        for told, meant in zip(now.told, tx.told, strict=True):
            if not told.is_told_again(meant):
                return [*right, "ENOSPC" if told.answer == "ENOSPC" else "EAGAIN"]
        if answer == b"OK\0":
            before = self.tree
            self._become(now.tree)
            for told, (kind, payload) in zip(now.told, tx.asked, strict=True):
                if kind == SET_PERMS and told.answer == b"OK\0":
                    self._learn(payload)
            for path in now.touched:
                if path in now.fires and (path in before or path in self.tree):
                    self._fire(events, path, now.fires[path], before, [self.tree])
        return [*right, b"OK\0"]

    def _views(self, caller: Caller, tx: Transaction) -> Iterator[View]:
        """The transaction run alone on each state since its start; the present one comes last."""
        for state in range(tx.first_state, len(self.states)):
            if state not in tx.views:
                view = tx.views[state] = View(self.states[state], is_in_transaction=True)
                for kind, payload in tx.asked:
                    view.told.append(self._run(view, caller, kind, payload))
            yield tx.views[state]

    def _become(self, tree: Tree) -> None:
        if list(tree.items()) != list(self.tree.items()):
            self.states.append(dict(tree))
        self.tree = tree

    def _start(self, caller: Caller, answer: Answer) -> Answer:
        """Any id will do that was never given before."""
        text = answer[:-1] if isinstance(answer, bytes) and answer.endswith(b"\0") else b""
        if not text.isdigit() or not 0 < int(text) < 1 << 32 or int(text) in self.used_ids:
            return "a new id"
        self.used_ids.add(int(text))
        self.transactions[caller.name][int(text)] = Transaction(len(self.states) - 1)
        return answer

    # -- nodes

    def _run(self, view: View, caller: Caller, kind: int, payload: bytes) -> Told:
        """One request on one state. What is refused has changed nothing."""
        try:
            if kind == WRITE:
                return self._write(view, caller, payload)
            if kind == MKDIR:
                return self._mkdir(view, caller, self._only_path(caller, payload))
            if kind == RM:
                return self._rm(view, caller, self._only_path(caller, payload))
            if kind == SET_PERMS:
                return self._set_perms(view, caller, payload)
            if kind == GET_PERMS and payload.startswith(b"@"):
                return self._special_perms(view, caller, payload)
            if kind == DIRECTORY_PART:
                text, offset_text = split(payload, 2, 2)
                path, offset = self._path(caller, text), number(offset_text, 1 << 32)
                self._get(view, caller, path, "r")
                return Told(names_bytes(view.tree, path)[offset:] + b"\0")
            path = self._only_path(caller, payload)
            value, perms = self._get(view, caller, path, "r")
        except Refused as refused:
            return Told(refused.args[0], poisons="create" in refused.args)
        if kind == READ:
            return Told(value)
        return Told(perms_bytes(perms).lower() if kind == GET_PERMS
                    else names_bytes(view.tree, path))

    def _path(self, caller: Caller, text: str) -> str:
        """The absolute path of a text, if it is a legal one."""
        if not text or text.startswith("@"):
            raise Refused("EINVAL")
        path = text if text.startswith("/") else f"/local/domain/{caller.domid}/{text}"
        names = path.split("/")[1:]
        if path != "/" and not all(names):
            raise Refused("EINVAL")
        if any(letter not in LETTERS for name in names for letter in name):
            raise Refused("EINVAL")
        counted = path
        if names[:2] == ["local", "domain"] and len(names) > 3 and names[2].isdigit():
            counted = "/".join(names[3:])
        limit = self.quotas.get("path-max", 2048)
        if not caller.is_privileged and limit and len(counted) >= limit:
            raise Refused("EINVAL")
        return path

    def _only_path(self, caller: Caller, payload: bytes) -> str:
        return self._path(caller, split(payload, 1, 1)[0])

    def _get(self, view: View, caller: Caller, path: str, wanted: str) -> tuple[bytes, Perms]:
        """The node, if the caller has the right; else one error for missing and forbidden."""
        node = view.look(path)
        nearest = node
        while nearest is None:
            path = parent(path)
            nearest = view.look(path)
        if not caller.may(nearest[1], wanted):
            raise Refused("EACCES")
        if node is None:
            raise Refused("ENOENT")
        return node

    def _write(self, view: View, caller: Caller, payload: bytes) -> Told:
        text, nul, value = payload.partition(b"\0")
        if not nul:
            raise Refused("EINVAL")
        path = self._path(caller, text.decode("latin-1"))
        if path not in view.tree:
            self._create(view, caller, path, value)
        else:
            _, perms = self._get(view, caller, path, "w")
            self._check_size(view, caller, path, value, perms)
            view.put(path, value, perms)
        return Told(b"OK\0")

    def _mkdir(self, view: View, caller: Caller, path: str) -> Told:
        if path not in view.tree:
            self._create(view, caller, path, b"")
        else:
            self._get(view, caller, path, "w")
        return Told(b"OK\0")

    def _create(self, view: View, caller: Caller, path: str, value: bytes) -> None:
        """A node and what is missing above it, with the permissions of what is there; an
        unprivileged creator owns them. Refused within a quota, it fails a whole transaction."""
        missing: list[str] = []
        one = path
        while view.look(one) is None:
            missing.insert(0, one)
            one = parent(one)
        perms = view.tree[one][1]
        if not caller.may(perms, "w"):
            raise Refused("EACCES")
        before = dict(view.tree)
        if not caller.is_privileged:
            perms = ((perms[0][0], caller.domid), *perms[1:])
        for new in missing:
            view.tree[new] = (value if new == path else b"", perms)
        owned = [new for new, node in view.tree.items()
                 if node[1][0][1] == caller.domid and new not in SPECIALS]
        try:
            if self._over(caller, "nodes", len(owned)):
                raise Refused("ENOSPC")
            for new in [one, *missing]:
                self._check_size(view, caller, new, *view.tree[new])
        except Refused:
            view.tree = before
            raise Refused("ENOSPC", "create") from None
        for new in missing:
            view.put(new, *view.tree[new], is_silent=new != path)

    def _rm(self, view: View, caller: Caller, path: str) -> Told:
        try:
            self._get(view, caller, path, "w")
        except Refused as refused:
            if refused.args[0] == "ENOENT" and parent(path) in view.tree:
                return Told(b"OK\0", NOT_THERE)
            raise
        if path == "/":
            raise Refused("EINVAL")
        view.remove(path)
        return Told(b"OK\0", THERE)

    def _set_perms(self, view: View, caller: Caller, payload: bytes) -> Told:
        text, *texts = split(payload, 2, 4096)
        perms = parse_perms(texts)
        if self._over(caller, "node-permissions", len(perms)):
            raise Refused("ENOSPC")
        if text.startswith("@"):
            if view.is_in_transaction:
                raise Refused("EINVAL")
            if text not in view.tree:
                raise Refused("ENOENT")
            path, (value, before) = text, view.tree[text]
        else:
            path = self._path(caller, text)
            value, before = self._get(view, caller, path, "w")
        if not caller.owns(before):
            raise Refused("EACCES")
        if perms[0][1] != before[0][1]:
            if not caller.is_privileged:
                raise Refused("EPERM")
            if not self._exists(perms[0][1]):
                raise Refused("ENOENT")
        self._check_size(view, caller, path, value, perms)
        perms = perms[:1] + tuple(
            (letter if domid >= RESERVED or self._exists(domid) else letter.upper(), domid)
            for letter, domid in perms[1:])
        view.put(path, value, perms, is_silent=text.startswith("@"))
        return Told(b"OK\0")

    def _special_perms(self, view: View, caller: Caller, payload: bytes) -> Told:
        """Permissions of @introduceDomain and @releaseDomain, which have nothing else."""
        (text,) = split(payload, 1, 1)
        if text not in view.tree:
            raise Refused("EINVAL")
        if not caller.may(view.tree[text][1], "r"):
            raise Refused("EACCES")
        return Told(perms_bytes(view.tree[text][1]).lower())

    # -- domains

    def _exists(self, domid: int) -> bool:
        return domid == 0 or domid in self.known or domid in self.machine

    def _learn(self, payload: bytes) -> None:
        """SET_PERMS was answered OK: those that it names are known, if they are there."""
        _, *texts = split(payload, 2, 4096)
        for _, domid in parse_perms(texts):
            if domid in self.machine and domid not in self.known:
                self.known[domid] = Domain(self.machine[domid][0])

    def _is_introduced(self, domid: int) -> bool:
        return domid == 0 or (domid in self.known and self.known[domid].is_introduced)

    def _about_domain(self, caller: Caller, kind: int, payload: bytes) -> Answer:
        """The messages by which domain 0 tells of domains."""
        texts = split(payload, *{INTRODUCE: (3, 3), SET_TARGET: (2, 2)}.get(kind, (1, 1)))
        domid = number(texts[0], 65535)
        if kind == IS_DOMAIN_INTRODUCED:
            return b"T\0" if domid == ASKING or self._is_introduced(domid) else b"F\0"
        if kind == INTRODUCE:
            number(texts[1], (1 << 64) - 1)
            if number(texts[2], (1 << 32) - 1) == 0 or domid == 0:
                raise Refused("EINVAL")
            self._introduce(domid)
            return b"OK\0"
        target = number(texts[1], 65535) if kind == SET_TARGET else 0
        if domid == 0:
            raise Refused("EINVAL")
        if not self._is_introduced(domid) or not self._is_introduced(target):
            raise Refused("ENOENT")
        if kind == RELEASE:
            self._leave(domid)
        elif kind == RESUME:
            self.known[domid].was_seen_shut_down = False
        else:
            self.callers[f"r{domid}"].target = target
            self.states.append(dict(self.tree))  # what is answered may be another now
        return b"OK\0"

    def _introduce(self, domid: int) -> None:
        """Its connection begins, or begins anew with nothing open."""
        if domid not in self.machine:
            raise Refused("ENOENT")
        identity, _ = self.machine[domid]
        if domid in self.known and self.known[domid].identity != identity:
            self._leave(domid)
        one = self.known.setdefault(domid, Domain(identity))
        name, target = f"r{domid}", -1
        if one.is_introduced:
            target = self.callers[name].target
            self.disconnect(name)
        else:
            self.came.append(domid)
        one.is_introduced = True
        self.connect(name, domid)
        self.callers[name].target = target

    def _leave(self, domid: int) -> None:
        """A domain is gone: its connection, what it owned with all below, what it had rights to."""
        if self.known.pop(domid).is_introduced:
            self.disconnect(f"r{domid}")
            self.gone.append(domid)
        for caller in self.callers.values():
            if caller.target == domid:
                caller.target = -1
        tree = dict(self.tree)
        for path in sorted(tree):
            if path not in tree or tree[path][1][0][1] != domid:
                continue
            if path == "/" or path in SPECIALS:
                value, perms = tree[path]
                tree[path] = value, ((perms[0][0], 0), *perms[1:])
                self.removed += [(path, False)] if path == "/" else []
                continue
            self.removed += [(one, one != path) for one in walk_up(tree, path)]
            for one in list(walk(tree, path)):
                del tree[one]
        for path, (value, perms) in tree.items():
            if any(letter.islower() and named == domid for letter, named in perms[1:]):
                tree[path] = value, (perms[0], *(one for one in perms[1:] if one[1] != domid))
        self._become(tree)
        self.states.append(dict(tree))

    def _tell(self, events: list[tuple[Caller, str, str]], before: Tree) -> None:
        """All that the step has done to domains and their nodes."""
        for path, is_exact in self.removed:
            self._fire(events, path, is_exact, before, [self.tree, before])
        for name, domids in (("@releaseDomain", self.gone), ("@introduceDomain", self.came)):
            singles = [f"{name}/{domid}" for domid in domids]
            for watch in self.watches if domids else []:
                heard = [one for one in singles if watch.path == one]
                if watch.path == name:
                    heard = singles if watch.depth else [name]
                if watch.caller.may(self.tree[name][1], "r"):
                    events += [(watch.caller, one, watch.token) for one in heard]
        self.removed, self.gone, self.came = [], [], []

    # -- quotas

    def _over(self, caller: Caller, name: str, count: int) -> bool:
        limit = self.quotas.get(name, 0)
        return not caller.is_privileged and limit > 0 and count > limit

    def _check_size(self, view: View, caller: Caller, path: str, value: bytes,
                    perms: Perms) -> None:
        """24 bytes of header, 8 for each permission, the value and the names stay below 2048."""
        size = 24 + 8 * len(perms) + len(value) + len(names_bytes(view.tree, path))
        if not caller.is_privileged and size >= self.quotas.get("node-size", 2048):
            raise Refused("ENOSPC")

    # -- watches

    def _watch_path(self, caller: Caller, text: str) -> tuple[str, int]:
        if text.startswith("@"):
            return text, 0
        path = self._path(caller, text)
        return path, 0 if text.startswith("/") else len(path) - len(text)

    def _watch(self, caller: Caller, payload: bytes,
               events: list[tuple[Caller, str, str]]) -> Answer:
        text, token, *depth = split(payload, 2, 3)
        path, hidden = self._watch_path(caller, text)
        one = Watch(caller, path, token, hidden, number(depth[0], 65535) if depth else None)
        own = [other for other in self.watches if other.caller == caller]
        if any((other.path, other.token) == (path, token) for other in own):
            raise Refused("EEXIST")
        if self._over(caller, "watches", len(own) + 1):
            raise Refused("ENOSPC")
        self.watches.append(one)
        events.append((caller, text, token))
        return b"OK\0"

    def _unwatch(self, caller: Caller, payload: bytes) -> Answer:
        text, token = split(payload, 2, 2)
        try:
            path, _ = self._watch_path(caller, text)
        except Refused:
            raise Refused("ENOENT") from None
        for one in self.watches:
            if (one.caller, one.path, one.token) == (caller, path, token):
                self.watches.remove(one)
                return b"OK\0"
        raise Refused("ENOENT")

    def _plain_order(self, before: Tree, view: View) -> list[tuple[str, bool]]:
        """What a single request fires: below a removed node first, and deepest first."""
        wide = [path for path, is_exact in view.fires.items() if not is_exact]
        return [(path, path not in wide) for root in wide
                for path in (walk_up(before, root) if root not in view.tree else [root])]

    def _fire(self, events: list[tuple[Caller, str, str]], path: str, is_exact: bool,
              before: Tree, parents: list[Tree]) -> None:
        """Who hears of a changed path: whose watch reaches it, and who may read the node by its
        old or new rights, or its parent, as it is in the first of `parents` that has it."""
        perms = [tree[path][1] for tree in (before, self.tree) if path in tree]
        if path != "/":
            perms += [tree[parent(path)][1] for tree in parents if parent(path) in tree][:1]
        for watch in self.watches:
            if path == watch.path:
                below = 0
            elif not is_exact and path.startswith(watch.path.rstrip("/") + "/"):
                below = path[len(watch.path.rstrip("/")):].count("/")
            else:
                continue
            if watch.depth is not None and below > watch.depth:
                continue
            if not any(watch.caller.may(one, "r") for one in perms):
                continue
            event = watch.caller, path[watch.hidden:], watch.token
            if len(event[1]) + len(watch.token) + 2 <= 4096 and event not in events:
                events.append(event)  # an equal one that waits already is not sent twice
