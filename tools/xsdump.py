# SPDX-License-Identifier: Apache-2.0
"""xsdump: look into a region, beside a running server or after a crash. Never writes.

A server that runs may overtake the reader: what it has reused since is gone, not damaged; so a
reading that met damage is repeated when the superblocks have moved meanwhile."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from app import codec, wire
from app import path as paths
from app.effects import Item
from app.items import grouped
from app.journal import SEAL_AUTHOR, seal_message
from app.lastwords import telling
from app.path import ROOT, Path
from app.replay import Replay
from app.seal import Sealer, perms_text
from app.tree import Node
from persist import layout, oid
from persist.crash import read_crash_slot
from persist.find import open_source
from persist.reader import LogReader
from persist.record import Kind, Record
from persist.recover import Recovery, newest_tail_cell, recover
from persist.region import Medium, RegionError
from tools.boot.failure import BootError
from tools.boot.frames import memory_of
from tools.boot.place import Place, parse_place

EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_UNREADABLE = 3
READ_TRIES = 20
FOLLOW_S = 0.2
SERVER_TYPE = codec.START.type

EXAMPLES = """examples:
  tools/xsdump /dev/shm/tardigrade-1a2b3c4d.region info
  tools/xsdump /dev/shm/tardigrade-1a2b3c4d.memory info     the memory of make run-qemu
  tools/xsdump core info                 a core dump: xl dump-core, xsboot core, QEMU
  tools/xsdump domain:1 info             the xenstore domain of a Xen host, in its dom0
  tools/xsdump REGION log -n 20          the last 20 records
  tools/xsdump REGION log --follow       what a running server records, as it does
  tools/xsdump REGION tree
  tools/xsdump REGION.damaged-1 verify   what is wrong with a damaged region

exit codes: 0 all is well, 1 verify found a difference, 2 wrong arguments, 3 no readable region
"""


class Source(Medium, Protocol):
    """What is read."""

    def close(self) -> None:
        """Give it back."""


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    options = parse(arguments)
    try:
        region = open_any(options.region)
        try:
            code: int = options.command(region, options)
        finally:
            region.close()
    except RegionError as error:
        print(f"xsdump: {options.region}: {error}" if options.region not in str(error)
              else f"xsdump: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 0
    return code


def open_any(text: str) -> Source:
    """A file that holds a region, or domain:DOMID[:SIZE@ADDRESS]. Raises RegionError."""
    kind, _, rest = text.partition(":")
    if kind != "domain" or os.path.exists(text):
        return open_source(text)
    domid, _, place = rest.partition(":")
    if not domid.isdecimal():
        raise RegionError(f"{text}: expected domain:DOMID, or domain:DOMID:SIZE@ADDRESS")
    try:
        return memory_of(int(domid), parse_place(place) if place else Place())
    except BootError as error:
        raise RegionError(str(error)) from error


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="xsdump", description="Look into the persistent memory of a xenstore server.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("region", metavar="REGION", help="a region file, live or damaged; "
                        "a machine's memory that holds one, in a file or a core dump; or "
                        "domain:DOMID, or domain:DOMID:SIZE@ADDRESS")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add: Callable[..., argparse.ArgumentParser] = commands.add_parser
    add("info", help="what the region holds and how it ended").set_defaults(command=show_info)
    log = add("log", help="the records, oldest first")
    log.add_argument("--follow", action="store_true", help="go on with what a server appends")
    log.add_argument("-n", metavar="N", type=_count, dest="last", help="only the last N records")
    log.set_defaults(command=show_log)
    add("tree", help="the nodes with values and permissions").set_defaults(command=show_tree)
    add("verify", help="recompute the state digest and git ids").set_defaults(command=verify)
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of records, not {text!r}")
    return int(text)


# -- reading


class CountingReplay(Replay):
    """A replay that also counts the kinds of records."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()

    def apply(self, one: Record) -> None:
        """Take one record in."""
        self.kinds[_kind_name(one.kind)] += 1
        super().apply(one)


def read_state(region: Source) -> tuple[Recovery, CountingReplay]:
    """Replay the region as recovery would; again if a running server overtook us."""
    for _ in range(READ_TRIES):
        before = _superblocks(region)
        replay = CountingReplay()
        found = recover(region, replay.apply)
        if not found.damages or _superblocks(region) == before:
            return found, replay
    raise RegionError("the server moves on faster than it can be read; try again")


def _superblocks(region: Source) -> list[bytes]:
    return [region.read(offset, layout.SUPERBLOCK_SIZE) for offset in layout.SUPERBLOCK_OFFSETS]


class Gap(NamedTuple):
    """Bytes between two records of the history that cannot be believed."""

    position: int
    size: int


def history(region: Source, found: Recovery) -> Iterator[Record | Gap]:
    """All records that are still whole, oldest first, those before the replay start included, and
    the gaps between them. Where it begins is no gap, nor what a running server has reused."""
    assert found.state is not None
    reader, tail = LogReader(region), found.state.tail
    position = max(tail - reader.log_size, 0)
    has_begun = position == 0
    while position < tail:
        one = reader.record_at(position)
        if one is None:
            one = reader.find(position, tail)
            cell = newest_tail_cell(region)
            is_reused = cell is not None and (
                cell.position + layout.record_size_max(reader.log_size) - position
                > reader.log_size)
            if has_begun and not is_reused:
                yield Gap(position, (one.position if one is not None else tail) - position)
            if one is None:
                return
        has_begun = True
        yield one
        position = one.position + one.size


# -- commands


def show_info(region: Source, _: argparse.Namespace) -> int:
    """Print what the region holds."""
    found, replay = read_state(region)
    print(f"format version  {layout.VERSION}")
    print(f"region          {region.size} bytes, log {layout.log_size(region.size)} bytes")
    print(f"outcome         {found.outcome.value}"
          + ("" if found.state is None else ", ended on purpose" if replay.ended_cleanly
             else ", running or crashed"))
    show_crash_slot(region)
    if found.state is None:
        return 0
    window = found.state.tail - found.state.superblock.start
    cell = newest_tail_cell(region)
    print(f"superblock      epoch {found.state.superblock.epoch}, replay from position "
          f"{found.state.superblock.start:#x}, sequence {found.state.superblock.start_sequence}")
    print(f"tail            position {found.state.tail:#x}, sequence {found.state.sequence}, "
          + (f"tail cell names sequence {cell.sequence}" if cell else "no valid tail cell"))
    print(f"window          {window} bytes, {found.records} records: "
          + ", ".join(f"{count} {name}" for name, count in replay.kinds.most_common()))
    life = replay.life
    if life is not None:
        print(f"life            {life.number}, started {_when(life.time_us)} after: {life.outcome}")
        if life.cause:
            print(f"last death      {telling(life.cause)}")
    digest = replay.compute_digest()
    agrees = "agrees" if digest == replay.digest else "DIFFERS from the recorded one"
    print(f"state           {len(replay.nodes)} nodes, {len(replay.items)} items, "
          f"digest {digest:016x} {agrees}")
    if replay.sealed is not None:
        mark = replay.sealed.mark
        print(f"last seal       sequence {mark.sequence}, commit {mark.commit.hex()}, "
              f"tree {mark.tree.hex()}")
    for poison in sorted(value for key, value in replay.items.items()
                         if key.startswith("poison.") and isinstance(value, tuple)):
        print(f"poison          {_describe_poison(poison)}")
    for key, value in sorted(replay.items.items()):
        if key.startswith("suspect."):
            print(f"suspect         {key.removeprefix('suspect.')}: {value!r}")
    for damage in found.damages:
        print(f"DAMAGE          position {damage.position:#x}, {damage.size} bytes: "
              f"{damage.reason}")
    for note in found.notes:
        print(f"note            {note}")
    return 0


def show_crash_slot(region: Source) -> None:
    """Print what a kernel has written of the last life's end, if there is a kernel."""
    slot = read_crash_slot(region)
    if slot is None:
        return
    if slot.is_torn:
        print("crash slot      torn: it does not verify")
        return
    print(f"crash slot      written {_when(slot.time_us)} in restart {slot.restart}: "
          f"{telling(slot.text) or 'nothing is said'}")
    for line in slot.text.splitlines():
        print(f"                | {''.join(map(_printable, line))}")


def show_log(region: Source, options: argparse.Namespace) -> int:
    """Print the records."""
    found, _ = read_state(region)
    if found.state is None:
        return 0
    records = list(history(region, found))
    if options.last is not None:
        records = records[len(records) - min(options.last, len(records)):]
    for one in records:
        print(describe(one) if isinstance(one, Record) else
              f"(position {one.position:#x}, {one.size} bytes: damaged)")
    if options.follow:
        follow(region, records[-1].position + records[-1].size if records
               else found.state.tail)
    return 0


def follow(region: Source, position: int) -> None:
    """Print what is appended from `position` on, until interrupted."""
    sys.stdout.flush()
    while True:
        reader = LogReader(region)  # a new one: nothing old in its chunk
        cell = newest_tail_cell(region)
        while cell is not None and position <= cell.position:
            one = reader.record_at(position)
            if one is None:
                oldest = max(position, cell.position - reader.log_size // 2)
                one = reader.find(oldest, cell.position + 1)
                if one is None:
                    break
                print(f"(from position {position:#x} to {one.position:#x}: damaged, or reused "
                      "before it was read)")
            print(describe(one))
            position = one.position + one.size
        sys.stdout.flush()
        time.sleep(FOLLOW_S)


def show_tree(region: Source, _: argparse.Namespace) -> int:
    """Print every node with value and permissions."""
    found, replay = read_state(region)
    if found.state is None:
        return 0
    stack = [ROOT]
    while stack:
        path = stack.pop()
        node = replay.nodes.get(path)
        if node is not None:
            print(f'{_text(path)} = "{_text(node.value)}" ({_text(perms_text(node.perms.wire))})')
        directory = replay.dirs.get(path)
        if directory is not None:
            by_age = sorted(directory.names, key=directory.names.__getitem__, reverse=True)
            stack += [paths.child(path, name) for name in by_age]
    return 0


def verify(region: Source, _: argparse.Namespace) -> int:
    """Recompute what can be recomputed; say OK, or where it differs."""
    problems: list[str] = []
    found, replay = read_state(region)
    problems += [f"position {one.position:#x}, {one.size} bytes: {one.reason}"
                 for one in found.damages if one.position not in replay.acknowledged]
    if found.state is None:
        print("OK: a new region, nothing was recorded yet")
        return 0
    digest = replay.compute_digest()
    if replay.digest is not None and digest != replay.digest:
        problems.append(f"state digest {digest:016x} instead of the recorded "
                        f"{replay.digest:016x} at sequence {found.state.sequence}")
    orphans = [path for path in replay.dirs if path not in replay.nodes]
    if orphans:
        problems.append(f"{len(orphans)} nodes are missing above others, the first is "
                        f"{_text(min(orphans))}")
    checker = SealChecker()
    for one in history(region, found):
        if isinstance(one, Record):
            checker.apply(one)
            continue
        checker = SealChecker(checker)
        if one.position < found.state.superblock.start and (
                one.position not in replay.acknowledged):
            problems.append(f"position {one.position:#x}, {one.size} bytes of old history do not "
                            "verify; the state does not rest on them")
    problems += checker.problems
    for note in found.notes:
        print(f"note: {note}")
    for problem in problems:
        print(f"DIFFERS: {problem}")
    if problems:
        return EXIT_DIFFERS
    print(f"OK: {found.records} records, state digest {digest:016x}, {checker.verified} sealed git "
          f"trees recomputed, {checker.unknown} seals too old to be rebuilt")
    return 0


class SealChecker:
    """Replays history and recomputes the git ids of every seal that it has the state for."""

    def __init__(self, before: SealChecker | None = None) -> None:
        """`before`: the checker of what lies before a gap; its findings are kept."""
        self.problems: list[str] = before.problems if before is not None else []
        self.verified: int = before.verified if before is not None else 0
        self.unknown: int = before.unknown if before is not None else 0
        self._replay = Replay()
        self._sealer = Sealer(self, [])
        self._first: int | None = None
        self._commit: bytes | None = None

    def apply(self, one: Record) -> None:
        """Take one record in, in order."""
        if self._first is None:
            self._first = one.position
        if one.kind == Kind.SEAL:
            self._check(one)
        elif one.kind == Kind.TURN:
            for step in codec.decode_turn(one.payload, one.position).steps:
                for key, _ in step.effects:
                    if isinstance(key, str):
                        self._sealer.mark_item(key)
                    else:
                        self._sealer.mark(key)
        elif one.kind == Kind.CARRY:
            carry = codec.decode_carry(one.payload, one.position)
            for path, _ in carry.nodes:
                if path not in self._replay.nodes:
                    self._sealer.mark(path)
            for key, _ in carry.items:
                self._sealer.mark_item(key)
            self._sealer.mark(ROOT)
        self._replay.apply(one)
        self._replay.sealed = None

    def _check(self, one: Record) -> None:
        mark = codec.decode_seal(one.payload)
        where = f"seal at sequence {mark.sequence}"
        expected = oid.commit_id(mark.tree, mark.parent or None, SEAL_AUTHOR, mark.time_s,
                                 seal_message(mark.sequence))
        if expected != mark.commit:
            self.problems.append(f"{where}: commit {mark.commit.hex()}, computed {expected.hex()}")
        if self._commit is not None and mark.parent != self._commit:
            self.problems.append(f"{where}: parent {mark.parent.hex()} is not the seal before it, "
                                 f"{self._commit.hex()}")
        self._commit = mark.commit
        assert self._first is not None
        if mark.start < self._first:
            self.unknown += 1
            return
        while not self._sealer.is_clean:
            self._sealer.step(1 << 20)
        computed = self._sealer.root_oid()
        if computed != mark.tree:
            self.problems.append(f"{where}: git tree {computed.hex()} instead of the sealed "
                                 f"{mark.tree.hex()}")
        else:
            self.verified += 1

    # -- SealedView

    def node(self, path: Path) -> Node | None:
        """The node, or None."""
        return self._replay.nodes.get(path)

    def child_names(self, path: Path) -> list[bytes]:
        """The names of its children."""
        directory = self._replay.dirs.get(path)
        return list(directory.names) if directory is not None else []

    def item_groups(self) -> dict[tuple[str, str], dict[str, Item]]:
        """The items."""
        return grouped(self._replay.items)


# -- text


def describe(one: Record) -> str:
    """One record in words: sequence, time, kind, and what it says."""
    head = f"{one.sequence:>8} {_kind_name(one.kind):5}"
    if one.kind == Kind.TURN:
        turn = codec.decode_turn(one.payload, one.position)
        steps = "; ".join(_describe_step(step) for step in turn.steps)
        moved = ", ".join(f"connection {one.epoch} +{len(one.data)} bytes" for one in turn.streams)
        return f"{head} {_when(turn.time_us)} {steps}" + (f" ({moved})" if moved else "")
    if one.kind == Kind.CARRY:
        carry = codec.decode_carry(one.payload, one.position)
        return (f"{head} {len(carry.nodes)} nodes, {len(carry.items)} items, "
                f"{len(carry.streams)} connections' streams carried forward")
    if one.kind == Kind.SEAL:
        mark = codec.decode_seal(one.payload)
        return f"{head} {_when(mark.time_s * 1_000_000)} commit {mark.commit.hex()} " \
               f"tree {mark.tree.hex()}"
    if one.kind == Kind.LIFE:
        life = codec.decode_life(one.payload)
        text = f"{head} {_when(life.time_us)} life {life.number} begins: {life.outcome}"
        if life.cause:
            text += f"; the last one ended by: {telling(life.cause)}"
        return text + "".join(f"; dropped {size} bytes at {position:#x}: {reason}"
                              for position, size, reason in life.damages)
    return f"{head} the life ends on purpose" if one.kind == Kind.END else head


def _describe_poison(poison: tuple[Item, ...]) -> str:
    number, domid, epoch, position, type_, payload = poison
    assert isinstance(type_, int) and isinstance(payload, bytes)
    where = f"connection {epoch!r} at {position!r}" if epoch else "a socket"
    return (f"{number!r}: dom{domid!r}, {where}, {wire.TYPE_NAMES.get(type_, type_)} "
            f"{_text(payload)} has ended lives, and was answered EIO")


def _describe_step(step: codec.Step) -> str:
    who = "server" if step.type == SERVER_TYPE else f"dom{step.domid} conn {step.conn_id}" + (
        f" pid {step.pid}" if step.pid else "")
    name = "" if step.type == SERVER_TYPE else wire.TYPE_NAMES.get(step.type, str(step.type)) + " "
    return f"{who}: {name}" + ", ".join(_describe_effect(*effect) for effect in step.effects)


def _describe_effect(key: Path | str, value: Node | Item) -> str:
    if isinstance(key, str):
        return f"[{key} = {value!r}]" if value is not None else f"[no {key}]"
    if not isinstance(value, Node):
        return f"rm {_text(key)}"
    return f'{_text(key)} = "{_text(value.value)}" ({_text(perms_text(value.perms.wire))})'


def _kind_name(kind: int) -> str:
    try:
        return Kind(kind).name
    except ValueError:
        return f"kind {kind}"


def _when(time_us: int) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_us // 1_000_000))
    return f"{stamp}.{time_us % 1_000_000 // 1000:03}"


def _printable(char: str) -> str:
    return char if char.isprintable() else "?"


def _text(data: bytes) -> str:
    """Bytes as C xenstore prints them: printable ASCII, the rest as \\xNN."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'\\"' else f"\\x{byte:02x}"
                   for byte in data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
