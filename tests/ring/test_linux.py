# SPDX-License-Identifier: Apache-2.0
"""ring/linux.py: numbers and layouts against the C headers, compiled; everything else on device
nodes that are made up here: events are taken, unmasked and told; grants are mapped and forgotten;
domains are looked at and listed as X1 to X5 say; what is refused says what and why.

Cannot show: that Linux and Xen behave like this; tests/xen runs on them. The numbers of
xenbus_backend are in no header that is for programs."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ring import linux
from ring.host import DomainState, HostError
from ring.linux import LinuxHost
from tests.oracle import packages

PAGE = 4096
VERSION_4_17 = 0x15
INFO_SIZE_4_17 = 112
UUID = bytes(range(1, 17))
OTHER_UUID = bytes(range(2, 18))


class Domain:
    """What the made-up hypervisor knows of a domain."""

    def __init__(self, uuid: bytes = UUID, flags: int = 0) -> None:
        self.uuid = uuid
        self.flags = flags


class MadeUpXen(linux.Devices):
    """Device nodes of a machine that exists here only. `missing`: nodes that are not there;
    `refused`: errors by ioctl number."""

    def __init__(self) -> None:
        self.domains = {0: Domain(bytes(16))}
        self.missing: dict[str, int] = {}
        self.refused: dict[int, int] = {}
        self.domctl_version = self.sysctl_version = VERSION_4_17
        self.info_size = INFO_SIZE_4_17
        self.faults = 0  # how many hypercalls are to end in EFAULT
        self.calls: list[str] = []
        self.opened: dict[int, str] = {}
        self.grants: dict[int, tuple[int, int]] = {}
        self.pages: dict[tuple[str, int], mmap.mmap] = {}
        self.events, self._events_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.events.setblocking(False)
        self._next_port = 20

    def open(self, name: str, flags: int = 0) -> int:
        if name in self.missing:
            raise OSError(self.missing[name], os.strerror(self.missing[name]))
        if name == "evtchn":
            fd = os.dup(self._events_end.fileno())
            os.set_blocking(fd, not flags & os.O_NONBLOCK)
        else:
            fd = os.open("/dev/null", os.O_RDWR)
        self.opened[fd] = name
        return fd

    def map(self, fd: int, size: int, offset: int) -> mmap.mmap:
        name = self.opened[fd]
        if name == "gntdev" and offset not in self.grants:
            raise OSError(errno.EINVAL, "Invalid argument")
        mapped = self.pages[name, offset] = mmap.mmap(-1, size)
        return mapped

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        if request in self.refused:
            raise OSError(self.refused[request], os.strerror(self.refused[request]))
        if request == linux.IOCTL_PRIVCMD_HYPERCALL:
            assert self.opened[fd] == "privcmd"
            return self._hypercall(bytes(argument))
        handler: Callable[[bytearray], int] = {
            linux.IOCTL_GNTDEV_MAP_GRANT_REF: self._map_grant,
            linux.IOCTL_GNTDEV_UNMAP_GRANT_REF: self._unmap_grant,
            linux.IOCTL_EVTCHN_BIND_VIRQ: self._bind,
            linux.IOCTL_EVTCHN_BIND_INTERDOMAIN: self._bind,
            linux.IOCTL_EVTCHN_UNBIND: self._tell("unbind"),
            linux.IOCTL_EVTCHN_NOTIFY: self._tell("notify"),
            linux.IOCTL_EVTCHN_RESET: self._tell("reset"),
            linux.IOCTL_XENBUS_BACKEND_EVTCHN: lambda _: 15,
        }[request]
        assert isinstance(argument, bytearray) or request == linux.IOCTL_XENBUS_BACKEND_EVTCHN
        return handler(argument)  # type: ignore[arg-type]

    def _map_grant(self, argument: bytearray) -> int:
        count, _, _, domid, ref = struct.unpack("=IIQII", argument)
        assert count == 1
        index = (len(self.grants) + 1) * PAGE
        self.grants[index] = (domid, ref)
        struct.pack_into("=Q", argument, 8, index)
        return 0

    def _unmap_grant(self, argument: bytearray) -> int:
        index, count, _ = struct.unpack("=QII", argument)
        assert count == 1
        del self.grants[index]
        return 0

    def _bind(self, argument: bytearray) -> int:
        self.calls.append(f"bind {argument.hex()}")
        self._next_port += 1
        return self._next_port

    def _tell(self, what: str) -> Callable[[bytearray], int]:
        def call(argument: bytearray) -> int:
            self.calls.append(f"{what} {argument.hex()}")
            return 0
        return call

    def _hypercall(self, call: bytes) -> int:
        op, address, *rest = struct.unpack("=6Q", call)
        assert not any(rest)
        if self.faults:
            self.faults -= 1
            raise OSError(errno.EFAULT, "Bad address")
        cmd, version = struct.unpack("=II", ctypes.string_at(address, 8))
        right, size, handler = {
            36: (self.domctl_version, 5, self._getdomaininfo),
            35: (self.sysctl_version, 6, self._getdomaininfolist)}[op]
        if version != right:
            raise OSError(errno.EACCES, "Permission denied")
        assert cmd == size
        return handler(address)

    def _getdomaininfo(self, address: int) -> int:
        domid, = struct.unpack("=H", ctypes.string_at(address + 8, 2))
        self.calls.append(f"look {domid}")
        if domid not in self.domains:
            raise OSError(errno.ESRCH, "No such process")
        info = self._info(domid)
        ctypes.memmove(address + 16, info, len(info))
        return 0

    def _getdomaininfolist(self, address: int) -> int:
        first, most, buffer = struct.unpack("=H2xIQ", ctypes.string_at(address + 8, 16))
        self.calls.append(f"list {first}")
        found = [domid for domid in sorted(self.domains) if domid >= first][:most]
        infos = b"".join(map(self._info, found))
        ctypes.memmove(buffer, infos, len(infos))
        ctypes.memmove(address + 24, struct.pack("=I", len(found)), 4)
        return 0

    def _info(self, domid: int) -> bytes:
        one = self.domains[domid]
        info = struct.pack("=H2xI", domid, one.flags) + b"\xee" * 68 + one.uuid
        return info.ljust(self.info_size, b"\0")


@pytest.fixture
def xen() -> MadeUpXen:
    return MadeUpXen()


@pytest.fixture
def host(xen: MadeUpXen) -> Iterator[LinuxHost]:
    host = LinuxHost(xen)
    xen.calls.clear()
    yield host
    host.close()


# -- against the headers


def compiled(tmp_path: Path, includes: str, flags: list[str], numbers: list[str]) -> list[int]:
    """The values of C expressions."""
    source = tmp_path / "numbers.c"
    lines = "".join(f'    printf("%llu\\n", (unsigned long long)({one}));\n' for one in numbers)
    source.write_text(f"#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n{includes}\n"
                      f"int main(void)\n{{\n{lines}    return 0;\n}}\n")
    packages.need_tools("gcc")
    program = tmp_path / "numbers"
    packages.run_checked(["gcc", *flags, "-o", str(program), str(source)])
    said = subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return [int(line) for line in said.stdout.split()]


def test_ioctl_numbers_are_those_of_linux(tmp_path: Path) -> None:
    (tmp_path / "xen/interface").mkdir(parents=True)
    (tmp_path / "xen/interface/xen.h").write_text("")  # not for programs; these types are all
    names = ["IOCTL_GNTDEV_MAP_GRANT_REF", "IOCTL_GNTDEV_UNMAP_GRANT_REF",
             "IOCTL_EVTCHN_BIND_VIRQ", "IOCTL_EVTCHN_BIND_INTERDOMAIN", "IOCTL_EVTCHN_UNBIND",
             "IOCTL_EVTCHN_NOTIFY", "IOCTL_EVTCHN_RESET", "IOCTL_PRIVCMD_HYPERCALL"]
    layouts = ["offsetof(struct ioctl_gntdev_map_grant_ref, index)",
               "offsetof(struct ioctl_gntdev_map_grant_ref, refs[0].domid)",
               "offsetof(struct ioctl_gntdev_map_grant_ref, refs[0].ref)",
               "offsetof(struct ioctl_gntdev_unmap_grant_ref, count)",
               "offsetof(struct ioctl_evtchn_bind_interdomain, remote_port)",
               "offsetof(struct privcmd_hypercall, arg)"]
    values = compiled(
        tmp_path, "typedef uint16_t domid_t; typedef uint32_t grant_ref_t;\n"
        "typedef unsigned long xen_pfn_t;\n"
        "#include <sys/ioctl.h>\n#include <xen/gntdev.h>\n#include <xen/evtchn.h>\n"
        "#include <xen/privcmd.h>", [f"-I{tmp_path}"], names + layouts)
    assert values[:len(names)] == [getattr(linux, name) for name in names]
    assert values[len(names):] == [8, 16, 20, 8, 4, 8]


def test_hypercalls_are_those_of_xen(tmp_path: Path) -> None:
    packages.fetch()
    info = "struct xen_domctl_getdomaininfo"
    names = ["XEN_DOMCTL_INTERFACE_VERSION", "XEN_SYSCTL_INTERFACE_VERSION",
             "__HYPERVISOR_domctl", "__HYPERVISOR_sysctl", "XEN_DOMCTL_getdomaininfo",
             "XEN_SYSCTL_getdomaininfolist", "VIRQ_DOM_EXC", "DOMID_FIRST_RESERVED",
             "XEN_DOMINF_dying", "XEN_DOMINF_shutdown", f"sizeof({info})",
             "offsetof(struct xen_domctl, u)", "offsetof(struct xen_domctl, domain)",
             f"offsetof({info}, flags)", f"offsetof({info}, handle)",
             "offsetof(struct xen_sysctl, u.getdomaininfolist.max_domains)",
             "offsetof(struct xen_sysctl, u.getdomaininfolist.buffer)",
             "offsetof(struct xen_sysctl, u.getdomaininfolist.num_domains)",
             "sizeof(struct xen_domctl)", "sizeof(struct xen_sysctl)"]
    values = compiled(tmp_path, "#include <xen/xen.h>\n#include <xen/domctl.h>\n"
                      "#include <xen/sysctl.h>",
                      ["-D__XEN_TOOLS__", f"-I{packages.package_root()}/usr/include"], names)
    assert values[:2] == [VERSION_4_17, VERSION_4_17]
    assert VERSION_4_17 in linux.DOMCTL_VERSIONS and VERSION_4_17 in linux.SYSCTL_VERSIONS
    assert values[2:11] == [
        linux.HYPERVISOR_DOMCTL, linux.HYPERVISOR_SYSCTL, linux.DOMCTL_GETDOMAININFO,
        linux.SYSCTL_GETDOMAININFOLIST, linux.VIRQ_DOM_EXC, linux.DOMID_FIRST_RESERVED,
        linux.DOMINF_DYING, linux.DOMINF_SHUTDOWN, INFO_SIZE_4_17]
    assert values[11:18] == [linux.DOMCTL_HEADER.size, 8, 4, linux.DOMAININFO.size - 16, 12, 16, 24]
    assert max(values[18:]) <= linux.OP_SIZE


# -- event channels


def test_events_are_taken_then_unmasked_then_told(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.events.send(struct.pack("=3I", 21, 5, 9))
    assert host.pending() == [21, 5, 9]
    assert xen.events.recv(64) == struct.pack("=3I", 21, 5, 9)
    assert host.pending() == []
    with pytest.raises(BlockingIOError):
        xen.events.recv(64)


def test_a_queue_that_has_run_over_raises_every_port(
        xen: MadeUpXen, host: LinuxHost, monkeypatch: pytest.MonkeyPatch) -> None:
    port = host.bind(7, 3)
    xen.calls.clear()

    def full(fd: int, size: int) -> bytes:
        raise OSError(errno.EFBIG, "File too large")
    monkeypatch.setattr(os, "read", full)
    assert set(host.pending()) == {port, host.virq_port}
    assert xen.calls == ["reset "]
    assert len(xen.events.recv(64)) == 8


def test_bind_notify_unbind(xen: MadeUpXen, host: LinuxHost) -> None:
    port = host.bind(7, 3)
    host.notify(port)
    host.unbind(port)
    word = struct.pack("=I", port).hex()
    assert xen.calls == ["bind " + struct.pack("=II", 7, 3).hex(), f"notify {word}",
                         f"unbind {word}"]


def test_with_the_virq_nobody_looks_by_the_clock(xen: MadeUpXen) -> None:
    with_virq = LinuxHost(xen)
    assert (with_virq.virq_port, with_virq.poll_interval_s) == (21, None)
    assert xen.calls[-1] == "bind " + struct.pack("=I", 3).hex()
    with_virq.close()
    xen.refused[linux.IOCTL_EVTCHN_BIND_VIRQ] = errno.EEXIST
    without = LinuxHost(xen)
    assert (without.virq_port, without.poll_interval_s) == (0, 1.0)
    without.close()


# -- pages


def test_a_page_is_mapped_and_forgotten(xen: MadeUpXen, host: LinuxHost) -> None:
    page = host.map_page(7, 0x1234)
    assert list(xen.grants.values()) == [(7, 1)]
    page.store(2060, 0x89ABCDEF)
    (mapped,) = (mapped for (name, _), mapped in xen.pages.items() if name == "gntdev")
    assert mapped[2060:2064] == struct.pack("=I", 0x89ABCDEF)
    page.close()
    assert not xen.grants and mapped.closed
    left = host.map_page(8, 0)
    host.close()
    left.close()  # the device has forgotten it already


def test_a_grant_that_cannot_be_mapped_is_forgotten(xen: MadeUpXen, host: LinuxHost,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size: int, offset: int) -> mmap.mmap:
        raise OSError(errno.EINVAL, "Invalid argument")
    monkeypatch.setattr(xen, "map", refuse)
    with pytest.raises(HostError, match=r"gntdev.*grant 1 of domain 7.*Invalid argument"):
        host.map_page(7, 0)
    assert not xen.grants


def test_dom0s_own_ring(xen: MadeUpXen, host: LinuxHost) -> None:
    own = host.own_ring()
    assert own is not None and own.remote_port == 15
    assert own.identity == linux.boot_identity() != 0
    own.page.store(0, 1)
    assert xen.pages["xenbus_backend", 0][0] == 1
    own.page.close()
    assert LinuxHost(xen, serves_dom0=False).own_ring() is None


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.ENXIO])
def test_elsewhere_there_is_no_own_ring(xen: MadeUpXen, host: LinuxHost, code: int) -> None:
    xen.missing["xenbus_backend"] = code
    assert host.own_ring() is None


def test_an_own_ring_that_is_refused_is_no_missing_one(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.missing["xenbus_backend"] = errno.EPERM
    with pytest.raises(HostError, match=r"xenbus_backend.*not permitted"):
        host.own_ring()


# -- domains


def test_look(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.domains[5] = Domain()
    xen.domains[6] = Domain(flags=linux.DOMINF_SHUTDOWN | 3 << 16)
    xen.domains[7] = Domain(flags=linux.DOMINF_SHUTDOWN | linux.DOMINF_DYING)
    identity = linux.identity_of(UUID)
    assert host.look(5) == DomainState(identity, False)
    assert host.look(6) == DomainState(identity, True)
    assert host.look(7) is None and host.look(8) is None
    assert host.look(0) is None and host.look(0x7FF0) is None and host.look(-1) is None


def test_look_says_why_it_cannot_tell(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.refused[linux.IOCTL_PRIVCMD_HYPERCALL] = errno.EPERM
    with pytest.raises(HostError, match="privcmd: asking for domain 5: Operation not permitted"):
        host.look(5)
    del xen.refused[linux.IOCTL_PRIVCMD_HYPERCALL]
    host.changed()
    assert host.changed() == set()
    xen.refused[linux.IOCTL_PRIVCMD_HYPERCALL] = errno.EPERM
    with pytest.raises(HostError):
        host.look(5)
    del xen.refused[linux.IOCTL_PRIVCMD_HYPERCALL]
    assert host.changed() is None  # nobody knows what domain 5 was last


def test_changed_names_those_that_differ_from_what_was_told(xen: MadeUpXen, host: LinuxHost
                                                            ) -> None:
    assert host.changed() is None
    xen.domains.update({5: Domain(), 6: Domain()})
    assert host.changed() == {5, 6} and host.changed() == set()
    xen.domains[5].uuid = OTHER_UUID
    assert host.changed() == {5} and host.changed() == set()
    xen.domains[6].flags = linux.DOMINF_DYING
    assert host.changed() == {6} and host.changed() == set()
    del xen.domains[6]
    assert host.changed() == set()


def test_a_domain_that_dies_before_it_was_ever_listed_is_named(xen: MadeUpXen, host: LinuxHost
                                                               ) -> None:
    host.changed()
    xen.domains[5] = Domain()
    assert host.look(5) is not None
    del xen.domains[5]
    assert host.changed() == {5}


def test_what_look_has_told_is_not_told_again(xen: MadeUpXen, host: LinuxHost) -> None:
    host.changed()
    xen.domains[5] = Domain()
    host.look(5)
    assert host.changed() == set()
    del xen.domains[5]
    host.look(5)
    assert host.changed() == set()


def test_a_domain_that_is_shut_down_is_always_named(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.domains[5] = Domain(flags=linux.DOMINF_SHUTDOWN)
    host.changed()
    assert host.changed() == {5} and host.changed() == {5}


@pytest.mark.parametrize("info_size", [104, 112, 136])
def test_many_domains_are_listed_in_few_calls(xen: MadeUpXen, info_size: int) -> None:
    xen.info_size = info_size
    xen.domains.update({domid: Domain() for domid in range(1, 1025)})
    host = LinuxHost(xen)
    xen.calls.clear()
    host.changed()
    assert xen.calls == ["list 1", "list 513", "list 1025"]
    xen.domains[1000].uuid = OTHER_UUID
    del xen.domains[600], xen.domains[1024]
    assert host.changed() == {600, 1000, 1024}
    host.close()


@pytest.mark.parametrize("version", [linux.DOMCTL_VERSIONS[0], linux.DOMCTL_VERSIONS[-1]])
def test_the_interface_version_is_found(xen: MadeUpXen, version: int) -> None:
    xen.domctl_version, xen.sysctl_version = version, linux.SYSCTL_VERSIONS[0]
    xen.domains[5] = Domain()
    host = LinuxHost(xen)
    assert host.look(5) is not None and host.changed() is None and host.changed() == set()
    host.close()


def test_an_unknown_interface_is_refused(xen: MadeUpXen) -> None:
    xen.domctl_version = linux.DOMCTL_VERSIONS[-1] + 1
    with pytest.raises(HostError, match="interface versions 0x11 to 0x18: Permission denied"):
        LinuxHost(xen)
    assert all(not _is_open(fd) for fd in xen.opened)


def test_without_lists_any_domain_may_have_changed(xen: MadeUpXen) -> None:
    xen.sysctl_version = linux.SYSCTL_VERSIONS[-1] + 1
    xen.domains[5] = Domain()
    host = LinuxHost(xen)
    assert host.look(5) is not None and host.changed() is None and host.changed() is None
    host.close()


def test_a_page_that_was_not_there_is_tried_again(xen: MadeUpXen, host: LinuxHost) -> None:
    xen.domains[5] = Domain()
    xen.faults = linux.EFAULT_TRIALS - 1
    assert host.look(5) is not None
    xen.faults = linux.EFAULT_TRIALS
    with pytest.raises(HostError, match="Bad address"):
        host.look(5)


def test_without_hypercall_memory_pythons_is_used(xen: MadeUpXen) -> None:
    xen.missing["hypercall"] = errno.ENOENT
    xen.domains[5] = Domain()
    host = LinuxHost(xen)
    assert host.look(5) is not None and host.changed() is None and host.changed() == set()
    host.close()


# -- identities, start and end


def test_identities() -> None:
    assert linux.identity_of(bytes(16)) == 0
    assert linux.identity_of(b"\xff" * 16) > 0  # both halves are the same
    found = {linux.identity_of((1 << bit).to_bytes(16, "big")) for bit in range(128)}
    assert len(found) >= 62 and all(0 < one < 1 << linux.IDENTITY_BITS for one in found)
    assert linux.identity_of(UUID) != linux.identity_of(OTHER_UUID)


@pytest.mark.parametrize("name", ["evtchn", "gntdev", "privcmd"])
def test_a_missing_device_is_named(xen: MadeUpXen, name: str) -> None:
    xen.missing[name] = errno.ENOENT
    with pytest.raises(HostError, match=f"/dev/xen/{name}: opening it: No such file"):
        LinuxHost(xen)
    assert all(not _is_open(fd) for fd in xen.opened)


def test_without_xen_there_is_no_start() -> None:
    if os.path.exists("/dev/xen/evtchn"):
        pytest.skip("this machine runs on Xen")
    with pytest.raises(HostError, match="/dev/xen/evtchn: opening it: No such file or directory"):
        LinuxHost()


def test_close_closes_everything(xen: MadeUpXen) -> None:
    host = LinuxHost(xen)
    host.close()
    host.close()
    assert all(not _is_open(fd) for fd in xen.opened)


def test_pythons_memory_has_an_address() -> None:
    """What X5 falls back to: array's own account of where it is."""
    heap = array.array("B", b"abc")
    assert ctypes.string_at(heap.buffer_info()[0], 3) == b"abc"


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True
