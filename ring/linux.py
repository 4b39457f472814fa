# SPDX-License-Identifier: Apache-2.0
"""Xen as Linux shows it to a privileged process: the device nodes of /dev/xen.

X1. An event is taken from the kernel first, its port unmasked next, and told last. Whoever is told
    looks at the ring afterwards: what a guest put there before the unmasking is seen by that look,
    and what it puts there later raises the port again. So no event is lost.
X2. changed() names every domain whose state is not what look() or changed() told of it last: one
    call of the hypervisor for 512 domains, and nothing for those that stayed as they were. look()
    itself always asks: nothing that was known before is given out as news. A domain that is shut
    down is always named, since it may have been resumed and shut down again in between.
X3. A domain's identity is its handle, the UUID that the toolstack gave it at creation; a successor
    with the same number has another. Without one it is 0, "not known": nothing else that Xen 4.17
    tells of a domain stays the same for as long as it lives. A toolstack that gives a living domain
    another UUID (xl does not) makes it another. Dom0's handle is set late, by xen-init-dom0: dom0's
    identity is its kernel's boot id, since its ring is that kernel's page.
X4. The interface of domctl and sysctl has a version that must match. Those whose structures are
    known to be laid out as below are tried; with any other Xen there is no start. The size of a
    domain's entry, which is not the same in all of them, is measured.
X5. Memory that the hypervisor writes to is got from /dev/xen/hypercall, which never moves it.
    Where that is missing (Linux before 4.18, our own library OS) it is Python's: a page that is
    not there just then is an EFAULT, and is touched and tried again.

Dom0's own ring is mapped from xenbus_backend and not from /proc/xen/xsd_kva: it is the same page,
but xsd_kva says that it is an empty file, which mmap refuses. Every mapped ring holds a file
descriptor, as long as mmap keeps one of its own: 3,000 guests need 3,000.
Nothing here is more than the standard library offers in a static build, but `ctypes` for X5.
Knows nothing of what the ports are for. Change with: ring/host.py, tests/ring/test_linux.py."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

from ring.host import DomainState, HostError, OwnRing
from ring.layout import GREF_XENSTORE, PAGE_SIZE
from ring.page import Page

BOOT_ID = "/proc/sys/kernel/random/boot_id"
PORT_NONE = 0  # no event channel has this number
PORTS_PER_CALL = 512
POLL_INTERVAL_S = 1.0
IDENTITY_BITS = 62


def ioctl_number(letter: str, number: int, size: int) -> int:
    """_IOC(_IOC_NONE, letter, number, size) of asm-generic/ioctl.h."""
    return size << 16 | ord(letter) << 8 | number


# linux/include/uapi/xen/gntdev.h
MAP_GRANT_REF = struct.Struct("=IIQII")  # count, pad, index (out), refs[0].domid, refs[0].ref
UNMAP_GRANT_REF = struct.Struct("=QII")  # index, count, pad
IOCTL_GNTDEV_MAP_GRANT_REF = ioctl_number("G", 0, MAP_GRANT_REF.size)
IOCTL_GNTDEV_UNMAP_GRANT_REF = ioctl_number("G", 1, UNMAP_GRANT_REF.size)

# linux/include/uapi/xen/evtchn.h
EVTCHN_WORD = struct.Struct("=I")  # virq, or port; and what is read from and written to the device
BIND_INTERDOMAIN = struct.Struct("=II")  # remote_domain, remote_port
IOCTL_EVTCHN_BIND_VIRQ = ioctl_number("E", 0, EVTCHN_WORD.size)
IOCTL_EVTCHN_BIND_INTERDOMAIN = ioctl_number("E", 1, BIND_INTERDOMAIN.size)
IOCTL_EVTCHN_UNBIND = ioctl_number("E", 3, EVTCHN_WORD.size)
IOCTL_EVTCHN_NOTIFY = ioctl_number("E", 4, EVTCHN_WORD.size)
IOCTL_EVTCHN_RESET = ioctl_number("E", 5, 0)

# linux/include/xen/xenbus_dev.h
IOCTL_XENBUS_BACKEND_EVTCHN = ioctl_number("B", 0, 0)

# linux/include/uapi/xen/privcmd.h
PRIVCMD_HYPERCALL = struct.Struct("=Q5Q")  # op, arg[5]
IOCTL_PRIVCMD_HYPERCALL = ioctl_number("P", 0, PRIVCMD_HYPERCALL.size)

# xen/include/public/xen.h
HYPERVISOR_SYSCTL = 35
HYPERVISOR_DOMCTL = 36
VIRQ_DOM_EXC = 3
DOMID_FIRST_RESERVED = 0x7FF0

# xen/include/public/domctl.h
DOMCTL_VERSIONS = range(0x11, 0x19)  # Xen 4.12 to 4.22; 4.17: 0x15
DOMCTL_GETDOMAININFO = 5
DOMCTL_HEADER = struct.Struct("=IIH6x")  # cmd, interface_version, domain; then the union
DOMINF_DYING = 1 << 0
DOMINF_SHUTDOWN = 1 << 2
DOMAININFO = struct.Struct("=H2xI7Q3I16s")  # struct xen_domctl_getdomaininfo up to its handle:
DOMAININFO_FIELDS = (  # ("7Q3I" are skipped: pages, frame, time, vcpus, ssidref)
    "domain", "flags", "tot_pages", "max_pages", "outstanding_pages", "shr_pages", "paged_pages",
    "shared_info_frame", "cpu_time", "nr_online_vcpus", "max_vcpu_id", "ssidref", "handle")

# xen/include/public/sysctl.h
SYSCTL_VERSIONS = range(0x12, 0x17)  # Xen 4.12 to 4.22; 4.17: 0x15
SYSCTL_GETDOMAININFOLIST = 6
# cmd, interface_version; first_domain, max_domains, buffer, num_domains (out)
SYSCTL_INFOLIST = struct.Struct("=IIH2xIQI4x")

OP_SIZE = 1024  # more than struct xen_domctl or xen_sysctl has, which Xen copies as a whole
DOMAINS_PER_CALL = 512
INFO_SIZE_MAX = 256  # what one entry of the list is allowed to have
BUFFER_SIZE = OP_SIZE + DOMAINS_PER_CALL * INFO_SIZE_MAX
EFAULT_TRIALS = 100

assert DOMAININFO.size == 92 <= INFO_SIZE_MAX
assert len(DOMAININFO_FIELDS) == len(DOMAININFO.unpack(bytes(DOMAININFO.size)))
assert SYSCTL_INFOLIST.size <= OP_SIZE and DOMCTL_HEADER.size + INFO_SIZE_MAX <= OP_SIZE
assert BUFFER_SIZE <= 64 * PAGE_SIZE  # what /dev/xen/hypercall gives to one opener


class Devices:
    """The system calls on device nodes; tests and unikraft.py stand in for them. All raise
    OSError."""

    def open(self, name: str, flags: int = 0) -> int:
        """A descriptor of a node in /dev/xen."""
        return os.open(f"/dev/xen/{name}", os.O_RDWR | os.O_CLOEXEC | flags)

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        """The call's result; what it changes in `argument` is changed there."""
        return fcntl.ioctl(fd, request, argument)

    def map(self, fd: int, size: int, offset: int) -> Any:
        """A shared mapping that can be written."""
        return mmap.mmap(fd, size, offset=offset)

    def unmap(self, mapped: Any) -> None:
        """Give up what map() has given."""
        mapped.close()

    def read(self, fd: int, size: int) -> bytes:
        """As os.read."""
        return os.read(fd, size)

    def write(self, fd: int, data: bytes) -> None:
        """As os.write."""
        os.write(fd, data)

    def close(self, fd: int) -> None:
        """As os.close."""
        os.close(fd)


class LinuxHost:
    """Implements ring.host.Host for a Xen domain that may map rings and ask for domains: dom0, or
    the xenstore domain. Raises HostError if it is neither, or runs without Xen."""

    def __init__(self, devices: Devices | None = None, serves_dom0: bool = True) -> None:
        """`serves_dom0`: have dom0's own ring, too, if this is dom0."""
        self._devices = devices if devices is not None else Devices()
        self._serves_dom0 = serves_dom0
        self._fds: dict[str, int] = {}
        self._ports: set[int] = set()
        self.virq_port = PORT_NONE
        self.poll_interval_s: float | None = POLL_INTERVAL_S
        try:
            self._evtchn = self._open("evtchn", os.O_NONBLOCK)
            self._gntdev = self._open("gntdev")
            self._domains = _Domains(self._devices, self._open("privcmd"))
        except HostError:
            self.close()
            raise
        self._told: dict[int, DomainState | None] | None = None  # X2; None: nothing, or not sure
        with contextlib.suppress(HostError):  # another server has it: look by the clock instead
            self.virq_port = self._bind(IOCTL_EVTCHN_BIND_VIRQ, EVTCHN_WORD.pack(VIRQ_DOM_EXC),
                                        "binding VIRQ_DOM_EXC")
            self.poll_interval_s = None

    # -- event channels

    def fileno(self) -> int:
        return self._evtchn

    def pending(self) -> list[int]:
        try:
            raised = self._devices.read(self._evtchn, PORTS_PER_CALL * EVTCHN_WORD.size)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno != errno.EFBIG:  # the kernel's queue has run over
                raise _refusal("evtchn", "reading ports", error) from error
            self._ioctl("evtchn", IOCTL_EVTCHN_RESET, bytearray(), "resetting the queue")
            raised = b"".join(map(EVTCHN_WORD.pack, self._ports))  # any of them may be in it
        for start in range(0, len(raised), PAGE_SIZE):  # at most a page is taken at once
            self._devices.write(self._evtchn, raised[start:start + PAGE_SIZE])
        return [port for port, in EVTCHN_WORD.iter_unpack(raised)]

    def bind(self, domid: int, remote_port: int) -> int:
        return self._bind(IOCTL_EVTCHN_BIND_INTERDOMAIN, BIND_INTERDOMAIN.pack(domid, remote_port),
                          f"binding port {remote_port} of domain {domid}")

    def _bind(self, request: int, argument: bytes, what: str) -> int:
        port = self._ioctl("evtchn", request, bytearray(argument), what)
        self._ports.add(port)
        return port

    def unbind(self, port: int) -> None:
        self._ioctl("evtchn", IOCTL_EVTCHN_UNBIND, bytearray(EVTCHN_WORD.pack(port)),
                    f"unbinding local port {port}")
        self._ports.discard(port)

    def notify(self, port: int) -> None:
        # To a peer that is gone Xen says nothing: its end is gone, ours is still there.
        self._ioctl("evtchn", IOCTL_EVTCHN_NOTIFY, bytearray(EVTCHN_WORD.pack(port)),
                    f"notifying through local port {port}")

    # -- pages

    def map_page(self, domid: int, gfn: int) -> Page:
        what = f"mapping grant {GREF_XENSTORE} of domain {domid}"
        argument = bytearray(MAP_GRANT_REF.pack(1, 0, 0, domid, GREF_XENSTORE))
        self._ioctl("gntdev", IOCTL_GNTDEV_MAP_GRANT_REF, argument, what)
        index = MAP_GRANT_REF.unpack(argument)[2]
        try:
            mapped = self._devices.map(self._gntdev, PAGE_SIZE, index)
        except OSError as error:
            self._forget_grant(index)
            raise _refusal("gntdev", what, error) from error

        def unmap() -> None:
            self._devices.unmap(mapped)
            self._forget_grant(index)
        return Page(mapped, unmap)

    def _forget_grant(self, index: int) -> None:
        """Take a grant that is not mapped (any more) out of the device's table."""
        if "gntdev" in self._fds:  # else the device forgets everything when it is closed
            self._ioctl("gntdev", IOCTL_GNTDEV_UNMAP_GRANT_REF,
                        bytearray(UNMAP_GRANT_REF.pack(index, 1, 0)), "unmapping a grant")

    def own_ring(self) -> OwnRing | None:
        if not self._serves_dom0:
            return None
        try:
            fd = self._open("xenbus_backend")
        except HostError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in (
                    errno.ENOENT, errno.ENODEV, errno.ENXIO):
                return None  # not dom0
            raise
        try:
            port = self._devices.ioctl(fd, IOCTL_XENBUS_BACKEND_EVTCHN)
            mapped = self._devices.map(fd, PAGE_SIZE, 0)
        except OSError as error:
            raise _refusal("xenbus_backend", "mapping dom0's ring", error) from error
        finally:
            self._devices.close(self._fds.pop("xenbus_backend"))
        return OwnRing(Page(mapped, lambda: self._devices.unmap(mapped)), port, boot_identity())

    # -- domains

    def look(self, domid: int) -> DomainState | None:
        if not 0 < domid < DOMID_FIRST_RESERVED:
            return None
        try:
            state = self._domains.look(domid)
        except OSError as error:
            self._told = None
            raise _refusal("privcmd", f"asking for domain {domid}", error) from error
        if self._told is not None:
            self._told[domid] = state
        return state

    def changed(self) -> set[int] | None:
        before, now = self._told, self._domains.list_all()
        self._told = None if now is None else dict(now)
        if before is None or now is None:
            return None
        found = {domid for domid, state in now.items()
                 if state.is_shutdown or before.get(domid) != state}
        found.update(domid for domid, state in before.items()
                     if state is not None and domid not in now)
        return found

    def close(self) -> None:
        while self._fds:
            self._devices.close(self._fds.popitem()[1])
        self._ports.clear()

    # -- devices

    def _open(self, name: str, flags: int = 0) -> int:
        try:
            fd = self._fds[name] = self._devices.open(name, flags)
        except OSError as error:
            raise _refusal(name, "opening it", error) from error
        return fd

    def _ioctl(self, name: str, request: int, argument: bytearray, what: str) -> int:
        try:
            return self._devices.ioctl(self._fds[name], request, argument)
        except OSError as error:
            raise _refusal(name, what, error) from error


class _Domains:
    """What the hypervisor says of domains, through privcmd. Raises HostError if it says nothing."""

    def __init__(self, devices: Devices, privcmd: int) -> None:
        self._devices = devices
        self._privcmd = privcmd
        self._memory = _Memory(devices)
        self._info_size = 0
        self._domctl_version = self._find_version(DOMCTL_VERSIONS, self._ask)
        try:
            self._sysctl_version = self._find_version(SYSCTL_VERSIONS, self._measure)
        except HostError:
            self._sysctl_version = 0  # without lists: any domain may have changed

    def look(self, domid: int) -> DomainState | None:
        """One domain; None: there is none, or it is dying. Raises OSError."""
        try:
            self._ask(self._domctl_version, domid)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            raise
        found, state = _parse(self._memory.read(DOMCTL_HEADER.size, DOMAININFO.size))
        return state if found == domid else None

    def list_all(self) -> dict[int, DomainState] | None:
        """All domains that are not dying, but dom0; None: they cannot be listed."""
        found: dict[int, DomainState] = {}
        first, size = 1, self._info_size
        while self._sysctl_version:
            try:
                count = self._list(self._sysctl_version, first, DOMAINS_PER_CALL)
            except OSError:
                return None
            data = self._memory.read(OP_SIZE, count * size)
            for offset in range(0, len(data), size):
                domid, state = _parse(data[offset:offset + DOMAININFO.size])
                if state is not None:
                    found[domid] = state
                first = domid + 1
            if count < DOMAINS_PER_CALL:
                return found
        return None

    def _ask(self, version: int, domid: int = 0) -> None:
        self._call(HYPERVISOR_DOMCTL, DOMCTL_HEADER.pack(DOMCTL_GETDOMAININFO, version, domid))

    def _list(self, version: int, first: int, most: int) -> int:
        """Have up to `most` domains from `first` on listed at OP_SIZE; how many there were."""
        self._call(HYPERVISOR_SYSCTL, SYSCTL_INFOLIST.pack(
            SYSCTL_GETDOMAININFOLIST, version, first, most, self._memory.address + OP_SIZE, 0))
        count: int = SYSCTL_INFOLIST.unpack(self._memory.read(0, SYSCTL_INFOLIST.size))[5]
        return min(count, most)

    def _measure(self, version: int) -> None:
        """Learn how many bytes an entry has: those of dom0's that are stored over two patterns."""
        size = DOMAININFO.size
        for pattern in (b"\xee", b"\x11"):
            self._memory.write(OP_SIZE, pattern * INFO_SIZE_MAX)
            self._list(version, 0, 1)
            size = max(size, len(self._memory.read(OP_SIZE, INFO_SIZE_MAX).rstrip(pattern)))
        self._info_size = size

    def _find_version(self, versions: range, trial: Callable[[int], None]) -> int:
        """The first of `versions` with which `trial` is not refused. Raises HostError."""
        refused: OSError | None = None
        for version in reversed(versions):
            try:
                trial(version)
            except OSError as error:
                refused = error
                if error.errno != errno.EACCES:
                    break
            else:
                return version
        assert refused is not None
        raise _refusal("privcmd", f"asking for domains with the interface versions {versions[0]:#x}"
                       f" to {versions[-1]:#x}", refused) from refused

    def _call(self, op: int, argument: bytes) -> None:
        """One hypercall with one argument, which is stored at 0; what Xen changes is there."""
        call = PRIVCMD_HYPERCALL.pack(op, self._memory.address, 0, 0, 0, 0)
        for left in reversed(range(EFAULT_TRIALS)):
            self._memory.write(0, argument + bytes(OP_SIZE - len(argument)))
            try:
                self._devices.ioctl(self._privcmd, IOCTL_PRIVCMD_HYPERCALL, bytearray(call))
                return
            except OSError as error:
                if error.errno != errno.EFAULT or not left:
                    raise
                self._memory.touch()


class _Memory:
    """Memory that the hypervisor may write to, at a known address (X5)."""

    def __init__(self, devices: Devices) -> None:
        try:
            self.address, self._view = _locked(devices)
        except (OSError, ImportError):
            heap = array.array("B", bytes(BUFFER_SIZE))
            self.address, self._view = heap.buffer_info()[0], memoryview(heap)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of some bytes."""
        return bytes(self._view[offset:offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        self._view[offset:offset + len(data)] = data

    def touch(self) -> None:
        """Have all pages there, and writable."""
        for offset in range(0, BUFFER_SIZE, PAGE_SIZE):
            self._view[offset] = self._view[offset]
        self._view[-1] = self._view[-1]


def _locked(devices: Devices) -> tuple[int, memoryview]:
    """Memory of /dev/xen/hypercall and its address. Raises OSError or ImportError."""
    import ctypes

    fd = devices.open("hypercall")
    try:
        mapped = devices.map(fd, BUFFER_SIZE, 0)
    finally:
        devices.close(fd)
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped)), memoryview(mapped)


def _parse(info: bytes) -> tuple[int, DomainState | None]:
    """The domid of an entry, and the state of that domain; None: it is dying."""
    domid, flags, *_, handle = DOMAININFO.unpack(info)
    if flags & DOMINF_DYING:
        return domid, None
    return domid, DomainState(identity_of(handle), bool(flags & DOMINF_SHUTDOWN))


def identity_of(uuid: bytes) -> int:
    """A number of IDENTITY_BITS bits for a UUID; 0 for that of zeros alone."""
    whole = int.from_bytes(uuid, "big")
    return (whole ^ whole >> 64) % ((1 << IDENTITY_BITS) - 1) + 1 if whole else 0


def boot_identity() -> int:
    """The identity of the running kernel; 0 if it has none."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return identity_of(bytes.fromhex(file.read().strip().replace("-", "")))
    except OSError:
        return 0


def _refusal(device: str, what: str, error: OSError) -> HostError:
    return HostError(f"/dev/xen/{device}: {what}: {error.strerror}")
