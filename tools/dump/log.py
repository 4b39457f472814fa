# SPDX-License-Identifier: Apache-2.0
"""xsdump log and blame: what was done, by whom, when; and who has made a node what it is."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from app.lastwords import telling
from app.path import Path
from persist.history import Gap, follow
from persist.record import Record
from persist.region import Medium
from tools.dump import moment
from tools.dump.arguments import clean_path, number
from tools.dump.changes import (
    change_fields,
    concerns,
    effect_texts,
    head,
    node_fields,
    node_text,
    patch_texts,
)
from tools.dump.moment import Moment
from tools.dump.output import Output
from tools.dump.past import (
    SERVER_TYPE,
    Begun,
    Carried,
    Change,
    Ended,
    Event,
    Lost,
    Moved,
    Past,
    Sealed,
    read_past,
)
from tools.dump.text import damage_text, operation, text, when

LOG_EXAMPLES = """examples:
  xsdump REGION log -n 20                                   the last 20 changes
  xsdump REGION log -n 1 -d 7                               the last thing that domain 7 has done
  xsdump REGION log -p /local/domain/7/state                all that became of a key, by whom
  xsdump REGION log --since 5m --until crash:2              what led to a crash
  xsdump REGION log --json domain.7 | jq .differences       the server's own state, for programs

"""
BLAME_EXAMPLES = """examples:
  xsdump REGION blame /local/domain/7/device/vbd
  xsdump --json REGION blame / | jq -r 'select(.domid == 7).path'
"""


def add_arguments(commands: Any) -> None:
    """The commands' part of the command line."""
    log = commands.add_parser(
        "log", help="the changes, oldest first, and what ended lives",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=LOG_EXAMPLES + moment.WORDS)
    log.add_argument("paths", metavar="PATH", nargs="*", type=clean_path,
                     help="only changes at or below it; or an item, such as domain.7")
    log.add_argument("-n", metavar="N", type=number, dest="last", help="only the last N")
    log.add_argument("-d", "--domain", metavar="DOMID", type=number,
                     help="only what this domain has asked for")
    log.add_argument("--since", metavar="MOMENT", help="only what came behind it")
    log.add_argument("--until", metavar="MOMENT", help="only what came before it, and it")
    log.add_argument("-p", "--patch", action="store_true", help="with what was there before")
    log.add_argument("-a", "--all", action="store_true",
                     help="with carrying, seals, and rings that moved")
    log.add_argument("-f", "--follow", action="store_true",
                     help="go on with what a running server records")
    log.set_defaults(command=show_log)
    blame = commands.add_parser(
        "blame", help="who has made each node below PATH what it is", epilog=BLAME_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    blame.add_argument("path", metavar="PATH", nargs="?", default="/", type=clean_path)
    blame.set_defaults(command=show_blame)


# -- log


def show_log(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print what has happened."""
    past = _recent(region, options, out) or read_past(region)
    since = moment.find(past, options.since) if options.since else None
    until = moment.find(past, options.until) if options.until else moment.END
    if past.is_empty:
        out.note("nothing was recorded yet")
    elif options.last is None and since is None and past.first and not past.is_from_the_beginning:
        out.note(f"what came before record {past.first} was cleaned away")
    held = deque[Event](maxlen=options.last) if options.last is not None else None
    is_told = False

    def release() -> None:
        nonlocal held
        for event in held or ():
            show_event(event, options, out)
        held = None

    for event in past.walk(until, _appended(region, past, out, release) if options.follow else ()):
        if _is_wanted(event, options, since):
            is_told = True
            if held is None:
                show_event(event, options, out)
            else:
                held.append(event)
    release()
    if not is_told and not past.is_empty:
        out.note("nothing of that is remembered: requests that change nothing are not recorded")
    return 0


def _recent(region: Medium, options: argparse.Namespace, out: Output) -> Past | None:
    """The records that the present state rests on, if the last events are to be told, and can be
    from those alone: what was there before is not asked for. Else None."""
    if options.last is None or out.is_json or options.patch or options.all or options.follow or (
            options.paths or options.since or options.until):
        return None
    past = read_past(region, is_whole_history=False)
    assert past.found is not None
    count = sum(_is_wanted(event, options, None) for event in past.walk())
    return past if count >= options.last and not past.found.damages else None


def _appended(region: Medium, past: Past, out: Output,
              release: Callable[[], None]) -> Iterator[Record | Gap]:
    """What a server appends, without an end; what was read so far is released, and can be seen."""
    release()
    if past.found is None or past.found.state is None:
        return
    for one in follow(region, past.found.state.tail):
        if one is None:
            out.flush()
        else:
            yield one


def _is_wanted(event: Event, options: argparse.Namespace, since: Moment | None) -> bool:
    if isinstance(event, Change):
        return ((since is None or (event.sequence, event.step) > since)
                and (options.domain is None or (
                    event.domid == options.domain and event.type != SERVER_TYPE))
                and concerns(event.differences, options.paths))
    if since is not None and (event.after if isinstance(event, Lost) else event.sequence) <= (
            since.sequence):
        return False
    if isinstance(event, (Begun, Ended, Lost)):
        return not options.paths and options.domain is None
    if isinstance(event, Carried) and event.differences and concerns(
            event.differences, options.paths) and options.domain is None:
        return True
    return bool(options.all) and not options.paths and options.domain is None


def show_event(event: Event, options: argparse.Namespace, out: Output) -> None:
    """One event, in a line or a few."""
    if isinstance(event, Change):
        _show_change(event, options, out)
    elif isinstance(event, Begun):
        _show_begun(event, out)
    elif isinstance(event, Ended):
        out.say(out.paint("bold", f"{event.sequence:>8} life {event.life} ends on purpose"),
                event="ended", sequence=event.sequence, life=event.life)
    elif isinstance(event, Lost):
        out.say(out.paint("red", f"         position {event.position:#x}, {event.size} bytes: "
                                 "damaged, or reused before it was read"),
                event="lost", position=event.position, size=event.size, after=event.after)
    elif isinstance(event, Sealed):
        mark = event.mark
        out.say(out.paint("dim", f"{event.sequence:>8} {when(mark.time_s * 1_000_000)} seal of "
                                 f"{mark.sequence}: commit {mark.commit.hex()} tree "
                                 f"{mark.tree.hex()}"),
                event="sealed", sequence=event.sequence, of=mark.sequence, time_s=mark.time_s,
                commit=mark.commit.hex(), tree=mark.tree.hex())
    elif isinstance(event, Carried):
        out.say(out.paint("dim", f"{event.sequence:>8} {event.nodes} nodes, {event.items} items, "
                                 f"{len(event.streams)} connections' streams carried forward; "
                                 f"{len(event.differences)} were not known"),
                event="carried", sequence=event.sequence, nodes=event.nodes, items=event.items)
    else:
        _show_moved(event, out)


def _show_change(change: Change, options: argparse.Namespace, out: Output) -> None:
    lines = patch_texts(change.differences) if options.patch else effect_texts(change.effects)
    painted = [out.paint("red" if line.startswith(("- ", "rm ")) else
                         "green" if line.startswith("+ ") else "", line)
               if out.has_colour and line.startswith(("- ", "rm ", "+ ")) else line
               for line in lines]
    begin = out.paint("yellow", head(change))
    if len(lines) == 1:
        said = f"{begin} {painted[0]}"
    else:
        count = f" {len(lines)} changes" if not options.patch else ""
        said = "\n".join([begin + count, *(f"           {line}" for line in painted)])
    out.say(said, **change_fields(change))


def _show_begun(event: Begun, out: Output) -> None:
    life = event.life
    lines = [f"{event.sequence:>8} {when(life.time_us)} life {life.number} begins: {life.outcome}"
             + ("" if event.is_clean else ", after a crash")]
    if life.cause:
        lines.append(f"         the last one ended by: {telling(life.cause)}")
    lines += [f"         dropped: {damage_text(*one)}" for one in life.damages]
    out.say("\n".join(out.paint("bold", line) for line in lines), event="begun",
            sequence=event.sequence, time_us=life.time_us, life=life.number,
            outcome=life.outcome, is_clean=event.is_clean, cause=life.cause,
            damages=life.damages)


def _show_moved(event: Moved, out: Output) -> None:
    said = ", ".join(f"connection {one.epoch}: {one.after - one.before} bytes of requests, "
                     f"{len(one.data)} of replies and events" for one in event.streams)
    out.say(out.paint("dim", f"{event.sequence:>8} {when(event.time_us)} {said}"), event="moved",
            sequence=event.sequence, time_us=event.time_us,
            streams=[{"connection": one.epoch, "consumed": one.after, "sent": one.sent,
                      "data": one.data} for one in event.streams])


# -- blame


def show_blame(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print each node with the last change that made it what it is."""
    past = read_past(region)
    start = Path(options.path.encode())
    last = _last_changes(past, start)
    state = past.state_at_end()
    found = state.known_below(start)
    if not found:
        change = last.get(start)
        if change is None:
            out.say(f"{options.path}: there is no such node, and nothing is remembered of it")
            return 1
        out.say(f"{head(change)}: {options.path} was removed", path=options.path,
                **_blamed(change))
        return 0
    for path in found:
        node, change = state.nodes[path], last.get(path)
        begin = head(change) if change is not None else (
            f"{'before':>8} record {past.first}, cleaned away")
        out.say(f"{out.paint('yellow', f'{begin:<62}')} {node_text(path, node)}", path=text(path),
                node=node_fields(node), **_blamed(change))
    return 0


def _last_changes(past: Past, start: Path) -> dict[Path, Change]:
    """By path, what has changed each node from `start` down; that of `start` may be its removal."""
    last: dict[Path, Change] = {}
    below = start.rstrip(b"/") + b"/"
    is_there = any(path == start for path, _ in past.base())
    for event in past.skim():
        if not isinstance(event, Change):
            continue
        for path, node in event.effects:
            if isinstance(path, str):
                continue
            if node is None:
                if below.startswith(path.rstrip(b"/") + b"/"):  # it, or one above it
                    if is_there:
                        last[start] = event
                    is_there = False
            elif path == start or path.startswith(below):
                last[path] = event
                is_there = is_there or path == start
    return last


def _blamed(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {"sequence": None}
    return {"sequence": change.sequence, "step": change.step, "time_us": change.time_us,
            "domid": change.domid, "connection": change.conn_id, "pid": change.pid,
            "operation": operation(change.type)}
