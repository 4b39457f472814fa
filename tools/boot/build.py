# SPDX-License-Identifier: Apache-2.0
"""A domain, PVH or PV, of a kernel, a ramdisk and a command line, as Xen 4.17's
init-xenstore-domain builds it, except: with the domid that is asked for, and without the SETUP
ioctl. Dom0's kernel has had its xenstore's port for long, which goes on with whoever has that
domid.

C1. The domain is paused when it is given back. Dying or failing before: what was built halfway is
    destroyed again, or is found paused by whoever looks next.
C2. The structures are those of libxen.VERSION's headers; no other version's library is loaded.
Change with: tests/tools/test_xsboot.py, which compares the layouts with the headers."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Sequence
from typing import NamedTuple

from tools.boot.failure import BootError
from tools.boot.libxen import Xen
from tools.boot.place import Place

# struct xen_domctl_createdomain: ssidref, handle, flags, iommu_opts, max_vcpus, max_evtchn_port,
# max_grant_frames, max_maptrack_frames, grant_opts, vmtrace_size, cpupool_id, emulation_flags,
# misc_flags
CREATE = struct.Struct("=I16sIIIIiiIIIII")
CDF_HVM, CDF_HAP, CDF_XS_DOMAIN = 1 << 0, 1 << 1, 1 << 4
EMU_LAPIC = 1 << 0
NO_LIMIT = 0xFFFFFFFF
GRANT_FRAMES, MAPTRACK_FRAMES, GRANT_VERSION = 4, 128, 1  # 128: 32,768 pages of others mapped
E820 = struct.Struct("=QQI")
E820_RAM, E820_RESERVED = 1, 2

# Where fields of struct xc_dom_image are, and of what type.
FIELDS: dict[str, tuple[int, type[ctypes._SimpleCData[int]]]] = {
    "cmdline": (176, ctypes.c_uint64), "console_evtchn": (568, ctypes.c_uint32),
    "xenstore_domid": (580, ctypes.c_uint32), "guest_domid": (600, ctypes.c_uint32),
    "pv_p2m": (480, ctypes.c_uint64), "container_type": (1712, ctypes.c_int),
    "target_pages": (1720, ctypes.c_uint64),
    "mmio_start": (1728, ctypes.c_uint64), "mmio_size": (1736, ctypes.c_uint64),
    "lowmem_end": (1744, ctypes.c_uint64), "highmem_end": (1752, ctypes.c_uint64),
    "max_vcpus": (1944, ctypes.c_uint32),
}
CONTAINER_PV, CONTAINER_HVM = 0, 1
PAGES_PER_MIB = 256
LAPIC_BASE = 0xFEE00000
SPECIAL_PAGES, SPECIAL_END = 8, 0xFF000  # X86_HVM_NR_SPECIAL_PAGES, _END_SPECIAL_REGION
DOM0 = 0
CMDLINE_MAX = 1024  # libxenguest takes no more

assert CREATE.size == 64 and E820.size == 20


class Plan(NamedTuple):
    """What is to be built."""

    domid: int
    handle: bytes
    ssidref: int
    is_xenstore: bool  # has the privilege
    memory_mib: int
    kernel: str
    ramdisk: str
    command_line: str
    is_pvh: bool = True  # else PV


class Files(NamedTuple):
    """What is in a plan's files. Kept in memory: a rescue needs no disk."""

    kernel: bytes
    ramdisk: bytes


def load(plan: Plan) -> Files:
    """Raises BootError."""
    found = []
    for path in (plan.kernel, plan.ramdisk):
        try:
            with open(path, "rb") as file:
                found.append(file.read())
        except OSError as error:
            raise BootError(f"{path}: cannot be read: {error.strerror}") from error
    return Files(*found)


def check(plan: Plan, place: Place) -> None:
    """Raises BootError if it cannot be built for reasons that are known before."""
    if len(plan.command_line.encode()) >= CMDLINE_MAX:
        raise BootError(f"the command line has {CMDLINE_MAX} bytes or more")
    if not 0 < plan.memory_mib * PAGES_PER_MIB << 12 <= LAPIC_BASE:
        raise BootError(f"{plan.memory_mib} MiB of memory: expected 3 GiB at most")
    if place.address + place.size > plan.memory_mib << 20:
        raise BootError(f"{place} does not lie in {plan.memory_mib} MiB of memory")


def build(xen: Xen, plan: Plan, files: Files) -> Sequence[int] | None:
    """Xen's numbers of its frames, in order; None: they are the domain's own. Raises BootError;
    there is no such domain then, unless there was one before."""
    who = f"domain {plan.domid}: "
    image = xen.guest.xc_dom_allocate(xen.handle, None, None)
    if not image:
        raise BootError("xc_dom_allocate: failed")
    try:
        _load(xen, image, plan, files, who)
        create(xen, plan)
        try:
            _fill(xen, image, plan, who)
        except BootError:
            with contextlib.suppress(BootError):
                xen.destroy(plan.domid)
            raise
        return None if plan.is_pvh else _frames(image, plan)
    finally:
        xen.guest.xc_dom_release(image)


def create(xen: Xen, plan: Plan) -> None:
    """The domain, with nothing in it."""
    flags = (CDF_HVM | CDF_HAP if plan.is_pvh else 0) | (CDF_XS_DOMAIN if plan.is_xenstore else 0)
    config = ctypes.create_string_buffer(CREATE.pack(
        plan.ssidref, plan.handle, flags, 0, 1, NO_LIMIT, GRANT_FRAMES, MAPTRACK_FRAMES,
        GRANT_VERSION, 0, 0, EMU_LAPIC if plan.is_pvh else 0, 0), CREATE.size)
    domid = ctypes.c_uint32(plan.domid)
    xen.call("xc_domain_create", ctypes.byref(domid), config, who=f"domain {plan.domid}: ")
    if domid.value != plan.domid:
        xen.destroy(domid.value)
        raise BootError(f"Xen has made domain {domid.value} instead of {plan.domid}")


def _load(xen: Xen, image: int, plan: Plan, files: Files, who: str) -> None:
    """Kernel and ramdisk; everything that can be wrong with them comes out before a domain is
    there."""
    xen.guest_call("xc_dom_kernel_mem", image, files.kernel, len(files.kernel), who=who)
    xen.guest_call("xc_dom_module_mem", image, files.ramdisk, len(files.ramdisk), None, who=who)
    xen.guest_call("xc_dom_boot_xen_init", image, xen.handle, plan.domid, who=who)
    _set(image, "container_type", CONTAINER_HVM if plan.is_pvh else CONTAINER_PV)
    xen.guest_call("xc_dom_parse_image", image, who=who)
    _set(image, "max_vcpus", 1)
    if not plan.is_pvh:
        return
    size = plan.memory_mib << 20
    _set(image, "target_pages", plan.memory_mib * PAGES_PER_MIB)
    _set(image, "mmio_start", LAPIC_BASE)
    _set(image, "mmio_size", (1 << 32) - LAPIC_BASE)
    _set(image, "lowmem_end", size)
    _set(image, "highmem_end", 0)


def _fill(xen: Xen, image: int, plan: Plan, who: str) -> None:
    """Memory, and what is in it."""
    xen.call("xc_domain_max_vcpus", plan.domid, 1, who=who)
    limit_kib = plan.memory_mib * 1024 + (SPECIAL_PAGES * 4 if plan.is_pvh else 0)
    xen.call("xc_domain_setmaxmem", plan.domid, limit_kib, who=who)
    if not plan.is_pvh:
        xen.call("xc_domain_set_memmap_limit", plan.domid, limit_kib, who=who)
    port = xen.call("xc_evtchn_alloc_unbound", plan.domid, DOM0, who=who)
    _set(image, "guest_domid", plan.domid)
    _set(image, "cmdline", xen.guest.xc_dom_strdup(image, plan.command_line.encode()))
    _set(image, "xenstore_domid", plan.domid)
    _set(image, "console_evtchn", port)
    xen.guest_call("xc_dom_mem_init", image, plan.memory_mib, who=who)
    xen.guest_call("xc_dom_boot_mem_init", image, who=who)
    if plan.is_pvh:
        table = (E820.pack(0, plan.memory_mib << 20, E820_RAM) + E820.pack(
            (SPECIAL_END - SPECIAL_PAGES) << 12, SPECIAL_PAGES << 12, E820_RESERVED))
        xen.call("xc_domain_set_memory_map", plan.domid,
                 ctypes.create_string_buffer(table, len(table)), 2, who=who)
    xen.guest_call("xc_dom_build_image", image, who=who)
    xen.guest_call("xc_dom_boot_image", image, who=who)
    xen.guest_call("xc_dom_gnttab_init", image, who=who)


def _frames(image: int, plan: Plan) -> list[int]:
    """Of a PV domain, from what its builder knows."""
    offset, kind = FIELDS["pv_p2m"]
    table = kind.from_address(image + offset).value
    return list((ctypes.c_uint64 * (plan.memory_mib * PAGES_PER_MIB)).from_address(table))


def _set(image: int, name: str, value: int) -> None:
    offset, kind = FIELDS[name]
    kind.from_address(image + offset).value = value
