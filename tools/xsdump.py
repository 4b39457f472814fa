# SPDX-License-Identifier: Apache-2.0
"""xsdump: look into a region, beside a running server or after a crash. Never writes to it.

Each command is a module of tools/dump/."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable

from persist.region import RegionError
from tools.dump import connections, git, info, lives, log, page, restore, stat, tree, verify
from tools.dump.moment import MomentError
from tools.dump.outfile import OutputError
from tools.dump.output import Output
from tools.dump.source import Source, open_any

ADDERS: tuple[Callable[..., None], ...] = tuple(
    module.add_arguments for module in (
        info, log, tree, lives, connections, stat, verify, restore, git, page))
EXIT_USAGE = 2
EXIT_UNREADABLE = 3
EXIT_INTERRUPTED = 130

EXAMPLES = """examples:
  tools/xsdump /dev/shm/tardigrade-1a2b3c4d.region info
  tools/xsdump /dev/shm/tardigrade-1a2b3c4d.memory info     the memory of make run-qemu
  tools/xsdump core crashes                a core dump: xl dump-core, xsboot core, QEMU
  tools/xsdump domain:1 crashes            the xenstore domain of a Xen host, in its dom0
  tools/xsdump REGION log -n 20            the last 20 changes
  tools/xsdump REGION log -n 1 -d 7        the last thing that domain 7 has done
  tools/xsdump REGION log -p /local/domain/7/state          all that became of a key, and who did it
  tools/xsdump REGION log --follow         what a running server records, as it does
  tools/xsdump REGION blame /local/domain/7                 who has made each node what it is
  tools/xsdump REGION tree --at 30s        the tree half a minute before the last change
  tools/xsdump REGION diff crash:2 life:3
  tools/xsdump --json REGION connections | jq .to_publish
  tools/xsdump REGION.damaged-1 verify     what is wrong with a damaged region
  tools/xsdump REGION.damaged-1 restore new.region          all that can be saved of it

exit codes: 0 all is well, 1 verify found a difference, there is no such node, or what was restored
is not complete, 2 wrong arguments, 3 no readable region, 130 interrupted
"""


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    options = parse(arguments)
    try:
        region = open_any(options.source)
        out = Output(options.is_json, options.colour, options.has_pager)
        try:
            code = _run(region, options, out)
        finally:
            region.close()
    except RegionError as error:
        print(f"xsdump: {options.source}: {error}" if options.source not in str(error)
              else f"xsdump: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    except (MomentError, OutputError) as error:
        print(f"xsdump: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _run(region: Source, options: argparse.Namespace, out: Output) -> int:
    """The exit code. An interrupt is no answer, neither a good nor a bad one; what was said until
    then is there to be read."""
    try:
        code: int = options.command(region, options, out)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    out.close()
    return code


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    return make_parser().parse_args(arguments)


def make_parser() -> argparse.ArgumentParser:
    """Of the command line. Change with: xsdump.1, xsdump.bash-completion."""
    parser = argparse.ArgumentParser(
        prog="xsdump", description="Look into the persistent memory of a xenstore server.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser)
    parser.add_argument("source", metavar="SOURCE", help="a region file, live or damaged; "
                        "a machine's memory that holds one, in a file or a core dump; or "
                        "domain:DOMID, or domain:DOMID:SIZE@ADDRESS")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in ADDERS:
        add(commands)
    for command in commands.choices.values():  # behind the command they are allowed, too
        add_common(command, argparse.SUPPRESS)
    return parser


def add_common(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """How a command tells what it has found. `default`: argparse.SUPPRESS where it was asked
    before."""
    parser.add_argument("--json", action="store_true", dest="is_json", default=default or False,
                        help="one object per line, for programs")
    parser.add_argument("--color", dest="colour", choices=("auto", "always", "never"),
                        default=default or "auto")
    parser.add_argument("--no-pager", action="store_false", dest="has_pager",
                        default=default or True)


if __name__ == "__main__":
    gc.disable()  # a history is many objects and no cycles: looking for some takes half the time
    sys.exit(main(sys.argv[1:]))
