# SPDX-License-Identifier: Apache-2.0
"""python3 -m app: arguments, recovery, service, exit code."""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
from collections.abc import Callable

from app.boot import recover
from app.channel import Channel, PathError
from app.drill import Drill
from app.guests import Guests
from app.lastwords import LastWords
from app.limits import is_image, raise_file_limit
from app.quota import DEFAULTS
from app.services import LEVELS, Console
from app.snapshot import SnapshotError, take
from app.sockets import Listener, SocketError
from persist.region import RegionError, open_region
from ring.host import Host, HostError

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
CRASH_DEVICE = "/dev/crash"  # in the image, where the region is a device, too
DEVICES = {"region": "/dev/region", "snapshot": "/dev/snapshot", "channel": "/dev/channel"}
XEN_DEVICE = "/dev/xen/evtchn"
REFUSALS = (RegionError, SocketError, PathError, HostError, SnapshotError)
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
    except REFUSALS as error:
        text = str(error)
        if isinstance(error, RegionError) and options.region and options.region not in text:
            text = f"{options.region}: {text}"
        print(f"tardigrade: {text}", file=sys.stderr)
        return EXIT_CANNOT_START
    return 0


def serve(options: argparse.Namespace, quotas: list[tuple[str, int]],
          size: int | None, console: Console) -> None:
    """Recover, listen, serve until a signal. Raises RegionError, SocketError, PathError,
    HostError or SnapshotError."""
    make_machine = machine_of(options.host)
    gc.disable()
    if options.drill:
        console.drill = Drill()
    if options.snapshot is not None:  # every life in the image goes on from here
        console.debug(f"snapshot: {take(options.snapshot)}")
    socket_path = options.socket or (
        "" if options.channel or is_image() else default_socket())
    region_path = options.region or default_region(socket_path or options.channel)
    raise_file_limit()
    channel = Channel(options.channel, console) if options.channel else None
    # First: clients of the last life wait here for us.
    listener = Listener(socket_path) if socket_path else None
    try:
        region = open_region(region_path, size)
        guests, last_words = None, LastWords(
            options.crash_file or (CRASH_DEVICE if region.is_device else region_path + ".crash"),
            options.watchdog, region)
        try:
            machine = make_machine() if make_machine is not None else None
            guests = Guests(machine) if machine is not None else None
            server = recover(region, listener, channel, guests, quotas, console, last_words)
            if channel is not None:
                console.info(f"serving the clients of channel {channel.path}")
            if listener is not None:
                path = os.path.abspath(socket_path)
                console.info(f"listening on {path}")
                console.info(f"try: XENSTORED_PATH={path} xenstore-ls -f")
            server.run()
            last_words.close()
        except BaseException as error:
            if last_words.is_serving or not isinstance(error, REFUSALS):  # else it was no life
                last_words.say(error)
            raise
        finally:
            if guests is not None:
                guests.machine.close()
            region.close()
    finally:
        if listener is not None:
            listener.close()


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m app", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A xenstore server that survives its own death.")
    parser.add_argument("--socket", metavar="PATH", help="where to listen (default: "
                        "$XENSTORED_PATH, else $XENSTORED_RUNDIR/socket, else ./run/socket)")
    parser.add_argument("--channel", metavar="PATH", help="serve the clients of another machine "
                        "over this byte channel, a device or the unix socket of tools/xsmux; "
                        "--socket has no default then")
    parser.add_argument("--region", metavar="FILE", help="the persistent memory (default: a file "
                        "in /dev/shm named after the socket)")
    parser.add_argument("--region-size", metavar="SIZE",
                        help="of a new region: bytes, or with K, M, G (default 64M, at least 1M)")
    parser.add_argument("--host", metavar="HOST",
                        help="whose guests are served: none, linux (a Xen host's dom0), "
                        "linux:guests (the same, but not dom0's own ring, which is left to a "
                        "domain to come), sim:DIR (a simulated Xen directory), or unikraft (the "
                        "image of that name says so itself) (default none)")
    parser.add_argument("--quota", metavar="NAME=VALUE", action="append", default=[],
                        help="set a quota, 0 for no limit; one that was set at run time stays, "
                        f"unless the argument is another than at the last start; names: "
                        f"{' '.join(DEFAULTS)}")
    parser.add_argument("--watchdog", metavar="S", type=float, default=30,
                        help="seconds of its own running time after which a server that makes no "
                        "progress ends itself (default %(default)g)")
    parser.add_argument("--crash-file", metavar="FILE", help="where a life that ends says why "
                        f"(default: REGION.crash; {CRASH_DEVICE} if the region is a device)")
    parser.add_argument("--snapshot", metavar="DEVICE", help="the image's: every life begins from "
                        "the snapshot that reading this device takes")
    parser.add_argument("--drill", action="store_true", help="let CONTROL crash have every kind of "
                        "crash on purpose; xenstore-control crash lists them")
    parser.add_argument("--log-level", metavar="L", default="info", choices=LEVELS,
                        help=f"{', '.join(LEVELS)} (default %(default)s; debug logs requests)")
    options = parser.parse_args(arguments)
    if is_image():
        use_devices(options)
    return options


def use_devices(options: argparse.Namespace) -> None:
    """What was not said, as the image has it (image/README.md)."""
    for name, device in DEVICES.items():
        if getattr(options, name) is None and os.path.exists(device):
            setattr(options, name, device)
    if options.host is None and os.path.exists(XEN_DEVICE):
        options.host = "linux"  # the same interface


def check_host(spec: str | None) -> None:
    """Raises UsageError for a --host that is none."""
    if spec in (None, "none", "linux", "linux:guests", "unikraft"):
        return
    kind, _, directory = spec.partition(":")
    if kind != "sim" or not directory:
        raise UsageError(f"--host {spec}: expected none, linux, linux:guests, unikraft or sim:DIR")
    if not os.path.isdir(directory):
        raise UsageError(f"--host {spec}: {directory} is no directory")


def machine_of(spec: str | None) -> Callable[[], Host] | None:
    """What makes the machine of a checked --host argument, or raises HostError; None for none.
    An adapter is imported only where it can work."""
    kind, _, directory = (spec or "none").partition(":")
    try:
        if kind == "linux":
            from ring.linux import LinuxHost
            return lambda: LinuxHost(serves_dom0=directory != "guests")
        if kind == "sim":
            from ring.sim import SimHost
            return lambda: SimHost(directory)
        if kind == "unikraft":
            from ring.unikraft import host
            return host
    except ModuleNotFoundError as error:
        raise HostError(f"--host {spec}: not possible here: {error}") from error
    return None


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
