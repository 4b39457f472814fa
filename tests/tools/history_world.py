# SPDX-License-Identifier: Apache-2.0
"""A region with an eventful past, and real git to look at what xsdump makes of it."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from app.client import Client
from app.journal import Journal, Start, open_journal
from app.seal import Sealer
from persist import layout
from persist.region import Medium
from tests.crash.world import ArrayMedium, Life
from tools.dump import git as command
from tools.dump.output import Output
from tools.dump.past import Carried, Change, Past, read_past

WRITE, RM, SET_PERMS, WATCH, START, END, QUOTA = 11, 13, 14, 4, 6, 7, 26
WITH_RING = 9
REFS = ("for-each-ref", "--format=%(refname) %(objectname)")
STATE = "%(trailers:key=State,valueonly,separator=)"


class Ring(Client):
    """A client whose watches are kept, as those of a guest's ring are."""

    is_durable = True


class OneLife(Life):
    """A life in a row of them: time goes on, and it may have heard why the last one ended."""

    def __init__(self, medium: ArrayMedium, time_us: int, cause: str) -> None:
        self.cause = cause
        self.domains: dict[int, Client] = {}
        super().__init__(medium, time_us)

    def _open(self) -> tuple[Journal, Start]:
        return open_journal(self.medium, self.store, self._clock, lambda: None, self.cause)


class Host:
    """A server's lives on one region. Begins with the first."""

    def __init__(self, size: int = layout.REGION_SIZE_MIN,
                 time_us: int = 1_700_000_000_000_000) -> None:
        self.medium = ArrayMedium(size)
        self.life = OneLife(self.medium, time_us, "")

    def die(self, cause: str = "") -> None:
        """The life ends like that, the next one begins."""
        self.life = OneLife(self.medium, self.life._clock() + 5_000_000, cause)

    def end(self) -> None:
        """The life ends on purpose; none begins."""
        self.life.journal.end()

    def ask(self, domid: int, *requests: tuple[int, int, bytes]) -> list[bytes]:
        """A turn of a domain's requests."""
        if domid not in self.life.domains:
            kind = Ring if domid == WITH_RING else Client
            client = kind(100 + domid, domid, privileged=True, pid=domid * 11)
            self.life.domains[domid] = client
            self.life.store.clients.add(client)
        own, self.life.client = self.life.client, self.life.domains[domid]
        answers = self.life.turn(*requests)
        self.life.client = own
        return answers

    def write(self, domid: int, path: str, value: bytes) -> None:
        """One WRITE."""
        self.ask(domid, (WRITE, 0, path.encode() + b"\0" + value))

    def seal(self) -> None:
        """Idle until everything is hashed and sealed."""
        self.life.tidy(idle=True)

    def fill(self, laps: float, below: str = "/loud") -> None:
        """So many logs' worth of writes to a few nodes: what is old is cleaned away."""
        journal = self.life.journal
        end = journal.log.tail + laps * journal.log.size
        number = 0
        while journal.log.tail < end:
            self.write(3, f"{below}/{number % 7}", b"x" * 2000 + b"%d" % number)
            self.life.tidy()
            number += 1

    def image(self) -> ArrayMedium:
        """As a crash right now would leave it."""
        return ArrayMedium(bytes(self.medium.bytes))


def eventful() -> Host:
    """Three lives with everything that a commit can be about; the last one just stops."""
    host = Host()
    for number in range(6):
        host.write(number, f"/local/domain/{number}/state", b"%d" % number)
        host.write(0, f"/local/domain/{number}/name", b"guest %d" % number)
    host.seal()
    host.ask(0, (SET_PERMS, 0, b"/local/domain/3\0n0\0r7\0"))
    host.ask(0, (QUOTA, 0, b"nodes\x0099\0"))
    host.ask(WITH_RING, (WATCH, 0, b"/local\0token\0"), (WATCH, 0, b"/tool\0token\0"))
    host.write(3, "/local/domain/3/state", b"")
    host.seal()
    host.die("Traceback (most recent call last):\n  File x\nRuntimeError: the end\n")
    host.write(4, "/local/domain/4/" + "n" * 300 + "/deep", b"\0\xff\nbytes")
    host.write(4, "/local/domain/4/a-b/c", b"1")
    host.write(4, "/local/domain/4/a/c", b"2")
    host.ask(0, (RM, 0, b"/local/domain/5\0"), (WRITE, 0, b"/local/domain/5/new\0" + b"y" * 50))
    transaction(host, 2)
    host.seal()
    host.end()
    host.die()
    for number in range(5):
        host.write(3, "/local/domain/3/state", b"%d" % number)
    host.seal()
    host.write(7, "/local/domain/3/state", b"broken")
    host.write(7, "/local/domain/3/state", b"still broken")
    return host


def transaction(host: Host, domid: int) -> None:
    """One that changes three nodes."""
    answer = host.ask(domid, (START, 0, b"\0"))[0]
    tx_id = int(answer[16:].rstrip(b"\0"))
    host.ask(domid, *((WRITE, tx_id, b"/local/domain/2/t%d\0in" % number) for number in range(3)))
    assert host.ask(domid, (END, tx_id, b"T\0"))[0].endswith(b"OK\0")


def stages() -> Iterator[ArrayMedium]:
    """A region at many moments of its past."""
    host = Host()
    yield host.image()
    for number in range(4):
        host.write(number, f"/a/{number}", b"1")
        yield host.image()
        host.seal()
        yield host.image()
    host.die("KeyError: 5")
    yield host.image()
    host.end()
    yield host.image()
    host.die()
    host.ask(3, (11, 0, b"/a/b\0002"), (13, 0, b"/a/1\0"), (11, 0, b"/a/1/c\0003"))
    yield host.image()
    host.seal()
    host.die("again")
    yield host.image()


def sealed(host: Host) -> str:
    """The tree of the present state, as the server itself seals it."""
    host.seal()
    mark = host.life.journal.last_seal
    assert mark is not None
    return mark.tree.hex()


def tree(directory: Path) -> str:
    """Main's."""
    return git(directory, "rev-parse", "main^{tree}").strip()


def archive(region: Medium, directory: Path, *words: str) -> int:
    """xsdump REGION git DIRECTORY WORDS, in this process; returns the exit code."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    options = parser.parse_args(["git", str(directory), *words])
    before = bytes(region.bytes) if isinstance(region, ArrayMedium) else None
    code: int = options.command(region, options, Output())
    assert before is None or region.bytes == before, "the region was written to"
    return code


def git(directory: Path, *words: str, code: int = 0) -> str:
    """Real git's answer."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True,
                          errors="surrogateescape", env=environment, timeout=60)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout


def log(directory: Path, fields: str, *words: str, ref: str = "main") -> list[str]:
    """A line per commit, oldest first."""
    return git(directory, "log", "--reverse", f"--format={fields}", ref, *words).splitlines()


def is_sound(directory: Path) -> bool:
    """Whether git finds nothing to say."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", "-C", str(directory), "fsck", "--strict", "--full",
                           "--no-dangling"], capture_output=True, env=environment, timeout=60)
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def changes(region: Medium) -> Iterator[tuple[Past, Change | Carried]]:
    """The events of a region that are commits, each with the past at that moment."""
    past = read_past(region)
    for event in past.walk():
        if isinstance(event, Change) or (isinstance(event, Carried) and event.differences):
            yield past, event


def tree_of(past: Past) -> str:
    """The id that a seal of this state would have."""
    sealer = Sealer(past.state, past.state.nodes)
    while not sealer.is_clean:
        sealer.step(1 << 20)
    return sealer.root_oid().hex()
