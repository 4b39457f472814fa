# SPDX-License-Identifier: Apache-2.0
"""xsdump restore: the state of a moment, as a fresh region or as a migration stream.

T1. Exit code 0 says that the file has all that there was at the moment; else each thing that is
    missing is named, as far as that can be known.
Knows nothing of how either is written (fresh.py, stream.py)."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any, NamedTuple

from app.domain import Known
from app.path import Path
from persist.history import Gap
from persist.region import Medium, RegionError, open_region
from tools.dump import arguments, fresh, moment, stream
from tools.dump.fresh import TooLargeError
from tools.dump.items import domains_of, watches_of
from tools.dump.outfile import OutputError, create, new_file
from tools.dump.output import Output
from tools.dump.past import Past
from tools.dump.state import State
from tools.dump.stream import Receiver
from tools.dump.text import damage_text, text

EXIT_INCOMPLETE = 1
NAMED_MAX = 10  # lost parents that are named one by one

EPILOG = f"""examples:
  xsdump REGION.damaged-1 restore new.region            all that can be saved
  xsdump REGION restore --at crash:3 --size 16M new.region && python3 -m app --region new.region
  xsdump REGION restore --stream state_dump             for C xenstored 4.17, started with -U

A region gets nodes, quotas, permissions of special nodes, and what domains are known; the numbers
that were given out stay so. Connections (rings, watches, transactions) are left out: rings have
gone on since, so domains are to be introduced again. To go on with them, start the server from the
region itself, or a copy of it (cp).

A stream gets nodes, connections of rings and their watches; version 2 also quotas and features.
Open transactions are left out, as at a live update; so is what a ring was owed. --descriptors and
--port say what only the process that reads it knows.

{moment.WORDS}"""


class Restorable(NamedTuple):
    """A state to be restored: `sequence` is the record that it is behind. `problems`: what is
    missing, if anything is."""

    past: Past
    sequence: int
    problems: list[str]

    @property
    def state(self) -> State:
        """The state itself."""
        return self.past.state


def add_arguments(commands: Any) -> None:
    """The command's part of the command line."""
    parser = commands.add_parser(
        "restore", help="write the state, now or at a moment, into a fresh region, or as a "
        "migration stream for C xenstored",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG)
    parser.add_argument("file", metavar="FILE", help="what is made; there when it is whole")
    parser.add_argument("--at", metavar="MOMENT", default="end")
    parser.add_argument("--size", metavar="SIZE", type=arguments.size, help="of the region: "
                        "bytes, or with K, M, G (default: as the source's)")
    parser.add_argument("--force", action="store_true", help="replace FILE, if it is there")
    parser.add_argument("--stream", action="store_true", help="a migration stream, no region")
    parser.add_argument("--stream-version", metavar="N", type=int, choices=stream.VERSIONS,
                        default=1, help="1 for Xen 4.17 to 4.20 (default), 2 from 4.21 on")
    parser.add_argument("--descriptors", metavar="SOCKET,EVTCHN", type=_descriptors,
                        default=(stream.NO_DESCRIPTOR, stream.NO_DESCRIPTOR),
                        help="of the process that reads the stream (default: none, -1,-1)")
    parser.add_argument("--port", metavar="DOMID=PORT", type=_port, action="append", default=[],
                        help="its own event channel port for a domain (default: the port that "
                        "INTRODUCE named, which is the domain's)")
    parser.set_defaults(command=restore)


def _descriptors(word: str) -> tuple[int, int]:
    return arguments.pair(word, ",", "SOCKET,EVTCHN")


def _port(word: str) -> tuple[int, int]:
    return arguments.pair(word, "=", "DOMID=PORT")


def restore(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Make the file; say what is in it, and what is not."""
    found = find(region, options.at)
    if found is None:
        out.say("there is no record, so there is nothing to restore", problem="no record")
        return EXIT_INCOMPLETE
    made = fresh.mend(found.state)
    with new_file(options.file, options.source, options.force) as place:
        if options.stream:
            said = _write_stream(region, found, place, options)
        else:
            said = _write_region(region, found, place, options)
    out.say(f"{options.file}: {said[0]} with the state behind record {found.sequence}: "
            f"{len(found.state.nodes)} nodes", file=options.file, sequence=found.sequence,
            nodes=len(found.state.nodes), bytes=said[1])
    for line in said[2:]:
        out.say(line, note=line)
    problems = found.problems + _made(made)
    for problem in problems:
        out.say(out.paint("red", f"INCOMPLETE: {problem}"), problem=problem)
    return EXIT_INCOMPLETE if problems else 0


def find(region: Medium, word: str) -> Restorable | None:
    """The state at a moment; None if there is no record. Raises RegionError and MomentError."""
    past = moment.at(region, word)
    if not past.first:
        return None
    assert past.found is not None
    problems = []
    if not past.is_whole:  # else the digest proves that damage has taken nothing that counts
        damages = {one.position: damage_text(one.position, one.size, one.reason)
                   for one in past.found.damages}
        for one in past.entries:
            if isinstance(one, Gap):
                damages.setdefault(one.position, damage_text(one.position, one.size,
                                                             "old history does not verify"))
        problems = [*damages.values(), "the digest does not prove that all is here: a part of what "
                    "this state rests on was cleaned away, or is damaged"]
    return Restorable(past, past.sequence, problems)


def _made(made: list[Path]) -> list[str]:
    """The nodes that had to be made anew."""
    said = [f"{text(path)} is lost, but for what is below it: made anew, for domain 0 only"
            for path in made[:NAMED_MAX]]
    return said + ([f"and {len(made) - NAMED_MAX} more"] if len(made) > NAMED_MAX else [])


def _write_region(region: Medium, found: Restorable, place: str,
                  options: argparse.Namespace) -> tuple[Any, ...]:
    present = found.past.present
    assert present is not None
    new = fresh.prepare(found.state, present.items, present.generation, found.past.last_life)
    try:
        medium = open_region(place, options.size or region.size)
        try:
            fresh.write(medium, new, f"restored from record {found.sequence} of {options.source}",
                        time.time_ns() // 1000)
        finally:
            medium.close()
    except RegionError as error:
        raise OutputError(str(error).replace(place, options.file)) from error
    except TooLargeError as error:
        raise OutputError(f"{options.file}: {error}; --size says how large") from error
    return ("a region", medium.size, *_left_out(new.left_out))


def _left_out(kinds: Counter[str]) -> list[str]:
    names = {"connection": "connections", "watch": "watches", "tx": "transactions",
             "suspect": "suspects", "poison": "poison requests"}
    counts = [f"{kinds[kind]} {name}" for kind, name in names.items() if kinds[kind]]
    return [f"left out: {', '.join(counts)}; domains are to be introduced again"] if counts else []


def _write_stream(region: Medium, found: Restorable, place: str,
                  options: argparse.Namespace) -> tuple[Any, ...]:
    socket, event_channels = options.descriptors
    receiver = Receiver(options.stream_version, socket, event_channels, dict(options.port))
    inputs: dict[int, bytes] = {}
    replay = found.past.present
    assert replay is not None and found.past.found is not None
    state = found.past.found.state
    if state is not None and found.sequence == state.sequence:
        inputs = {epoch: one.input for epoch, one in replay.streams.items()}
    data = stream.encode(found.state, inputs, receiver)
    with create(place) as file:
        file.write(data)
    return (f"a migration stream, version {receiver.version},", len(data),
            *_not_in_stream(found.state, receiver))


def _not_in_stream(state: State, receiver: Receiver) -> list[str]:
    rings = stream.rings_of(state.items)
    epochs = {one.epoch for one in rings.values()}
    watches = [one for one in watches_of(state.items) if one.epoch in epochs]
    said = [f"{len(rings)} connections of rings, {len(watches)} watches; what they were owed is "
            "left out: only their pages know"]
    muted = [domid for domid, one in domains_of(state.items).items() if _is_muted(one)]
    if muted:
        said.append("left out, since they are ignored or being removed: "
                    + ", ".join(f"dom{domid}" for domid in muted))
    transactions = sum(key.startswith("tx.") and key.count(".") == 2 for key in state.items)
    if transactions:
        said.append(f"left out: {transactions} open transactions, as at a live update")
    if receiver.version == 1:
        deep = sum(one.depth is not None for one in watches)
        quotas = sum(key.startswith("quota.") for key in state.items)
        if deep:
            said.append(f"{deep} watches hear all below their paths: version 1 knows no depth")
        if quotas:
            said.append(f"left out: {quotas} quotas that were set: version 1 knows none")
    if rings.keys() - receiver.ports.keys():
        said.append("event channels are named by the domains' own ports, but for those of --port")
    return said


def _is_muted(one: Known) -> bool:
    return one.epoch != 0 and not stream.is_served(one)
