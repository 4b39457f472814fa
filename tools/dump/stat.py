# SPDX-License-Identifier: Apache-2.0
"""xsdump stat: who has changed how much, what fills the log, how far back it reaches."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from persist import layout
from persist.history import Gap
from persist.region import Medium
from tools.dump.output import Output
from tools.dump.past import SERVER_TYPE, Change, kind_name, read_past
from tools.dump.text import operation, when


def add_arguments(commands: Any) -> None:
    """The command's part of the command line."""
    parser = commands.add_parser("stat", help="who has changed how much, what fills the log, how "
                                 "far back it reaches")
    parser.set_defaults(command=show_stat)


def show_stat(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print counts."""
    past = read_past(region)
    by_domain: Counter[str] = Counter()
    by_operation: Counter[str] = Counter()
    changes, first_us, last_us = 0, 0, 0
    for event in past.skim():
        if isinstance(event, Change):
            changes += 1
            first_us, last_us = first_us or event.time_us, event.time_us
            by_domain["server" if event.type == SERVER_TYPE else f"dom{event.domid}"] += 1
            by_operation[operation(event.type)] += 1
    size = layout.log_size(region.size)
    records: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for one in past.entries:
        kind = "damaged" if isinstance(one, Gap) else kind_name(one.kind)
        records[kind] += 1
        used[kind] += one.size
    state = past.found.state if past.found is not None else None
    window = state.tail - state.superblock.start if state is not None else 0
    out.say(f"log        {size} bytes; {window} hold the present ({100 * window / size:.1f} %), "
            f"{sum(used.values())} are remembered ({100 * sum(used.values()) / size:.1f} %)",
            log=size, window=window, remembered=sum(used.values()))
    span_s = (last_us - first_us) / 1e6
    out.say(f"history    {changes} changes from {when(first_us) if changes else '-'} to "
            f"{when(last_us) if changes else '-'}"
            + (f", {changes / span_s:.1f} per second" if span_s > 0 else "")
            + ("; nothing was recorded yet" if past.is_empty else
               "; from the beginning" if past.is_from_the_beginning else
               f"; what came before record {past.first} was cleaned away"),
            changes=changes, first_us=first_us, last_us=last_us, first_record=past.first)
    for kind, count in records.most_common():
        out.say(f"records    {count:>9} {kind:<8} {used[kind]:>12} bytes", kind=kind,
                records=count, bytes=used[kind])
    for name, count in by_operation.most_common():
        out.say(f"operation  {count:>9} {name}", operation=name, changes=count)
    for name, count in by_domain.most_common():
        out.say(f"asked by   {count:>9} {name}", asked_by=name, changes=count)
    nodes = past.present.nodes.values() if past.present is not None else ()
    owners = Counter(node.perms.owner for node in nodes)
    for domid, count in owners.most_common():
        out.say(f"owned by   {count:>9} nodes dom{domid}", owner=domid, nodes=count)
    return 0
