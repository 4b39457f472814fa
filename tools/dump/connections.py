# SPDX-License-Identifier: Apache-2.0
"""xsdump connections and watch: who is connected by rings, where the rings stand, what each has
open; and which watches there are. Sockets' connections end with the server and are not in it.

The log tells how a ring stood before its last turn was published; how much of that was published
only the ring's page knows."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Collection
from typing import Any

from app import wire
from app.domain import Known
from app.effects import Item
from app.replay import FoundStream
from persist.region import Medium
from tools.dump import moment
from tools.dump.arguments import clean_path, number
from tools.dump.changes import effect_texts, head
from tools.dump.items import (
    Watching,
    domain_words,
    domains_of,
    state_word,
    transactions_of,
    watch_words,
    watches_of,
)
from tools.dump.output import Output
from tools.dump.past import SERVER_TYPE, Change, Moved, Past, read_past
from tools.dump.text import when

EFFECTS_SHOWN = 3  # of a last change


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


# -- watch


def show_watches(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print them in the order in which they hear of a change."""
    past = moment.at(region, options.at)
    owners = {one.epoch: domid for domid, one in domains_of(past.state.items).items()}
    shown = [(domid, one) for one in watches_of(past.state.items)
             if options.domain in (None, domid := owners.get(one.epoch, 0))
             and (options.path is None or hears(one, options.path.encode()))]
    for domid, one in shown:
        out.say(f"dom{domid} conn {one.epoch} {watch_words(one)}", domid=domid,
                connection=one.epoch, path=one.path, token=one.token, depth=one.depth)
    if not shown:
        out.note("no ring has such a watch; those of sockets are not recorded")
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
    latest = Latest(past)
    watches = Counter(one.epoch for one in watches_of(replay.items))
    transactions = transactions_of(replay.items)
    shown = {domid: known for domid, known in domains_of(replay.items).items()
             if options.domain in (None, domid)}
    for domid, known in shown.items():
        opened = {tx_id: requests for (epoch, tx_id), requests in transactions.items()
                  if epoch == known.epoch}
        _show_one(domid, known, replay.streams.get(known.epoch), watches[known.epoch], opened,
                  replay.items.get(f"domain.{domid}.features"), out)
        for tx_id, requests in opened.items():
            _show_transaction(domid, known, tx_id, requests, latest, out)
        _show_last(domid, known, latest, out)
    if not shown:
        out.note("no domain is known" if options.domain is None else
                 f"domain {options.domain} is not known")
    return 0


class Latest:
    """Of a past: by domid, the last change that it asked for; by epoch, when its ring last moved;
    and what began each transaction."""

    def __init__(self, past: Past) -> None:
        self.changes: dict[int, Change] = {}
        self.moved: dict[int, Moved] = {}
        self.begun: dict[str, Change] = {}
        for event in past.skim():
            if isinstance(event, Change) and event.type != SERVER_TYPE:
                self.changes[event.domid] = event
                if event.type == wire.XS_TRANSACTION_START:
                    self.begun.update((key, event) for key, _ in event.effects)
            elif isinstance(event, Moved):
                self.moved.update((one.epoch, event) for one in event.streams)


def _show_one(domid: int, known: Known, stream: FoundStream | None, watches: int,
              opened: Collection[int], features: Item, out: Output) -> None:
    fields: dict[str, Any] = {
        **known._asdict(), "domid": domid, "connection": known.epoch, "state": state_word(known),
        "watches": watches, "transactions": sorted(opened), "features": features}
    line = f"dom{domid} conn {known.epoch}: {domain_words(known)}"
    line += f"\n    {watches} watches, open transactions: {', '.join(map(str, opened)) or 'none'}"
    if stream is not None:
        owed = stream.end - stream.sent
        fields |= {"consumed": stream.after, "sent": stream.sent, "to_publish": owed,
                   "partial_request": len(stream.input)}
        line += (f"\n    requests consumed up to {stream.after}, replies and events published up "
                 f"to {stream.sent} before the turn recorded last, {owed} bytes to be published")
        if stream.input:
            line += f", {len(stream.input)} bytes of an incomplete request"
    out.say(line, **fields)


def _show_transaction(domid: int, known: Known, tx_id: int, requests: list[str], latest: Latest,
                      out: Output) -> None:
    begun = latest.begun.get(f"tx.{known.epoch}.{tx_id}")
    since = (f"begun {when(begun.time_us)} (record {begun.sequence})" if begun is not None
             else "begun before the history")
    out.say("\n        ".join([f"    transaction {tx_id}, {since}", *requests]), domid=domid,
            connection=known.epoch, transaction=tx_id, requests=requests,
            begun=begun and begun.sequence, time_us=begun and begun.time_us)


def _show_last(domid: int, known: Known, latest: Latest, out: Output) -> None:
    change, moved = latest.changes.get(domid), latest.moved.get(known.epoch)
    if change is not None:
        said = effect_texts(change.effects)
        more = f" and {len(said) - EFFECTS_SHOWN} more" if len(said) > EFFECTS_SHOWN else ""
        out.say(f"    last change: {head(change).lstrip()} {', '.join(said[:EFFECTS_SHOWN])}{more}",
                domid=domid, last_change=change.sequence, time_us=change.time_us)
    if moved is not None:
        out.say(f"    last recorded move of the ring: {when(moved.time_us)} "
                f"(record {moved.sequence})", domid=domid, connection=known.epoch,
                last_moved=moved.sequence, time_us=moved.time_us)
