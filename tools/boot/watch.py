# SPDX-License-Identifier: Apache-2.0
"""Look after the xenstore domain: when it has ended, have it rescued.

W1. Only a domain that has shut down, or that Xen has shut down, is rescued: what runs and does not
    answer is the server's own watchdog's, and the kernel's xen-watchdog=.
W2. After a failure, and once YOUNG_FREE domains in a row have died young, each pause is longer
    than the last, until one has lived: somebody may kill it often, but what cannot live does not
    take dom0's time.
W3. A rescue that was interrupted is taken up by the next watcher (rescue.R1), with the snapshot
    that the last one has kept.
W4. The region of a domain that runs stays mapped, which saves time when it has ended; that of one
    that is being destroyed does not, since it could not go.
W5. A domain that is gone without a rescue under way was destroyed by somebody, with its region:
    nothing is left to go on with, and watching ends."""

from __future__ import annotations

import contextlib
import math
import os
import time

from tools.boot import region, rescue, snapshot, urgency
from tools.boot.build import Files
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.libxen import Domain, Xen
from tools.boot.rescue import Image, Remains, Tell

START = ".start"  # behind the path: the snapshot
POLL_S = 0.05
PAUSE_S, PAUSE_MAX_S = 0.5, 30.0
YOUNG_S = 10.0  # a domain that dies younger than this dies young
YOUNG_FREE = 20  # as many in a row cost no pause


class Watcher:
    """The state of one watch over one domain."""

    def __init__(self, xen: Xen, domid: int, image: Image, files: Files, path: str,
                 tell: Tell) -> None:
        self._xen = xen
        self._domid = domid
        self._image = image
        self._files = files
        self._path = path
        self._tell = tell
        self._remains: Remains | None = None
        self._start: bytes | None = None  # snapshot.py
        self._memory: ForeignMemory | None = None
        self._pause_s = 0.0
        self._young = 0  # that have died so, in a row
        self._alive_since_s = -math.inf
        self.rescued = 0

    def run(self) -> None:
        """Watch until there is nothing to watch. Raises BootError then."""
        self._remains = rescue.interrupted(self._xen, self._path)
        if self._remains is not None:
            self._tell("a rescue was interrupted: going on with it")
            self._start = self._snapshot_of_before()
        else:
            self.get_ready()
        while True:
            self.look()
            time.sleep(POLL_S)

    def get_ready(self) -> None:
        """What can be done while the domain runs: its region is mapped, there is room for it in a
        file, and its snapshot is taken: it has another one if it could not use ours."""
        with urgency.patient():
            self._get_ready()

    def _get_ready(self) -> None:
        domain = self._xen.domain(self._domid)
        if domain is None or domain.is_dying:
            return
        with contextlib.suppress(BootError):
            self._memory = rescue.open_region(domain, self._image.place)
            region.prepare(self._path, self._image.place.size)
        found = snapshot.take(domain, self._start)
        if found is not None and found is not self._start:
            self._start = found
            with contextlib.suppress(BootError):
                region.save(self._path + START, found)

    def close(self) -> None:
        """Let the domain go."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _gather(self, domain: Domain) -> Remains:
        if self._memory is None:
            self._memory = rescue.open_region(domain, self._image.place)
        try:
            return rescue.gather(self._memory, domain, self._image, self._path)
        finally:
            self.close()

    def _snapshot_of_before(self) -> bytes | None:
        with contextlib.suppress(BootError):
            return region.load_own(self._path + START)
        return None

    def _clean_up(self) -> None:
        """Nothing of ours takes memory when there is nothing to watch."""
        self.close()
        for name in (self._path + START, self._path + region.UNFINISHED):
            with contextlib.suppress(OSError):
                os.unlink(name)

    def look(self) -> None:
        """One look, and a rescue if need be. Raises BootError if the domain is gone."""
        domain = self._xen.domain(self._domid)
        if self._remains is None:
            if domain is None or domain.is_dying:
                self._clean_up()
                raise BootError(f"domain {self._domid} is destroyed, and its region with it; start "
                                "the xenstore anew")
            if not domain.has_ended:
                return
            self._tell(f"domain {self._domid} has ended: {domain.reason}")
            is_young = time.monotonic() - self._alive_since_s < YOUNG_S
            self._young = self._young + 1 if is_young else 0
            self._pause_s = longer(self._pause_s) if self._young > YOUNG_FREE else 0.0
        if self._pause_s:
            self._tell(f"waiting {self._pause_s:g} s")
            time.sleep(self._pause_s)
        try:
            if self._remains is None:
                assert domain is not None
                self._remains = self._gather(domain)
            rescue.revive(self._xen, self._remains, self._files, self._start, self._tell)
        except BootError as error:
            self._tell(f"the rescue has failed: {error}")
            self._start = None
            if not rescue.has_region(self._xen, self._domid):
                self._pause_s = longer(self._pause_s)
                return
            self._remains = None  # rescue.R4
            self._young, self._alive_since_s = YOUNG_FREE, time.monotonic()  # W2
            rescue.forget(self._path)
            self.get_ready()
            return
        self._remains = None
        rescue.forget(self._path)
        self.rescued += 1
        self._alive_since_s = time.monotonic()
        self.get_ready()


def longer(pause_s: float) -> float:
    """The pause after this one."""
    return min(max(2 * pause_s, PAUSE_S), PAUSE_MAX_S)
