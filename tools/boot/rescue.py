# SPDX-License-Identifier: Apache-2.0
"""A xenstore domain has died as a whole: another one with its domid goes on with its region.

R1. The dead domain is given up only when its region's bytes are in a file, with all that is needed
    to build its successor. Whoever dies behind that, or fails, is followed by recall().
R2. The file goes away when the successor has answered, and not before.
R3. Nothing here needs an answer of xenstore until the successor runs.
R4. A successor that has run is never replaced by the file: it may have served already.
R5. One at a time (alone()): a second one would take the first one's successor for the dead domain.
The rings go on because nothing of theirs was the domain's but the number: dom0's and the guests'
ports and grants name the domid. What they asked for meanwhile waits in their rings, as with any
crash (ring/README.md)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tools.boot import consoles, dom0, frames, region, snapshot
from tools.boot.build import PAGES_PER_MIB, Files, Plan, build, check
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.libxen import DOMINF_HVM, DOMINF_XS_DOMAIN, Domain, Xen
from tools.boot.place import Place, parse_place
from tools.boot.process import Daemon

KERNELS = Path(__file__).resolve().parents[2] / "build" / "image"
GONE_AT_ONCE_S = 0.01
GONE_S = 5.0
ANSWER_S = 20.0
LOCK = ".lock"  # behind the path; the file stays
Tell = Callable[[str], None]


class Image(NamedTuple):
    """What the successor is made of; memory_mib None: as much as the dead one has; kernel None: the
    one of the image that fits."""

    kernel: str | None
    ramdisk: str
    words: str  # the kernel's command line behind --event PORT
    place: Place
    memory_mib: int | None = None


class Remains(NamedTuple):
    """What is left of a dead domain."""

    plan: Plan
    place: Place
    data: bytes


@contextlib.contextmanager
def alone(path: str) -> Iterator[None]:
    """R5, for all that keep the region at `path`. Raises BootError if somebody is at work."""
    try:
        fd = region.create(path + LOCK)
    except OSError as error:
        raise BootError(f"{path}{LOCK}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise BootError(f"{path}{LOCK}: another xsboot watches or rescues already") from error
    try:
        yield
    finally:
        os.close(fd)


def plan_of(domain: Domain, image: Image, port: int) -> Plan:
    """The successor of a domain."""
    kernel = image.kernel or str(KERNELS / ("kernel.elf" if domain.is_pvh else "kernel-pv.elf"))
    return Plan(domain.domid, domain.handle, domain.ssidref, domain.is_xenstore,
                image.memory_mib or domain.pages // PAGES_PER_MIB, kernel, image.ramdisk,
                f"--event {port} {image.words}".rstrip(), domain.is_pvh)


def gather(memory: ForeignMemory, domain: Domain, image: Image, path: str) -> Remains:
    """Have all that the successor needs, also in files (R1): the region is what open_region() has
    mapped. Changes nothing. Raises BootError."""
    plan = plan_of(domain, image, dom0.port_of_ring())
    return _keep(Remains(plan, image.place, region.copy(memory)), path)


def open_region(domain: Domain, place: Place) -> ForeignMemory:
    """The region of a domain. To be closed before it is destroyed. Raises BootError."""
    return ForeignMemory(domain.domid, place, frames=frames.of_domain(domain, place))


def _keep(remains: Remains, path: str) -> Remains:
    """R1. The region last: recall() looks for it."""
    check(remains.plan, remains.place)
    about = {**remains.plan._asdict(), "handle": remains.plan.handle.hex(),
             "place": str(remains.place)}
    region.save(f"{path}.json", json.dumps(about).encode())
    region.save(path, remains.data)
    return remains


def gather_from(source: str | None, domain: Domain | None, image: Image, domid: int | None,
                is_pv: bool, path: str) -> Remains:
    """As gather(), with the region in the file `source` if that is given: then the domain may be
    gone, which was a PV domain if `is_pv` says so. Raises BootError."""
    if source is None:
        if domain is None:
            raise BootError("there is no xenstore domain; --from FILE goes on with a region")
        with open_region(domain, image.place) as memory:
            return gather(memory, domain, image, path)
    data = region.load(source)
    if domain is None:
        if domid is None or image.memory_mib is None:
            raise BootError("the domain is gone: --domid and --memory say which one it was")
        flags = DOMINF_XS_DOMAIN | (0 if is_pv else DOMINF_HVM)
        domain = Domain(domid, flags, 0, 0, bytes(16), 0, 0)
    return _keep(Remains(plan_of(domain, image, dom0.port_of_ring()), image.place, data), path)


def interrupted(xen: Xen, path: str) -> Remains | None:
    """What a rescue has left that did not come to its end. If the domain has run since, its own
    memory is newer than the file, which is forgotten (R4). Raises BootError."""
    remains = recall(path)
    if remains is not None and has_region(xen, remains.plan.domid):
        forget(path)
        return None
    return remains


def has_region(xen: Xen, domid: int) -> bool:
    """Whether the domain's memory is what counts: it has run, and is not destroyed."""
    domain = xen.domain(domid)
    return domain is not None and not domain.is_dying and domain.has_run


def recall(path: str) -> Remains | None:
    """What gather() has left there, unless it came to its good end. Raises BootError."""
    data, words = region.load_own(path), region.load_own(f"{path}.json")
    if data is None:
        return None
    region.check_is_region(data, path)
    try:
        about = json.loads(words or b"")
        place = parse_place(about.pop("place"))
        plan = Plan(**{**about, "handle": bytes.fromhex(about["handle"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BootError(f"{path}.json: {error}") from error
    return Remains(plan, place, data)


def forget(path: str) -> None:
    """R2. The order: recall() looks for the region."""
    for name in (path, f"{path}.json"):
        if os.path.exists(name):
            os.unlink(name)


def revive(xen: Xen, remains: Remains, files: Files, start: bytes | None, tell: Tell) -> None:
    """Build the successor in the place of whatever has the domid, and have it run; from a snapshot,
    if `start` is one that fits. Raises BootError; what remains is the same then, but for the dead
    domain."""
    domid = remains.plan.domid
    watch = Stopwatch()
    ended: list[Daemon] = []
    try:
        if xen.domain(domid) is not None:
            ended = _clear(xen, domid, tell)
        watch.lap("clearing")
        check(remains.plan, remains.place)
        numbers = build(xen, remains.plan, files)
        watch.lap("building")
        region.put(domid, remains.place, remains.data, numbers)
        if start is not None:
            place = snapshot.place_of(start, remains.place)
            if place.address + place.size <= remains.plan.memory_mib << 20:
                with contextlib.suppress(BootError):  # what is in its way may lie there
                    region.put(domid, place, start, numbers)
        xen.tell_of_deaths(domid)
        xen.prefer(domid)
        watch.lap("filling")
        xen.unpause(domid)
        dom0.wait_for_answer(ANSWER_S, lambda: xen.has_ended(domid))
        watch.lap("booting")
    finally:
        for daemon in ended:
            consoles.start(daemon, tell)
    tell(f"domain {domid} answers again: {watch}")


def _clear(xen: Xen, domid: int, tell: Tell) -> list[Daemon]:
    """Destroy the dead domain, and have the domid free. What had to be ended for it."""
    xen.destroy(domid)
    if xen.is_gone(domid, GONE_AT_ONCE_S):
        return []
    ended = consoles.end_all(tell)
    if not xen.is_gone(domid, GONE_S):
        for daemon in ended:
            consoles.start(daemon, tell)
        raise BootError(f"domain {domid} does not go away: a program in dom0, or another domain, "
                        "has pages of it mapped")
    return ended


class Stopwatch:
    """Where the time went."""

    def __init__(self) -> None:
        self._laps: list[tuple[str, int]] = []
        self._last_s = time.monotonic()

    def lap(self, name: str) -> None:
        """All since the last one was for this."""
        now_s = time.monotonic()
        self._laps.append((name, round(1000 * (now_s - self._last_s))))
        self._last_s = now_s

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {ms}" for name, ms in self._laps)
        return f"{sum(ms for _, ms in self._laps)} ms ({parts})"
