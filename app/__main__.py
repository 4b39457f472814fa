# SPDX-License-Identifier: Apache-2.0
"""python3 -m app: arguments, recovery, service, exit code."""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import os
import resource
import shutil
import sys
import time

from app.guests import Guests
from app.host import NoHost
from app.journal import Journal, Start, open_journal, space_for
from app.lastwords import LastWords
from app.quota import DEFAULTS
from app.serve import Server
from app.services import LEVELS, Console
from app.sockets import Listener, SocketError
from app.store import Store
from persist.intent import read_intent
from persist.recover import Outcome
from persist.region import RegionError, RegionFile, open_region
from ring.host import Host, HostError
from ring.sim import SimHost

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
HEAP_UNKNOWN = 1 << 50  # no limit is known
HEAP_OF_PROCESS = 80 << 20  # what Python and its modules take before the first node
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

EXAMPLES = """examples:
  python3 -m app                                   socket ./run/socket, region in /dev/shm
  python3 -m app --socket /run/xenstored/socket --region /dev/shm/xenstore.region
  python3 -m app --region-size 16M --quota nodes=5000 --quota watches=0
  python3 -m app --host linux --socket /run/xenstored/socket    in place of a Xen host's xenstored

A client finds the server by XENSTORED_PATH:
  XENSTORED_PATH=run/socket xenstore-ls -f

exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, 2 wrong arguments
"""


class UsageError(Exception):
    """A wrong argument; the text says which and why."""


def main(arguments: list[str]) -> int:
    """Run the server; returns the exit code."""
    if not __debug__:
        print("tardigrade: asserts must stay on: do not use python -O", file=sys.stderr)
        return EXIT_USAGE
    options = parse(arguments)
    console = Console(options.log_level)
    try:
        check_host(options.host)
        if not 0 < options.watchdog < 1e6:
            raise UsageError(f"--watchdog {options.watchdog:g}: expected seconds, more than 0")
        quotas = [parse_quota(text) for text in options.quota]
        size = parse_size(options.region_size) if options.region_size is not None else None
    except (ValueError, UsageError) as error:
        print(f"tardigrade: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        serve(options, quotas, size, console)
    except (RegionError, SocketError, HostError) as error:
        text = str(error)
        if isinstance(error, RegionError) and options.region and options.region not in text:
            text = f"{options.region}: {text}"
        print(f"tardigrade: {text}", file=sys.stderr)
        return EXIT_CANNOT_START
    return 0


def serve(options: argparse.Namespace, quotas: list[tuple[str, int]],
          size: int | None, console: Console) -> None:
    """Recover, listen, serve until a signal. Raises RegionError, SocketError or HostError."""
    socket_path = options.socket or default_socket()
    region_path = options.region or default_region(socket_path)
    raise_file_limit()
    gc.disable()
    listener = Listener(socket_path)  # first: clients of the last life wait here for us
    try:
        region = open_region(region_path, size)
        guests, last_words = None, LastWords(region_path + ".crash", options.watchdog)
        try:
            machine = make_machine(options.host)
            guests = Guests(machine) if machine is not None else None
            server = recover(region, listener, guests, quotas, console, last_words)
            console.info(f"listening on {os.path.abspath(socket_path)}")
            console.info(f"try: XENSTORED_PATH={os.path.abspath(socket_path)} xenstore-ls -f")
            server.run()
            last_words.close()
        except Exception as error:
            last_words.say(error)
            raise
        finally:
            if guests is not None:
                guests.machine.close()
            region.close()
    finally:
        listener.close()


def recover(region: RegionFile, listener: Listener, guests: Guests | None,
            quotas: list[tuple[str, int]], console: Console, last_words: LastWords) -> Server:
    """From the region's bytes, and the rings', to a server that is ready. Raises RegionError."""
    began_ns = time.perf_counter_ns()
    console.protected.add(region.identity())
    intent, cause = read_intent(region), last_words.of_last_life()
    if guests is not None:
        guests.take_own()  # before anything is written: a start that fails must cost nothing
    store = Store(space_for(region, heap_limit()), guests or NoHost(), console)
    journal, start = open_journal(region, store, clock_us, lambda: keep_damaged(region, console),
                                  cause or "", has_rings=guests is not None)
    server = Server(store, journal, listener, console, guests, last_words)
    server.resume(start, intent, cause)
    took_ms = (time.perf_counter_ns() - began_ns) / 1e6
    for name, value in quotas:
        if store.items.get(f"boot.{name}") != value:  # else it has been set, and perhaps changed
            store.items.put(f"boot.{name}", value)
            store.quotas.put(name, value)
    server.change(store.take_effects())
    tell(console, region, start, took_ms)
    console.reporter = lambda: report(journal)
    server.catch_signals()
    gc.collect()
    gc.freeze()
    return server


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m app", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A xenstore server that survives its own death.")
    parser.add_argument("--socket", metavar="PATH", help="where to listen (default: "
                        "$XENSTORED_PATH, else $XENSTORED_RUNDIR/socket, else ./run/socket)")
    parser.add_argument("--region", metavar="FILE", help="the persistent memory (default: a file "
                        "in /dev/shm named after the socket)")
    parser.add_argument("--region-size", metavar="SIZE",
                        help="of a new region: bytes, or with K, M, G (default 64M, at least 1M)")
    parser.add_argument("--host", metavar="HOST", default="none",
                        help="whose guests are served: none, linux (a Xen host's dom0), or "
                        "sim:DIR (a simulated Xen directory) (default %(default)s)")
    parser.add_argument("--quota", metavar="NAME=VALUE", action="append", default=[],
                        help="set a quota, 0 for no limit; one that was set at run time stays, "
                        f"unless the argument is another than at the last start; names: "
                        f"{' '.join(DEFAULTS)}")
    parser.add_argument("--watchdog", metavar="S", type=float, default=30,
                        help="seconds of its own running time after which a server that makes no "
                        "progress ends itself (default %(default)g)")
    parser.add_argument("--log-level", metavar="L", default="info", choices=LEVELS,
                        help=f"{', '.join(LEVELS)} (default %(default)s; debug logs requests)")
    return parser.parse_args(arguments)


def check_host(spec: str) -> None:
    """Raises UsageError for a --host that is none."""
    kind, _, directory = spec.partition(":")
    if spec in ("none", "linux"):
        return
    if kind != "sim" or not directory:
        raise UsageError(f"--host {spec}: expected none, linux or sim:DIR")
    if not os.path.isdir(directory):
        raise UsageError(f"--host {spec}: {directory} is no directory")


def make_machine(spec: str) -> Host | None:
    """The machine of a checked --host argument; None for none. Raises HostError."""
    if spec == "none":
        return None
    if spec == "linux":
        from ring.linux import LinuxHost  # only where it can work
        return LinuxHost()
    return SimHost(spec.partition(":")[2])


def parse_size(text: str) -> int:
    """A size such as 64M, in bytes. Raises UsageError."""
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not digits.isdecimal() or unit not in UNITS:
        raise UsageError(f"--region-size {text}: expected a number, or one with K, M or G")
    return int(digits) * UNITS[unit]


def parse_quota(text: str) -> tuple[str, int]:
    """A quota such as nodes=5000. Raises UsageError."""
    name, _, value = text.partition("=")
    if name not in DEFAULTS:
        raise UsageError(f"--quota {text}: no quota {name!r}; there are {' '.join(DEFAULTS)}")
    if not value.isdecimal() or int(value) > 0xFFFFFFFF:
        raise UsageError(f"--quota {text}: expected a number from 0 to 4294967295")
    return name, int(value)


def default_socket() -> str:
    """Where clients look for a xenstore server."""
    if os.environ.get("XENSTORED_PATH"):
        return os.environ["XENSTORED_PATH"]
    if os.environ.get("XENSTORED_RUNDIR"):
        return os.path.join(os.environ["XENSTORED_RUNDIR"], "socket")
    try:
        os.makedirs("run", exist_ok=True)
    except OSError as error:
        raise SocketError(f"run: cannot make the directory: {error.strerror}") from error
    return os.path.join("run", "socket")


def default_region(socket_path: str) -> str:
    """A file on tmpfs, another one for every socket path."""
    mark = hashlib.sha256(os.fsencode(os.path.abspath(socket_path))).hexdigest()[:8]
    return f"/dev/shm/tardigrade-{mark}.region"


def heap_limit() -> int:
    """How many bytes of nodes this process can hold: the least limit set for it."""
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdecimal():
            known.append(int(text))
    return max(min(known, default=HEAP_UNKNOWN) - HEAP_OF_PROCESS, 0)


def raise_file_limit() -> None:
    """One file descriptor per client: as many as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def clock_us() -> int:
    """Wall-clock time in microseconds since 1970, for the history."""
    return time.time_ns() // 1000


def keep_damaged(region: RegionFile, console: Console) -> None:
    """Copy the damaged region beside itself, for xsdump, before anything is written to it."""
    number = 1
    while os.path.exists(kept := f"{region.path}.damaged-{number}"):
        number += 1
    try:
        with open(region.path, "rb") as image, open(kept, "xb", opener=_private) as copy:
            shutil.copyfileobj(image, copy)
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
        console.error(f"the last life ended by: {start.cause.splitlines()[-1]}")
    for damage in start.damages:
        console.error(f"DAMAGED at log position {damage.position:#x}, {damage.size} bytes dropped: "
                      f"{damage.reason}")
    for note in start.notes:
        console.warn(note)


def report(journal: Journal) -> str:
    """The process's part of a memory report."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    log = journal.log
    return (f"max resident: {usage.ru_maxrss} KiB\nlog: {log.size} bytes, {log.free} free, "
            f"tail at {log.tail:#x}, start at {log.superblock.start:#x}\n"
            f"records: {log.sequence}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
