# SPDX-License-Identifier: Apache-2.0
"""xsdump SOURCE git DIR: the log as a git repository, made or gone on with; beside a server, too.

X1. The region is only read. The repository is one of ours, or none is touched (gitrepo.py).
X2. An interrupt ends it between two events: everything up to there is kept, and the next run goes
    on. So does a kill: from what was kept last.
Knows nothing of commits. Change with: docs/HISTORY.md, tools/xsdump-archive.service."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from persist.history import Gap, follow
from persist.record import Record
from persist.region import Medium, RegionError, RegionFile
from tools.dump.archive import Archive
from tools.dump.continuation import Checks, plan
from tools.dump.ending import present_lines
from tools.dump.gitimport import GitError
from tools.dump.gitrepo import MAIN, RefusedError, Repository, open_repository
from tools.dump.output import Output
from tools.dump.past import Past, read_past
from tools.dump.progress import Progress

EXIT_DIFFERS = 1
EXIT_REFUSED = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130
KEEP_S = 1.0  # between two checkpoints while following
TIDY_EVERY = 100  # of them

EPILOG = """examples:
  xsdump REGION git history              a repository with a work tree; then, in it:
    git log -p local/domain/7            what domain 7's nodes went through
    git blame local/domain/7/state/.v    which request set it
    git log --author=domain-7@ -1        the last thing that domain 7 did
    git show crash/3                     why life 3 ended, and the last change before
    git diff life/3 crash/3              what that life changed in all
  xsdump REGION git --bare --follow /var/lib/xenstore-history.git

exit codes: 0 done, 1 a sealed tree differs, 2 DIR is refused, 3 git or the region failed
"""


class Stop:
    """The first SIGINT or SIGTERM asks for an end; the second does not ask."""

    def __init__(self) -> None:
        self.is_asked = False

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._ask)
                        for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


def add_arguments(commands: Any) -> None:
    """Add the command to an argparse subparsers object."""
    parser = commands.add_parser(
        "git", help="the history as a git repository", epilog=EPILOG,
        description="Write the region's history into a git repository: one commit for each "
        "change. A second run adds what is new.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", type=Path, help="made if it does not exist; "
                        "else an archive that was made like this")
    parser.add_argument("--bare", action="store_true", help="a new one has no work tree")
    parser.add_argument("--object-format", choices=("sha1", "sha256"), help="of a new one. With "
                        "sha256 git's ids are not the sealed ones: there is no refs/seals")
    parser.add_argument("--follow", action="store_true", help="go on with what a server appends")
    parser.add_argument("--crashed", action="store_true", help="no server runs on this region any "
                        "more: tag the end of the last life, too. Of a file that no server has "
                        "locked this is known")
    parser.set_defaults(command=export)


def export(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """The command. Returns the exit code; raises RegionError."""
    try:
        repository = open_repository(options.directory, options.bare, options.object_format)
        return _export(region, repository, options, out)
    except RefusedError as error:
        print(f"xsdump: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except GitError as error:
        print(f"xsdump: {error}", file=sys.stderr)
        return EXIT_FAILED


def _export(region: Medium, repository: Repository, options: argparse.Namespace,
            out: Output) -> int:
    past = read_past(region)
    if not past.first:
        out.say("nothing was recorded in this region yet", commits=0)
        return 0
    checks = Checks(past)
    with Stop() as stop:
        archive = Archive(repository, past, plan(past, checks, repository.last(),
                                                 repository.has_record), checks.of)
        try:
            more = (_appended(region, past, archive, checks, stop) if options.follow else iter(()))
            _walk(past, archive, more, stop)
        except RegionError:
            archive.close()
            raise
        except BaseException:
            archive.abandon()
            raise
        if not stop.is_asked and not archive.is_ended and not options.follow and (
                options.crashed or _is_left_alone(region)):
            archive.tag_open_death(present_lines(region, past))
        archive.close()
    return _report(archive, repository, out, is_cut=stop.is_asked and not options.follow)


def _walk(past: Past, archive: Archive, more: Iterator[Record | Gap], stop: Stop) -> None:
    newest = past.newest
    progress = Progress(max(past.first, archive.last.sequence), newest, "commits")
    for event in past.walk(more=more):
        archive.take(event)
        if archive.last.sequence >= newest:
            progress.end()
        else:
            progress.tell(archive.last.sequence, archive.commits)
        if stop.is_asked:
            break
    progress.end()


def _appended(region: Medium, past: Past, archive: Archive, checks: Checks,
              stop: Stop) -> Iterator[Record | Gap]:
    """What a server appends; what was taken of it is kept every KEEP_S seconds."""
    newest = past.entries[-1]
    position = newest.position + newest.size
    kept, count = time.monotonic(), 0
    archive.keep()
    for one in follow(region, position):
        if stop.is_asked:
            return
        if archive.is_dirty and time.monotonic() - kept > KEEP_S:
            kept, count = time.monotonic(), count + 1
            archive.keep()
            if count % TIDY_EVERY == 0:
                archive.tidy()
        if one is None:
            continue
        if isinstance(one, Record):
            checks.add(one)
        yield one


def _report(archive: Archive, repository: Repository, out: Output, is_cut: bool) -> int:
    for problem in archive.problems:
        out.say(f"DIFFERS: {problem}", problem=problem)
    kept = repository.update_work_tree()
    if kept is not None:
        out.say(f"note: the work tree stays as it is: {kept}")
    if repository.is_sha256:
        out.say("note: sha256 has other ids than the log's seals: there is no refs/seals, and the "
                "sealed trees were not compared")
    tip = repository.resolve(MAIN)
    out.say(f"{archive.commits} commits added to {repository.directory}, main is "
            f"{tip.hex()[:12] if tip is not None else 'empty'}; {archive.verified} sealed trees "
            f"verified by git, {archive.unknown} seals not comparable",
            **archive.counts()._asdict(), main=tip.hex() if tip is not None else None)
    if is_cut:
        out.say("interrupted: the next run goes on from there")
        return EXIT_INTERRUPTED
    return EXIT_DIFFERS if archive.problems else 0


def _is_left_alone(region: Medium) -> bool:
    """Whether this is a region file that no server has locked. Whoever asks by locking it could
    keep a server from starting."""
    if not isinstance(region, RegionFile) or region.is_device or region.base:
        return False
    _, inode = region.identity()
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        return not any(words[1] == "FLOCK" and words[5].endswith(f":{inode}")
                       for words in map(str.split, locks) if len(words) > 5)
    return False
