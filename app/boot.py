# SPDX-License-Identifier: Apache-2.0
"""The beginning of a life: from the region's bytes, and the rings', to a server that is ready.

E1. Nothing is written before it is known whose region it is; what is damaged is kept first.
E2. Whatever a start has found out is told in lines that people can read.
Knows nothing of arguments and of the turn."""

from __future__ import annotations

import contextlib
import gc
import os
import time

from app.channel import Channel
from app.guests import Guests
from app.host import NoHost
from app.journal import Journal, Start, open_journal, space_for
from app.lastwords import LastWords, telling
from app.limits import admitted, heap_limit, memory_used, owed_max
from app.serve import OWED_MAX, Server
from app.services import Console
from app.sockets import Listener
from app.store import Store
from persist.intent import read_intent
from persist.recover import Outcome
from persist.region import RegionFile

COPY_SIZE = 1 << 20


def recover(region: RegionFile, listener: Listener | None, channel: Channel | None,
            guests: Guests | None, quotas: list[tuple[str, int]], console: Console,
            last_words: LastWords) -> Server:
    """From the region's bytes, and the rings', to a server that is ready. Raises RegionError."""
    began_ns = time.perf_counter_ns()
    region.progress = last_words.alive
    console.protected.add(region.identity())
    if last_words.problem:
        console.warn(f"a death will be unexplained: {last_words.problem}")
    else:
        console.protected.add(last_words.identity())
    intent, cause = read_intent(region), last_words.of_last_life()
    if guests is not None:
        guests.take_own()  # before anything is written: a start that fails must cost nothing
    store = Store(space_for(region, heap_limit()), guests or NoHost(), console)
    journal, start = open_journal(region, store, clock_us, lambda: keep_damaged(region, console),
                                  last_words.text, has_rings=guests is not None)
    server = Server(store, journal, listener, console, guests, last_words, channel,
                    owed_max() or OWED_MAX)
    server.resume(start, intent, cause, began_ns)
    took_ms = (time.perf_counter_ns() - began_ns) / 1e6
    for name, value in quotas:
        if store.items.get(f"boot.{name}") != value:  # else it has been set, and perhaps changed
            store.items.put(f"boot.{name}", value)
            store.quotas.put(name, value)
    server.change(store.take_effects())
    tell(console, region, start, took_ms)
    console.info(admitted(store.space))
    console.reporter = lambda: report(journal)
    server.catch_signals()
    region.progress = None
    gc.collect()
    gc.freeze()
    return server


def clock_us() -> int:
    """Wall-clock time in microseconds since 1970, for the history."""
    return time.time_ns() // 1000


def keep_damaged(region: RegionFile, console: Console) -> None:
    """Copy the damaged region beside itself, for xsdump, before anything is written to it. There
    is nothing beside a device."""
    if region.is_device:
        console.error(f"{region.path}: the damaged region is not kept: there is no place for a "
                      "copy of a device")
        return
    number = 1
    while os.path.exists(kept := f"{region.path}.damaged-{number}"):
        number += 1
    try:
        with open(kept, "xb", opener=_private) as copy:
            for offset in range(0, region.size, COPY_SIZE):
                copy.write(region.read(offset, min(COPY_SIZE, region.size - offset)))
    except OSError as error:
        console.error(f"{kept}: the damaged region could not be kept: {error.strerror}")
        with contextlib.suppress(OSError):
            os.unlink(kept)
    else:
        console.error(f"the damaged region is kept as {kept}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def tell(console: Console, region: RegionFile, start: Start, took_ms: float) -> None:
    """Say how the server came to its state."""
    where = f"region {region.path}, {region.size / (1 << 20):g} MiB"
    if start.outcome is Outcome.FRESH:
        console.info(f"{where}: new")
    else:
        end = "a clean end" if start.ended_cleanly else "a crash"
        console.info(f"{where}: {start.outcome.value} after {end}; {start.nodes} nodes from "
                     f"{start.records} records in {took_ms:.1f} ms; this is life {start.life}")
    if start.cause:
        console.error(f"the last life ended by: {telling(start.cause)}")
    for damage in start.damages:
        console.error(f"DAMAGED at log position {damage.position:#x}, {damage.size} bytes dropped: "
                      f"{damage.reason}")
    for note in start.notes:
        console.warn(note)


def report(journal: Journal) -> str:
    """The process's part of a memory report."""
    log = journal.log
    return (f"{memory_used()}log: {log.size} bytes, {log.free} free, "
            f"tail at {log.tail:#x}, start at {log.superblock.start:#x}\n"
            f"records: {log.sequence}\n")
