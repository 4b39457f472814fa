# SPDX-License-Identifier: Apache-2.0
"""xsboot: the image as a Xen host's xenstore domain, looked after from dom0.

All state lives in the region. So moving the state is moving the region: a domain whose region is
filled before it runs goes on from there as after any crash. Whatever is done here rests on that.
Works with root's rights, in dom0, and with the libraries of one Xen version (tools/boot/libxen.py).
The work is done in tools/boot/; here are the words."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tools.boot import build, dom0, frames, handover, region, rescue, urgency
from tools.boot.failure import BootError
from tools.boot.libxen import Domain, Xen
from tools.boot.place import Place, parse_place, place_of_image
from tools.boot.rescue import Image
from tools.boot.watch import Watcher

EXIT_FAILED = 1
EXIT_USAGE = 2
IMAGE = Path(__file__).resolve().parent.parent / "build" / "image"
SOCKET = "/run/xenstored/socket"
SAVED = "/dev/shm/xenstore-rescue.region"

EXAMPLES = """examples:
  tools/xsboot read 1 /tmp/region                 the region of domain 1, running or dead
  tools/xsdump /tmp/region verify
  tools/xsdump domain:1 log --follow              the same, beside the running domain
  tools/xsboot core 1 /tmp/core                   its whole memory, for xsdump and debuggers
  tools/xsboot watch --param "$XENSTORE_DOMAIN_PARAM"
                                                  stay, and rescue the xenstore domain if it ends
  tools/xsboot rescue                             once, now
  tools/xsboot rescue --from /tmp/region --domid 1 --memory 64
                                                  the domain is gone, but there is a region
  tools/xsboot write 7 /tmp/region                into a domain made by xl create -p
  tools/xsboot handover xenstore.cfg --pid 123 --region-file /dev/shm/xenstore.region
                                                  from the daemon to a domain made by xl
  tools/xsboot watch --domid 7 --param "log=info" look after that one

exit codes: 0 done, 1 could not be done, 2 wrong arguments
"""


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    options = parse(arguments)
    try:
        options.command(options)
    except BootError as error:
        print(f"xsboot: {error}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 0
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="xsboot", description="Look after the xenstore domain from dom0, without xenstore.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add: Callable[..., argparse.ArgumentParser] = commands.add_parser
    read = add("read", help="copy the region out of a domain, running or dead")
    write = add("write", help="put a region into a domain that has not run yet")
    for command, function in ((read, read_region), (write, write_region)):
        command.add_argument("domid", metavar="DOMID", type=domid_of)
        command.add_argument("file", metavar="FILE")
        command.add_argument("--region", metavar="SIZE@ADDRESS", type=place_of, default=Place(),
                             help="where it is in the domain (default 16M@16M); or the path of "
                             "its kernel, if that is Unikraft's")
        command.set_defaults(command=function)
    core = add("core", help="write a domain's whole memory as a core dump, running or dead")
    core.add_argument("domid", metavar="DOMID", type=domid_of)
    core.add_argument("file", metavar="FILE")
    core.set_defaults(command=dump_core)
    once = add("rescue", help="have another domain go on in the place of one that has ended")
    once.add_argument("--from", metavar="FILE", dest="source", help="go on with this region, "
                      "whatever is in the domain; needs --domid and --memory if it is gone")
    once.add_argument("--pv", action="store_true", help="what is gone was a PV domain")
    once.set_defaults(command=rescue_once)
    watch = add("watch", help="stay, and rescue the domain whenever it ends")
    watch.set_defaults(command=watch_always)
    for command in (once, watch):
        add_image(command)
    over = add("handover", help="have a domain that xl makes go on in the daemon's place")
    over.add_argument("config", metavar="CONFIG", help="for xl create: our kernel and ramdisk, "
                      "and cmdline = \"--event find ...\"")
    over.add_argument("--pid", metavar="PID", type=int, required=True, help="the daemon; nothing "
                      "else may start it again")
    over.add_argument("--socket", metavar="PATH", default=SOCKET, help="default %(default)s")
    over.add_argument("--region-file", metavar="FILE", required=True, help="the daemon's")
    over.set_defaults(command=hand_over)
    back = add("back", help="end the domain, with its region in a file for a daemon")
    back.add_argument("domid", metavar="DOMID", type=domid_of)
    back.add_argument("file", metavar="FILE")
    back.add_argument("--region", metavar="SIZE@ADDRESS", type=place_of, default=Place())
    back.set_defaults(command=take_back)
    return parser.parse_args(arguments)


def add_image(command: argparse.ArgumentParser) -> None:
    """What a new domain is made of. The names are init-xenstore-domain's."""
    command.add_argument("--domid", metavar="N", type=domid_of,
                         help="the xenstore domain (default: the one with the privilege)")
    command.add_argument("--kernel", metavar="FILE", help="default: kernel.elf for a PVH domain, "
                         "kernel-pv.elf for a PV domain")
    command.add_argument("--ramdisk", metavar="FILE", default=str(IMAGE / "initrd.cpio"))
    command.add_argument("--memory", metavar="MIB", type=int,
                         help="default: as much as the dead domain has")
    command.add_argument("--param", metavar="WORDS", default="",
                         help="the kernel's and the server's, as init-xenstore-domain was given")
    command.add_argument("--saved", metavar="FILE", default=SAVED, help="where the region is while "
                         "a rescue is under way (default %(default)s)")


def domid_of(text: str) -> int:
    """A domain's number."""
    if not text.isdecimal() or not 0 < int(text) < 0x7FF0:
        raise argparse.ArgumentTypeError(f"expected a domain's number, not {text!r}")
    return int(text)


def place_of(text: str) -> Place:
    """SIZE@ADDRESS."""
    try:
        return parse_place(text)
    except BootError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tell(text: str) -> None:
    """One line for the log."""
    print(f"xsboot: {text}", flush=True)


# -- commands


def read_region(options: argparse.Namespace) -> None:
    """Copy a region out."""
    numbers = frames.of_domid(options.domid, options.region)
    data = region.take(options.domid, options.region, numbers)
    region.save(options.file, data)
    tell(f"{options.file}: {len(data)} bytes of domain {options.domid}: {region.describe(data)}")


def write_region(options: argparse.Namespace) -> None:
    """Put a region in."""
    data = region.load(options.file)
    xen = Xen()
    domain = xen.domain(options.domid)
    if domain is None:
        raise BootError(f"there is no domain {options.domid}")
    if not domain.is_paused or domain.has_run:
        raise BootError(f"domain {options.domid} has run already: only one that has not, made by "
                        "xl create -p, takes a region")
    region.put(options.domid, options.region, data, frames.of_new(xen, options.domid))
    tell(f"domain {options.domid} has the region {options.file}: {region.describe(data)}")


def dump_core(options: argparse.Namespace) -> None:
    """What `xl dump-core` does, which cannot be used when the domain that serves it is dead."""
    unfinished = options.file + region.UNFINISHED
    try:
        Xen().dump_core(options.domid, unfinished)
        os.replace(unfinished, options.file)
    except OSError as error:
        raise BootError(f"{options.file}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
    tell(f"{options.file}: {os.path.getsize(options.file)} bytes, the memory of domain "
         f"{options.domid}")


def image_of(options: argparse.Namespace) -> Image:
    """What a new domain is made of."""
    return Image(options.kernel, options.ramdisk, options.param,
                 place_of_image(options.kernel, options.param), options.memory)


def domain_of(xen: Xen, options: argparse.Namespace) -> Domain | None:
    """The xenstore domain; None: it is gone."""
    if options.domid is not None:
        return xen.domain(options.domid)
    return xen.xenstore_domain()


def rescue_once(options: argparse.Namespace) -> None:
    """Now, whatever comes later."""
    xen, image = Xen(), image_of(options)
    with rescue.alone(options.saved):
        domain = domain_of(xen, options)
        if domain is not None and not domain.has_ended and not domain.is_dying:
            raise BootError(f"domain {domain.domid} runs; only one that has ended is rescued")
        remains = rescue.interrupted(xen, options.saved) if options.source is None else None
        if remains is None:
            remains = rescue.gather_from(options.source, domain, image, options.domid, options.pv,
                                         options.saved)
        rescue.revive(xen, remains, build.load(remains.plan), None, tell)
        rescue.forget(options.saved)


def watch_always(options: argparse.Namespace) -> None:
    """Until the domain is destroyed by somebody else, or a signal comes."""
    xen, image = Xen(), image_of(options)
    with rescue.alone(options.saved):
        watcher_of(xen, image, options).run()


def watcher_of(xen: Xen, image: Image, options: argparse.Namespace) -> Watcher:
    """A watcher that has all it needs. Raises BootError."""
    domain = domain_of(xen, options)
    remains = rescue.interrupted(xen, options.saved)
    if remains is None:
        if domain is None:
            raise BootError("there is no xenstore domain; --domid names one that has no privilege")
        region.take(domain.domid, image.place, frames.of_domain(domain, image.place))
        plan = rescue.plan_of(domain, image, dom0.port_of_ring())  # better known now
        xen.prefer(domain.domid)
    else:
        plan = remains.plan
    domid = plan.domid
    files = build.load(plan)
    urgency.be_first()
    tell(f"watching domain {domid}, region {image.place}")
    return Watcher(xen, domid, image, files, options.saved, tell)


def hand_over(options: argparse.Namespace) -> None:
    """From the daemon to a domain."""
    server = handover.server_of(options.pid, options.socket, options.region_file)
    handover.hand_over(Xen(), handover.read_config(options.config), server, tell)


def take_back(options: argparse.Namespace) -> None:
    """From the domain to a file."""
    with rescue.alone(SAVED):  # a watcher would go on with it
        size = handover.take_back(Xen(), options.domid, options.region, options.file)
    tell(f"{options.file}: {size} bytes of domain {options.domid}, which is destroyed. A daemon on "
         "it (--host linux) goes on with dom0's own ring. Then: xenstore-write "
         "/tool/xenstored/domid 0. Guests that run cannot come along: their rings are granted to "
         "the domain")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
