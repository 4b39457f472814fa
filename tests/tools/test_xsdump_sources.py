# SPDX-License-Identifier: Apache-2.0
"""Every command of xsdump on everything that it may be pointed at: whole, new, damaged in each
part, no region at all, inside a machine's memory, and being written: no traceback, the exit codes
that --help tells, what can be saved is shown, what cannot is said, and nothing is written.

Method: a table of sources, another of commands, all pairs. A region that has gone round twice, so
that there is old history; damage by single bits. A real server under load for the rest.
Cannot show: a region that changes while it is scavenged."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from persist import layout
from persist.log import format_region
from persist.record import Kind, Record
from tests.crash.world import ArrayMedium, Life
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import SocketConnection
from tests.tools.in_process import dump
from tools.dump.changes import effect_texts
from tools.dump.past import Carried, Change, Event, Past, read_past
from tools.dump.text import text

COMMANDS = {
    "info": ["info"], "log": ["log"], "last": ["log", "-n", "1"], "all": ["log", "-a", "-p"],
    "json": ["log", "--json"], "since": ["log", "--since", "~3"], "tree": ["tree"],
    "past": ["tree", "--at", "~3"], "items": ["tree", "--items"], "diff": ["diff", "~3"],
    "blame": ["blame", "/quiet"], "watch": ["watch"], "connections": ["connections"],
    "crashes": ["crashes", "-a"], "stat": ["stat"], "verify": ["verify"],
    "restore": ["restore", "OUT"], "stream": ["restore", "--stream", "OUT"],
    "html": ["html", "OUT"], "git": ["git", "--bare", "OUT"]}
# What has no moments: exit code 2 for those that ask for one. What has no record: nothing to
# restore, nothing to blame.
NO_MOMENT = {"since": 2, "past": 2, "diff": 2}
NO_RECORD = {**NO_MOMENT, "restore": 1, "stream": 1, "blame": 1}
UNREADABLE = dict.fromkeys(COMMANDS, 3)


@lru_cache(maxsize=1)
def lapped() -> tuple[bytes, int, int, int]:
    """A region whose log went round twice, in two lives; positions: of the record that a node with
    others below it is in, of the oldest record that the state rests on, of the tail."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    number = 0
    while life.journal.log.tail < 2 * life.journal.log.size:
        number += 1
        life.turn((11, 0, b"/loud/%d\0" % (number % 20) + b"x" * 2000))
        life.tidy(idle=number % 100 == 0)
        if number % 30 == 0:
            life.turn((11, 0, b"/quiet/%d\0v" % number))
            life.tidy()
        if number == 500:
            life = Life(ArrayMedium(bytes(life.medium.bytes)))
    node = life.store.tree.nodes[b"/quiet"]  # type: ignore[index]
    log = life.journal.log
    return bytes(life.medium.bytes), node.position, log.superblock.start, log.tail


def flipped(*offsets: int) -> bytes:
    """That region, with a bit flipped at each offset."""
    image = bytearray(lapped()[0])
    for offset in offsets:
        image[offset] ^= 4
    return bytes(image)


def in_log(position: int) -> int:
    """The offset of a byte of the record at a position."""
    size = layout.log_size(layout.REGION_SIZE_MIN)
    return layout.LOG_OFFSET + (position + layout.RECORD_HEADER_SIZE) % size


def formatted() -> bytes:
    """A region in which nothing was recorded."""
    medium = ArrayMedium(layout.REGION_SIZE_MIN)
    format_region(medium)
    return bytes(medium.bytes)


def without_log() -> bytes:
    """A log of nothing but zeros, behind superblocks that say otherwise."""
    return lapped()[0][:layout.LOG_OFFSET].ljust(layout.REGION_SIZE_MIN, b"\0")


SUPERBLOCKS = [offset + 20 for offset in layout.SUPERBLOCK_OFFSETS]
TAIL_CELLS = list(layout.TAIL_CELL_OFFSETS)
DAMAGED = {"verify": 1}
INCOMPLETE = {**DAMAGED, "restore": 1, "stream": 1}
SOURCES: dict[str, tuple[Callable[[], bytes], dict[str, int]]] = {
    "whole": (lambda: lapped()[0], {}),
    "empty file": (lambda: b"", UNREADABLE),
    "too short": (lambda: lapped()[0][:-4096], UNREADABLE),
    "truncated": (lambda: lapped()[0] + bytes(4096), UNREADABLE),
    "something else": (lambda: os.urandom(layout.REGION_SIZE_MIN), UNREADABLE),
    "new": (lambda: bytes(layout.REGION_SIZE_MIN), NO_RECORD),
    "without records": (formatted, NO_RECORD),
    "one superblock": (lambda: flipped(SUPERBLOCKS[0]), {}),
    "superblocks": (lambda: flipped(*SUPERBLOCKS), DAMAGED),
    "superblocks, tail cells": (lambda: flipped(*SUPERBLOCKS, *TAIL_CELLS), DAMAGED),
    "superblocks, no records": (lambda: bytes(one ^ (index in SUPERBLOCKS) for index, one in
                                              enumerate(formatted())), UNREADABLE),
    "window": (lambda: flipped(in_log(lapped()[1])), DAMAGED),
    "window, old copy, too": (lambda: flipped(in_log(lapped()[1]), *range(
        layout.LOG_OFFSET, layout.REGION_SIZE_MIN, 5000)), INCOMPLETE),
    "tail": (lambda: flipped(in_log(lapped()[3] - 1000)), INCOMPLETE),
    "old history": (lambda: flipped(in_log(
        (lapped()[2] + lapped()[3] - layout.log_size(layout.REGION_SIZE_MIN)) // 2)), DAMAGED),
    "log of zeros": (without_log, {**NO_RECORD, **DAMAGED}),
    "machine's memory": (lambda: bytes(8192) + lapped()[0] + bytes(4096), {}),
}


def told_of(source: Path, command: str, out: Path) -> tuple[int, str]:
    """What a command says; what it may make is removed."""
    words = [str(out) if word == "OUT" else word for word in COMMANDS[command]]
    try:
        return dump(source, *words)
    finally:
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)


@pytest.mark.parametrize("name", SOURCES)
def test_every_command(tmp_path: Path, name: str) -> None:
    make, codes = SOURCES[name]
    source = tmp_path / "source"
    image = make()
    source.write_bytes(image)
    for command in COMMANDS:
        code, text = told_of(source, command, tmp_path / "out")
        assert code == codes.get(command, 0), (command, text[-2000:])
        assert text or command in ("log", "json", "watch", "connections", "diff", "last", "since",
                                   "all", "html"), command
        if code > 1:
            assert text.startswith("xsdump: ") and text.count("\n") == 1, (command, text)
    assert source.read_bytes() == image and os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("name, nodes, said", [
    ("superblocks", 56, "all 56 nodes: the digest proves"),
    ("window", 56, "all 56 nodes: the digest proves"),
    ("window, old copy, too", 0, "but not all that there was"),
    ("tail", 0, "but not all that there was"),
    ("log of zeros", 0, "0 nodes, but not all")])
def test_what_can_be_saved_is_said(tmp_path: Path, name: str, nodes: int, said: str) -> None:
    """By verify, by info, and by tree, which shows it: also what is below a node that is lost, and
    what only older copies have."""
    source = tmp_path / "source"
    source.write_bytes(SOURCES[name][0]())
    for command in ("verify", "info"):
        text = dump(source, command)[1]
        assert "can be saved" in text and said in text, text
    lines = dump(source, "tree")[1].splitlines()
    assert ("(incomplete" in lines[0]) == (not nodes) and (not nodes or len(lines) == nodes)
    if name == "window, old copy, too":
        assert any(line.startswith("/quiet/") for line in lines)


@pytest.mark.parametrize("name", ["whole", "old history", "one superblock", "new"])
def test_where_all_is_there_nothing_is_said_of_saving(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(SOURCES[name][0]())
    for command in ("verify", "info"):
        assert "can be saved" not in dump(source, command)[1]
    assert "incomplete" not in dump(source, "tree")[1]


# -- beside a server


@pytest.fixture
def busy() -> Iterator[OurServer]:
    """A server with a small region, which a client fills as fast as it can: the log goes round
    while it is read."""
    with OurServer(arguments=["--region-size", "1M"]) as server:
        has_enough = threading.Event()

        def load() -> None:
            with SocketConnection(server.socket_path) as dom0:
                number = 0
                while not has_enough.is_set():
                    number += 1
                    dom0.write(f"/loud/{number % 20}", b"x" * 2000)
                    dom0.write(f"/quiet/{number % 300}", "v")

        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield server
        finally:
            has_enough.set()
            thread.join()


def test_beside_a_server_under_load(tmp_path: Path, busy: OurServer) -> None:
    """The server may be faster (exit code 3, and it says so), or may have used again what a moment
    rests on (exit code 2); it is never taken for damage."""
    while not dump(busy.region_path, "log", "-n", "1")[1]:
        pass
    for _ in range(2):
        for command in COMMANDS:
            code, text = told_of(busy.region_path, command, tmp_path / "out")
            assert code == 0 or "faster than it can be read" in text or (
                code == 2 and command in NO_MOMENT) or (
                code == 1 and command == "blame"), (command, code, text[-2000:])
            assert "INCOMPLETE" not in text and "DIFFERS" not in text and "damaged" not in text


MOVES = 30  # then the server rests: else whoever reads record by record would never see the end


class MovingMedium(ArrayMedium):
    """A region whose server takes turns between the next MOVES reads of it."""

    def __init__(self, turns: int) -> None:
        super().__init__(lapped()[0])
        self.turns = turns
        self.left = 0
        self.countdown = 0  # reads before it begins to move
        self.number = 0
        self.life: Life | None = None

    def read(self, offset: int, size: int) -> bytes:
        life, self.life = self.life, None  # its own reads move nothing
        if life is not None and self.countdown:
            self.countdown -= 1
        elif life is not None and self.left:
            self.left -= 1
            for _ in range(self.turns):
                self.number += 1
                life.turn((11, 0, b"/loud/%d\0" % (self.number % 20) + b"x" * 2000))
                life.turn((11, 0, b"/quiet/%d\0v" % (self.number % 300)))
                life.tidy()
        self.life = life
        return super().read(offset, size)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("turns", [1, 7, 60])
def test_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """However fast the server is: what is said is right, or it is said that it cannot be told."""
    medium = MovingMedium(turns)
    medium.life = Life(medium)
    monkeypatch.setattr("tools.xsdump.open_any", lambda name: medium)
    readable = 0
    for command in COMMANDS:
        medium.left = MOVES
        code, text = told_of(tmp_path / "source", command, tmp_path / "out")
        if "faster than it can be read" in text:
            assert code == 3 and text.count("\n") == 1
            continue
        readable += 1
        assert code == 0 or (code == 2 and command in NO_MOMENT) or (
            code == 1 and command == "blame"), (command, code, text[-2000:])
        assert "INCOMPLETE" not in text and "DIFFERS" not in text and "damaged" not in text, command
    assert readable or turns > 7


def test_what_was_read_twice_is_the_same_past() -> None:
    """Between the two readings of the window a server may have used it again: then it is read anew,
    and never shown as a state of which a part is lost."""
    for before in range(1, 16):
        medium = MovingMedium(350)
        medium.life, medium.left, medium.countdown = Life(medium), 1, before
        past = read_past(medium)
        list(past.walk())
        assert past.is_whole and not past.problems, before
    assert medium.left == 0, "it never moved"


# -- what is not read


def test_the_last_changes_need_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the present's own records have them; the lines are the same."""
    source = tmp_path / "source"
    source.write_bytes(lapped()[0])
    lines = dump(source, "log")[1].splitlines()
    assert dump(source, "log", "-n", "400")[1].splitlines() == lines[-400:]
    monkeypatch.setattr("tools.dump.past.history", None)
    assert dump(source, "log", "-n", "7")[1].splitlines() == lines[-7:]
    assert dump(source, "log", "-n", "1", "-d", "0")[1].splitlines() == lines[-1:]


def test_skimming_tells_what_walking_tells() -> None:
    """But for the differences."""
    past = read_past(ArrayMedium(flipped(in_log(lapped()[1]))))

    def told(event: Event) -> object:
        if isinstance(event, Change):
            return event._replace(differences=[], effects=effect_texts(event.effects))
        return event._replace(differences=[]) if isinstance(event, Carried) else event

    walked = [told(one) for one in past.walk()]
    assert [told(one) for one in past.skim()] == walked and len(walked) > 400
    for _ in past.walk():
        pass
    assert {path: node.value for path, node in past.state_at_end().nodes.items()} == {
        path: node.value for path, node in past.state.nodes.items()}


def test_what_was_there_before_the_history_is_known_early() -> None:
    """A seal whose start lies behind the first record ends the search; what is found is all that a
    search to the end finds."""
    whole = read_past(ArrayMedium(lapped()[0]))
    unsealed = Past([one for one in whole.entries
                     if not isinstance(one, Record) or one.kind != Kind.SEAL])

    def nodes(past: Past) -> dict[object, bytes]:
        return {path: node.value for path, node in past.base() if isinstance(path, bytes)}
    assert nodes(whole) == nodes(unsealed) and len(nodes(whole)) > 10


def test_every_byte_is_shown() -> None:
    """The short way for plain text says what the long one does."""
    for byte in range(256):
        shown = chr(byte) if 32 <= byte < 127 and byte not in b'\\"' else f"\\x{byte:02x}"
        assert text(bytes([byte])) == shown and text(b"a%cb" % byte) == f"a{shown}b"
