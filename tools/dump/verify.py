# SPDX-License-Identifier: Apache-2.0
"""xsdump verify: recompute what can be recomputed: every record's digest, every seal's git ids."""

from __future__ import annotations

import argparse
from typing import Any

from app.journal import SEAL_AUTHOR, seal_message
from app.path import ROOT
from app.seal import Sealer
from persist import oid
from persist.region import Medium
from tools.dump import moment
from tools.dump.changes import saved_text
from tools.dump.output import Output
from tools.dump.past import Carried, Change, Lost, Past, Sealed, read_past
from tools.dump.text import damage_text, text

EXIT_DIFFERS = 1


def add_arguments(commands: Any) -> None:
    """The command's part of the command line."""
    parser = commands.add_parser("verify", help="recompute the state's digests and git ids")
    parser.set_defaults(command=verify)


def verify(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Say OK, or where it differs."""
    past = read_past(region)
    found, replay = past.found, past.present
    assert found is not None and replay is not None
    problems = [damage_text(one.position, one.size, one.reason)
                for one in found.damages if one.position not in replay.acknowledged]
    if found.state is None:
        out.say("OK: a new region, nothing was recorded yet", ok=True, records=0)
        return 0
    digest = replay.compute_digest()
    if replay.digest is not None and digest != replay.digest:
        problems.append(f"state digest {digest:016x} instead of the recorded "
                        f"{replay.digest:016x} at sequence {found.state.sequence}")
    orphans = [path for path in replay.dirs if path not in replay.nodes]
    if orphans:
        problems.append(f"{len(orphans)} nodes are missing above others, the first is "
                        f"{text(min(orphans))}")
    checker = SealChecker(past)
    for event in past.walk():
        checker.look(event)
        if isinstance(event, Lost) and event.position < found.state.superblock.start and (
                event.position not in replay.acknowledged):
            problems.append(f"position {event.position:#x}, {event.size} bytes of old history do "
                            "not verify; the state does not rest on them")
    problems += [*past.problems, *checker.problems]
    for note in found.notes:
        out.say(f"note: {note}", note=note)
    for problem in problems:
        out.say(out.paint("red", f"DIFFERS: {problem}"), ok=False, problem=problem)
    if found.damages:
        saved = saved_text(moment.at(region, "end"))
        out.say(f"can be saved: {saved}", saved=saved)
    if problems:
        return EXIT_DIFFERS
    out.say(f"OK: {found.records} records, state digest {digest:016x}, {checker.verified} sealed "
            f"git trees recomputed, {checker.unknown} seals too old to be rebuilt", ok=True,
            records=found.records, digest=f"{digest:016x}", seals=checker.verified,
            seals_too_old=checker.unknown)
    return 0


class SealChecker:
    """Recomputes the git ids of every seal that the walk has the whole state for."""

    def __init__(self, past: Past) -> None:
        self.problems: list[str] = []
        self.verified = 0
        self.unknown = 0
        self._past = past
        self._sealer: Sealer | None = None  # none while the state is not whole
        self._commit: bytes | None = None

    def look(self, event: object) -> None:
        """Take an event of `past`'s walk in, while its state is there."""
        if isinstance(event, Lost):
            self._sealer = self._commit = None
        elif isinstance(event, (Change, Carried)) and self._sealer is not None:
            for one in event.differences:
                if isinstance(one.key, str):
                    self._sealer.mark_item(one.key)
                else:
                    self._sealer.mark(one.key)
        elif isinstance(event, Sealed):
            self._check(event)

    def _check(self, event: Sealed) -> None:
        mark = event.mark
        where = f"seal at sequence {mark.sequence}"
        expected = oid.commit_id(mark.tree, mark.parent or None, SEAL_AUTHOR, mark.time_s,
                                 seal_message(mark.sequence))
        if expected != mark.commit:
            self.problems.append(f"{where}: commit {mark.commit.hex()}, computed {expected.hex()}")
        if self._commit is not None and mark.parent != self._commit:
            self.problems.append(f"{where}: parent {mark.parent.hex()} is not the seal before it, "
                                 f"{self._commit.hex()}")
        self._commit = mark.commit
        if not self._past.is_whole:
            self.unknown += 1
            return
        if self._sealer is None:
            self._sealer = Sealer(self._past.state, self._past.state.nodes)
        while not self._sealer.is_clean:
            self._sealer.step(1 << 20)
        computed = self._sealer.oids.get(ROOT, bytes(oid.OID_SIZE))
        if computed != mark.tree:
            self.problems.append(f"{where}: git tree {computed.hex()} instead of the sealed "
                                 f"{mark.tree.hex()}")
        else:
            self.verified += 1
