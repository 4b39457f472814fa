# SPDX-License-Identifier: Apache-2.0
"""xsdump connections and watch: who is connected by rings, where the rings stand, what each has
open; and which watches there are. Sockets' connections end with the server and are not in it.

The log tells how a ring stood before its last turn was published; how much of that was published
only the ring's page knows."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NamedTuple

from app.domain import CONNECTED, LEAVING, RESETTING, Known
from app.effects import Item
from app.replay import FoundStream, Replay
from persist.region import Medium
from persist.slots import read_slots
from tools.dump import moment
from tools.dump.arguments import clean_path, number
from tools.dump.output import Output
from tools.dump.past import SERVER_TYPE, Change, Moved, Past, read_past
from tools.dump.text import effect_text, head, text, when

STATES = {RESETTING: "being reset", CONNECTED: "connected", LEAVING: "leaving"}


class Watching(NamedTuple):
    """A watch of a ring. `depth` None: all below the path. `hidden`: leading bytes of the path that
    its client did not name, and does not hear."""

    epoch: int
    ordinal: int
    path: bytes
    token: bytes
    depth: int | None
    hidden: int


def add_arguments(commands: Any) -> None:
    """The commands' part of the command line."""
    parser = commands.add_parser("connections", help="rings: where they stand, what they are owed, "
                                 "what they did last")
    parser.add_argument("-d", "--domain", metavar="DOMID", type=number)
    parser.set_defaults(command=show_connections)
    watch = commands.add_parser(
        "watch", help="the watches of rings, now or at a moment",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=moment.WORDS)
    watch.add_argument("path", metavar="PATH", nargs="?", type=clean_path,
                       help="only those that hear of a change of this path")
    watch.add_argument("-d", "--domain", metavar="DOMID", type=number)
    watch.add_argument("--at", metavar="MOMENT", default="end")
    watch.set_defaults(command=show_watches)


def domains_of(items: dict[str, Item]) -> dict[int, Known]:
    """The domains that the server knows, by domid."""
    found: dict[int, Known] = {}
    for key, value in items.items():
        kind, _, number = key.partition(".")
        if kind == "domain" and number.isdigit() and isinstance(value, tuple):
            found[int(number)] = Known(*value)  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def watches_of(items: dict[str, Item]) -> list[Watching]:
    """All watches of rings, in the order in which they hear."""
    found = []
    for key, value in items.items():
        if key.startswith("watch.") and isinstance(value, tuple):
            _, epoch, ordinal = key.split(".")
            path, token, hidden, depth = value
            assert isinstance(path, bytes) and isinstance(token, bytes)
            assert isinstance(depth, int) and isinstance(hidden, int)
            found.append(Watching(int(epoch), int(ordinal), path, token,
                                  None if depth < 0 else depth, hidden))
    return sorted(found, key=lambda one: one.ordinal)


# -- watch


def show_watches(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print them in the order in which they hear of a change."""
    past = moment.at(region, options.at)
    owners = {one.epoch: domid for domid, one in domains_of(past.state.items).items()}
    for one in watches_of(past.state.items):
        domid = owners.get(one.epoch, 0)
        if options.domain not in (None, domid) or (
                options.path is not None and not hears(one, options.path.encode())):
            continue
        depth = "" if one.depth is None else f" depth {one.depth}"
        out.say(f"dom{domid} conn {one.epoch} {text(one.path)} token {text(one.token)}{depth}",
                domid=domid, connection=one.epoch, path=one.path, token=one.token,
                depth=one.depth)
    return 0


def hears(one: Watching, path: bytes) -> bool:
    """Whether a watch is told when `path` changes."""
    if one.path.startswith(b"@") or path.startswith(b"@"):
        return one.path == path
    if one.path != b"/" and path != one.path and not path.startswith(one.path + b"/"):
        return False
    below = path.rstrip(b"/").count(b"/") - one.path.rstrip(b"/").count(b"/")
    return one.depth is None or below <= one.depth


# -- connections


def show_connections(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print each ring with what it has, and the last thing its domain has done."""
    past = read_past(region)
    replay = past.present
    assert replay is not None
    for slot in read_slots(region):
        replay.apply_slot(slot)
    last_change, last_moved = _last(past)
    watches = Counter(one.epoch for one in watches_of(replay.items))
    for domid, known in domains_of(replay.items).items():
        if options.domain in (None, domid):
            stream = replay.streams.get(known.epoch)
            _show_one(domid, known, stream, replay, watches[known.epoch], out)
            _show_last(domid, known, last_change.get(domid), last_moved.get(known.epoch), out)
    return 0


def _last(past: Past) -> tuple[dict[int, Change], dict[int, Moved]]:
    """By domid, the last change that it asked for; by epoch, when its ring last moved."""
    changes: dict[int, Change] = {}
    moved: dict[int, Moved] = {}
    for event in past.skim():
        if isinstance(event, Change) and event.type != SERVER_TYPE:
            changes[event.domid] = event
        elif isinstance(event, Moved):
            moved.update((one.epoch, event) for one in event.streams)
    return changes, moved


def _show_one(domid: int, known: Known, stream: FoundStream | None, replay: Replay, watches: int,
              out: Output) -> None:
    state = STATES.get(known.state, "never introduced") if known.epoch else "never introduced"
    prefix = f"tx.{known.epoch}."
    open_ids = sorted(int(key.split(".")[2]) for key in replay.items
                      if key.startswith(prefix) and key.count(".") == 2)
    fields: dict[str, Any] = {
        **known._asdict(), "domid": domid, "connection": known.epoch, "state": state,
        "watches": watches, "transactions": open_ids,
        "features": replay.items.get(f"domain.{domid}.features")}
    line = (f"dom{domid} conn {known.epoch}: {state}, identity {known.identity!r}, "
            f"gfn {known.gfn:#x}, port {known.port}")
    line += f", target dom{known.target}" if known.target >= 0 else ""
    line += f", MUTED with error {known.error}" if known.error else ""
    line += f"\n    {watches} watches, open transactions: {', '.join(map(str, open_ids)) or 'none'}"
    if stream is not None:
        owed = stream.end - stream.sent
        fields |= {"consumed": stream.after, "sent": stream.sent, "to_publish": owed,
                   "partial_request": len(stream.input)}
        line += (f"\n    requests consumed up to {stream.after}, replies and events published up "
                 f"to {stream.sent} before the turn recorded last, {owed} bytes to be published")
        if stream.input:
            line += f", {len(stream.input)} bytes of an incomplete request"
    out.say(line, **fields)


def _show_last(domid: int, known: Known, change: Change | None, moved: Moved | None,
               out: Output) -> None:
    if change is not None:
        said = ", ".join(effect_text(*effect) for effect in change.effects[:3])
        more = f" and {len(change.effects) - 3} more" if len(change.effects) > 3 else ""
        out.say(f"    last change: {head(change)} {said}{more}", domid=domid,
                last_change=change.sequence, time_us=change.time_us)
    if moved is not None:
        out.say(f"    last recorded move of the ring: {when(moved.time_us)} "
                f"(record {moved.sequence})", domid=domid, connection=known.epoch,
                last_moved=moved.sequence, time_us=moved.time_us)
