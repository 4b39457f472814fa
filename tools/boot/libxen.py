# SPDX-License-Identifier: Apache-2.0
"""Domains, through Debian's libxenctrl and libxenguest: looking, pausing, destroying.

L1. The libraries are those of one version, named below, and found by their sonames: structures
    are laid out as in that version's headers, and in no other's.
L2. A call that fails is a BootError with the call's name and the reason.
Needs no xenstore. tests/tools/test_xsboot.py compares the layouts with the headers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ring.linux import DOMAININFO, DOMAININFO_FIELDS, VIRQ_DOM_EXC
from tools.boot.failure import BootError

VERSION = "4.17"
INFO_SIZE = 112  # struct xen_domctl_getdomaininfo
INFO_MANY = 512
DOMINF_DYING, DOMINF_HVM, DOMINF_SHUTDOWN, DOMINF_PAUSED = 1 << 0, 1 << 1, 1 << 2, 1 << 3
DOMINF_XS_DOMAIN = 1 << 7
REASON_SHIFT, REASON_MASK = 16, 0xFF
REASONS = ("power-off", "reboot", "suspend", "crash", "watchdog", "soft reset")
ERESTART = 85
EVTCHN_STATUS = struct.Struct("=H2xIII8x")  # struct evtchn_status: dom, port, status, vcpu
EVTCHNSTAT_INTERDOMAIN = 2
DOMID_SELF = 0x7FF0
WAIT_S = 0.002
CREDIT2 = struct.Struct("=HH")  # struct xen_domctl_sched_credit2: weight, cap
WEIGHT = 4096  # others have 256

assert DOMAININFO.size <= INFO_SIZE

_P, _U, _I = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
_S = ctypes.c_char_p
CONTROL = {
    "xc_domain_getinfolist": (_P, _U, _U, _P), "xc_domain_create": (_P, _P, _P),
    "xc_domain_max_vcpus": (_P, _U, _U), "xc_domain_setmaxmem": (_P, _U, ctypes.c_uint64),
    "xc_domain_set_memory_map": (_P, _U, _P, _U), "xc_domain_set_virq_handler": (_P, _U, _I),
    "xc_evtchn_alloc_unbound": (_P, _U, _U), "xc_domain_pause": (_P, _U),
    "xc_evtchn_status": (_P, _P), "xc_domain_unpause": (_P, _U), "xc_domain_destroy": (_P, _U),
    "xc_sched_credit2_domain_set": (_P, _U, _P),
    "xc_domain_set_memmap_limit": (_P, _U, ctypes.c_ulong),
}
GUEST = {
    "xc_dom_kernel_mem": (_P, _S, ctypes.c_size_t),
    "xc_dom_module_mem": (_P, _S, ctypes.c_size_t, _S),
    "xc_dom_boot_xen_init": (_P, _P, _U), "xc_dom_parse_image": (_P,), "xc_dom_mem_init": (_P, _U),
    "xc_dom_boot_mem_init": (_P,), "xc_dom_build_image": (_P,), "xc_dom_boot_image": (_P,),
    "xc_dom_gnttab_init": (_P,), "xc_domain_dumpcore": (_P, _U, _S),
}
POINTERS = (("xc_dom_allocate", _P, (_P, _S, _S)), ("xc_dom_strdup", _P, (_P, _S)),
            ("xc_dom_release", None, (_P,)))


class Domain(NamedTuple):
    """What Xen says of a domain."""

    domid: int
    flags: int
    pages: int  # it has now
    ssidref: int
    handle: bytes
    cpu_time_ns: int
    shared_info_frame: int  # of the machine

    @property
    def has_run(self) -> bool:
        """Whether it was ever started."""
        return self.cpu_time_ns > 0

    @property
    def is_dying(self) -> bool:
        """It is being destroyed: its memory cannot be had any more."""
        return bool(self.flags & DOMINF_DYING)

    @property
    def has_ended(self) -> bool:
        """It is shut down, by itself or by Xen; its memory is there."""
        return bool(self.flags & DOMINF_SHUTDOWN)

    @property
    def is_pvh(self) -> bool:
        """PVH; what is not is PV."""
        return bool(self.flags & DOMINF_HVM)

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused it, or it was never started."""
        return bool(self.flags & DOMINF_PAUSED)

    @property
    def is_xenstore(self) -> bool:
        """Whether it has the xenstore domain's privilege."""
        return bool(self.flags & DOMINF_XS_DOMAIN)

    @property
    def reason(self) -> str:
        """Why it is shut down."""
        number = self.flags >> REASON_SHIFT & REASON_MASK
        return REASONS[number] if number < len(REASONS) else f"reason {number}"


def parse_domain(entry: bytes) -> Domain:
    """One struct xen_domctl_getdomaininfo."""
    fields = dict(zip(DOMAININFO_FIELDS, DOMAININFO.unpack(entry[:DOMAININFO.size]), strict=True))
    return Domain(fields["domain"], fields["flags"], fields["tot_pages"], fields["ssidref"],
                  fields["handle"], fields["cpu_time"], fields["shared_info_frame"])


class Xen:
    """The control interface. Raises BootError."""

    def __init__(self) -> None:
        self._control = _load("libxenctrl", CONTROL)
        self._guest = _load("libxenguest", GUEST)
        for name, result, types in POINTERS:
            entry = getattr(self._guest, name)
            entry.restype, entry.argtypes = result, types
        self._control.xc_interface_open.restype = _P
        self._control.xc_interface_open.argtypes = (_P, _P, ctypes.c_uint)
        self.handle = self._control.xc_interface_open(None, None, 0)
        if not self.handle:
            raise BootError("xc_interface_open: is this dom0, and are we root?")

    def call(self, name: str, *arguments: object, who: str = "") -> int:
        """A call of libxenctrl that begins with its handle; its result. L2."""
        return self._call(getattr(self._control, name), name, self.handle, *arguments, who=who)

    def guest_call(self, name: str, *arguments: object, who: str = "") -> int:
        """A call of libxenguest. L2."""
        return self._call(getattr(self._guest, name), name, *arguments, who=who)

    @staticmethod
    def _call(function: Callable[..., int], name: str, *arguments: object, who: str) -> int:
        ctypes.set_errno(0)
        result = int(function(*arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise BootError(f"{who}{name}: {os.strerror(number) if number else 'failed'}")
        return result

    @property
    def guest(self) -> ctypes.CDLL:
        """libxenguest, for what does not answer with a number."""
        return self._guest

    # -- looking

    def domains(self) -> list[Domain]:
        """All domains behind dom0, those that are dying included."""
        buffer = ctypes.create_string_buffer(INFO_SIZE * INFO_MANY)
        found: list[Domain] = []
        first = 1
        while True:
            count = self.call("xc_domain_getinfolist", first, INFO_MANY, buffer)
            found += [parse_domain(buffer.raw[start:start + INFO_SIZE])
                      for start in range(0, count * INFO_SIZE, INFO_SIZE)]
            if count < INFO_MANY:
                return found
            first = found[-1].domid + 1

    def domain(self, domid: int) -> Domain | None:
        """One domain; None: there is none."""
        buffer = ctypes.create_string_buffer(INFO_SIZE)
        if not self.call("xc_domain_getinfolist", domid, 1, buffer):
            return None
        found = parse_domain(buffer.raw)
        return found if found.domid == domid else None

    def has_ended(self, domid: int) -> bool:
        """Whether a domain is shut down, or not there."""
        domain = self.domain(domid)
        return domain is None or domain.is_dying or domain.has_ended

    def is_connected(self, port: int) -> bool:
        """Whether somebody has bound the other end of a port of dom0."""
        status = ctypes.create_string_buffer(EVTCHN_STATUS.pack(DOMID_SELF, port, 0, 0),
                                             EVTCHN_STATUS.size)
        self.call("xc_evtchn_status", status, who=f"port {port}: ")
        return bool(EVTCHN_STATUS.unpack(status.raw)[2] == EVTCHNSTAT_INTERDOMAIN)

    def xenstore_domain(self) -> Domain | None:
        """The one with the privilege."""
        return next((one for one in self.domains() if one.is_xenstore), None)

    def dump_core(self, domid: int, path: str) -> None:
        """A domain's whole memory as a core dump in a file, running or dead; it is not paused."""
        self.guest_call("xc_domain_dumpcore", self.handle, domid, os.fsencode(path),
                        who=f"domain {domid}: ")

    # -- changing

    def destroy(self, domid: int) -> None:
        """Have Xen destroy a domain; it may be there as a shell until nobody maps its memory."""
        while True:
            try:
                self.call("xc_domain_destroy", domid, who=f"domain {domid}: ")
            except BootError:
                if ctypes.get_errno() == errno.ESRCH:
                    return
                if ctypes.get_errno() not in (errno.EAGAIN, ERESTART):
                    raise
            else:
                return

    def is_gone(self, domid: int, within_s: float) -> bool:
        """Whether the domid is free, at the latest after so long."""
        end_s = time.monotonic() + within_s
        while self.domain(domid) is not None:
            if time.monotonic() >= end_s:
                return False
            time.sleep(WAIT_S)
        return True

    def unpause(self, domid: int) -> None:
        """Let it run."""
        self.call("xc_domain_unpause", domid, who=f"domain {domid}: ")

    def pause(self, domid: int) -> None:
        """Have it stand still."""
        self.call("xc_domain_pause", domid, who=f"domain {domid}: ")

    def prefer(self, domid: int) -> None:
        """Give it the processor before others: they wait for it. Under another scheduler than
        Xen's usual one: nothing."""
        with contextlib.suppress(BootError):
            self.call("xc_sched_credit2_domain_set", domid, ctypes.create_string_buffer(
                CREDIT2.pack(WEIGHT, 0), CREDIT2.size))

    def tell_of_deaths(self, domid: int) -> None:
        """VIRQ_DOM_EXC, the news of other domains' ends, goes to this domain."""
        self.call("xc_domain_set_virq_handler", domid, VIRQ_DOM_EXC, who=f"domain {domid}: ")


def _load(name: str, functions: Mapping[str, Sequence[type[ctypes._SimpleCData[Any]]]]
          ) -> ctypes.CDLL:
    """A library of VERSION (L1) with the types of its calls."""
    soname = f"{name}.so.{VERSION}"
    try:
        library = ctypes.CDLL(soname, use_errno=True)
    except OSError as error:
        raise BootError(f"{soname}: {error}; xsboot works with Xen {VERSION}") from error
    for function, types in functions.items():
        entry = getattr(library, function)
        entry.restype, entry.argtypes = ctypes.c_int, types
    return library
