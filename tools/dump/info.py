# SPDX-License-Identifier: Apache-2.0
"""xsdump info: what the region holds, and how it ended."""

from __future__ import annotations

import argparse
from typing import Any

from app.effects import Item
from app.lastwords import telling
from app.replay import Replay
from persist import layout
from persist.crash import read_crash_slot
from persist.recover import Recovery, newest_tail_cell
from persist.region import Medium
from tools.dump import moment
from tools.dump.changes import saved_text
from tools.dump.ending import last_words
from tools.dump.output import Output
from tools.dump.past import read_past
from tools.dump.text import damage_text, printable, request_words, when


def add_arguments(commands: Any) -> None:
    """The command's part of the command line."""
    parser = commands.add_parser("info", help="what the region holds and how it ended")
    parser.set_defaults(command=show_info)


def show_info(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print it, field by field."""
    past = read_past(region, is_whole_history=False)
    found, replay = past.found, past.present
    assert found is not None and replay is not None
    _say(out, "format version", layout.VERSION)
    _say(out, "region", f"{region.size} bytes, log {layout.log_size(region.size)} bytes")
    said = telling(last_words(region))
    _say(out, "outcome", found.outcome.value + (
        "" if found.state is None else ", ended on purpose" if replay.ended_cleanly
        else f", crashed: {printable(said)}" if said else ", running or crashed"))
    _show_crash_slot(region, out)
    if found.state is None:
        return 0
    _show_log(region, found, dict(past.kinds.most_common()), out)
    _show_state(replay, out)
    for damage in found.damages:
        _say(out, "DAMAGE", damage_text(damage.position, damage.size, damage.reason))
    for note in found.notes:
        _say(out, "note", note)
    if found.damages:
        _say(out, "can be saved", saved_text(moment.at(region, "end")))
    return 0


def _say(out: Output, name: str, value: object) -> None:
    out.say(f"{name:<15} {value}", name=name, value=value)


def _show_crash_slot(region: Medium, out: Output) -> None:
    """What a kernel has written of the last life's end, if there is a kernel."""
    slot = read_crash_slot(region)
    if slot is None:
        return
    if slot.is_torn:
        _say(out, "crash slot", "torn: it does not verify")
        return
    _say(out, "crash slot", f"written {when(slot.time_us)} in restart {slot.restart}: "
                            f"{telling(slot.text) or 'nothing is said'}")
    for line in slot.text.splitlines():
        out.say(f"                | {printable(line)}", name="crash slot line", value=line)


def _show_log(region: Medium, found: Recovery, kinds: dict[str, int], out: Output) -> None:
    assert found.state is not None
    state = found.state
    cell = newest_tail_cell(region)
    _say(out, "superblock", f"epoch {state.superblock.epoch}, replay from position "
                            f"{state.superblock.start:#x}, "
                            f"sequence {state.superblock.start_sequence}")
    _say(out, "tail", f"position {state.tail:#x}, sequence {state.sequence}, "
         + (f"tail cell names sequence {cell.sequence}" if cell else "no valid tail cell"))
    _say(out, "window", f"{state.tail - state.superblock.start} bytes, {found.records} records: "
         + ", ".join(f"{count} {name}" for name, count in kinds.items()))


def _show_state(replay: Replay, out: Output) -> None:
    life = replay.life
    if life is not None:
        _say(out, "life", f"{life.number}, started {when(life.time_us)} after: {life.outcome}")
        if life.cause:
            _say(out, "last death", telling(life.cause))
    elif isinstance(number := replay.items.get("next.life"), int):
        _say(out, "life", f"{number - 1}, started before what the present state rests on (crashes "
                          "tells of it)")
    digest = replay.compute_digest()
    agrees = "of nothing" if replay.digest is None else (
        "agrees" if digest == replay.digest else "DIFFERS from the recorded one")
    _say(out, "state", f"{len(replay.nodes)} nodes, {len(replay.items)} items, "
                       f"digest {digest:016x} {agrees}")
    if replay.sealed is not None:
        mark = replay.sealed.mark
        _say(out, "last seal", f"sequence {mark.sequence}, commit {mark.commit.hex()}, "
                               f"tree {mark.tree.hex()}")
    for poison in sorted(value for key, value in replay.items.items()
                         if key.startswith("poison.") and isinstance(value, tuple)):
        _say(out, "poison", _describe_poison(poison))
    for key, value in sorted(replay.items.items()):
        if key.startswith("suspect."):
            _say(out, "suspect", f"{key.removeprefix('suspect.')}: {value!r}")


def _describe_poison(poison: tuple[Item, ...]) -> str:
    number, domid, epoch, position, type_, payload = poison
    assert isinstance(type_, int) and isinstance(payload, bytes)
    where = f"connection {epoch!r} at {position!r}" if epoch else "a socket"
    return (f"{number!r}: dom{domid!r}, {where}, {request_words(type_, payload)} has "
            "ended lives, and was answered EIO")
