# SPDX-License-Identifier: Apache-2.0
"""ring/unikraft.py on a builtin module that is made up here: the host of linux.py behaves on it as
it does on Linux's devices. Method: the module's calls are those of image/unikraft/module.c, by
name; its hypervisor is test_linux.py's. (What it answers without the privilege: tests/unikraft.)

Cannot show: that the real module does this; tests/unikraft has its C, and docs/UNIKRAFT.md says how
it was booted."""

from __future__ import annotations

import errno
import re
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring import unikraft
from ring.host import HostError
from ring.linux import (
    HYPERVISOR_SYSCTL,
    IOCTL_GNTDEV_MAP_GRANT_REF,
    MAP_GRANT_REF,
    LinuxHost,
    identity_of,
)
from tests.ring.test_linux import UUID, Domain, MadeUpXen

MODULE = Path(__file__).resolve().parents[2] / "image/unikraft/module.c"
PAGE = 4096


class MadeUpModule:
    """Stands for _unikraft."""

    def __init__(self) -> None:
        self.xen = MadeUpXen()
        self.raised: list[int] = []
        self.waits: list[float] = []
        self.calls: list[tuple[str, int]] = []
        self.mapped: dict[int, tuple[int, int]] = {}  # id of a page -> domid, grant reference
        self.unmapped: list[memoryview] = []
        self.refuses = False
        self.has_privilege = True
        self.for_us = 0  # the only port of dom0's that can be bound; 0: any
        self._next_port = 20

    def bind_virq(self, virq: int) -> int:
        return self.bind(-1, virq)

    def bind(self, domid: int, port: int) -> int:
        if self.refuses or (domid == 0 and self.for_us and port != self.for_us):
            raise OSError(errno.ENOENT, "No such file or directory")
        self.calls.append(("bind", port))
        self._next_port += 1
        return self._next_port

    def unbind(self, port: int) -> int:
        self.calls.append(("unbind", port))
        return 0

    def notify(self, port: int) -> int:
        self.calls.append(("notify", port))
        return 0

    def pending(self) -> list[int]:
        raised, self.raised = self.raised, []
        return raised

    def wait(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        return bool(self.raised)

    def map_grant(self, domid: int, reference: int) -> memoryview:
        if self.refuses:
            raise OSError(errno.EINVAL, "Invalid argument")
        page = memoryview(bytearray(PAGE))
        self.mapped[id(page)] = domid, reference
        return page

    def unmap_grant(self, page: memoryview) -> int:
        del self.mapped[id(page)]
        self.unmapped.append(page)
        return 0

    def hypercall(self, number: int, *arguments: int) -> int:
        if number == HYPERVISOR_SYSCTL and not self.has_privilege:
            raise OSError(errno.EPERM, "Operation not permitted")
        return self.xen._hypercall(unikraft.PRIVCMD_HYPERCALL.pack(number, *arguments))


@pytest.fixture
def module() -> MadeUpModule:
    return MadeUpModule()


@pytest.fixture
def host(module: MadeUpModule, monkeypatch: pytest.MonkeyPatch) -> Iterator[LinuxHost]:
    monkeypatch.setattr(unikraft, "event_port", None)
    host = LinuxHost(unikraft.UnikraftDevices(module))
    module.calls.clear()
    yield host
    host.close()


def test_the_module_has_what_is_asked_of_it() -> None:
    offered = set(re.findall(r'^ {4}\{"(\w+)", module_', MODULE.read_text("utf-8"), re.M))
    made_up = {name for name in vars(MadeUpModule) if not name.startswith("_")}
    assert made_up <= offered
    assert offered - made_up == {"watchdog", "free_pages", "exit"}  # start.py's


def test_ports(module: MadeUpModule, host: LinuxHost) -> None:
    port = host.bind(7, 3)
    host.notify(port)
    host.unbind(port)
    assert module.calls == [("bind", 3), ("notify", port), ("unbind", port)]
    assert host.virq_port == 21 and host.poll_interval_s is None
    assert host.pending() == []
    module.raised = [21, 22]
    assert host.pending() == [21, 22] and host.pending() == []


def test_a_page_is_mapped_and_unmapped(module: MadeUpModule, host: LinuxHost) -> None:
    first, second = host.map_page(7, 0x1234), host.map_page(8, 0)
    assert sorted(module.mapped.values()) == [(7, 1), (8, 1)]
    first.store(2060, 0x89ABCDEF)
    assert first.load(2060) == 0x89ABCDEF
    first.close()
    assert list(module.mapped.values()) == [(8, 1)]
    second.close()
    assert not module.mapped
    for page in module.unmapped:
        with pytest.raises(ValueError, match="released"):
            page[0]  # P2 of module.c


def test_what_is_wanted_is_mapped_once(module: MadeUpModule) -> None:
    devices = unikraft.UnikraftDevices(module)
    wanted = [bytearray(MAP_GRANT_REF.pack(1, 0, 0, domid, 1)) for domid in (7, 8)]
    for argument in wanted:
        devices.ioctl(0, IOCTL_GNTDEV_MAP_GRANT_REF, argument)
    indices = [MAP_GRANT_REF.unpack(argument)[2] for argument in wanted]
    kept = [devices.map(0, PAGE, index) for index in indices]
    assert list(module.mapped.values()) == [(7, 1), (8, 1)]
    kept.append(devices.map(0, PAGE, indices[0]))
    assert list(module.mapped.values())[2:] == [(0, 1)]  # that of dom0's own ring


def test_what_xen_refuses_says_what_and_why(module: MadeUpModule, host: LinuxHost) -> None:
    module.refuses = True
    with pytest.raises(HostError, match=r"grant 1 of domain 7.*Invalid argument"):
        host.map_page(7, 0)
    with pytest.raises(HostError, match=r"binding port 3 of domain 7: No such"):
        host.bind(7, 3)
    module.refuses = False
    host.map_page(7, 0).close()


def test_dom0s_ring_is_the_command_lines(module: MadeUpModule, host: LinuxHost) -> None:
    assert host.own_ring() is None
    assert unikraft.take_event(["--drill"]) == ["--drill"] and unikraft.event_port is None
    assert unikraft.take_event(["--event", "14", "--drill"]) == ["--drill"]
    own = host.own_ring()
    assert own is not None and own.remote_port == 14
    assert list(module.mapped.values()) == [(0, 1)]
    own.page.close()
    assert not module.mapped


def test_the_port_of_dom0s_ring_is_found(module: MadeUpModule, host: LinuxHost) -> None:
    assert unikraft.take_event(["--event", "find", "--drill"]) == ["--drill"]
    module.for_us = 14
    own = host.own_ring()
    assert own is not None and own.remote_port == 14
    assert module.calls == [("bind", 14), ("unbind", 22)]  # the host is going to bind it
    own.page.close()
    module.refuses = True
    with pytest.raises(HostError, match="dom0's ring: No such device"):
        host.own_ring()


@pytest.mark.parametrize("words", [["--event"], ["--event", "none"]])
def test_no_port(words: list[str], host: LinuxHost) -> None:
    with pytest.raises(ValueError, match="--event"):
        unikraft.take_event(words)


def test_without_the_privilege_any_domain_may_have_changed(module: MadeUpModule) -> None:
    module.has_privilege = False
    host = LinuxHost(unikraft.UnikraftDevices(module))
    module.xen.domains[5] = Domain()
    assert host.changed() is None and host.changed() is None
    assert host.look(5) is not None and host.look(6) is None
    host.close()


def test_domains(module: MadeUpModule, host: LinuxHost) -> None:
    assert host.changed() is None and host.changed() == set()
    module.xen.domains[5] = Domain()
    state = host.look(5)
    assert state is not None and state.identity == identity_of(UUID)
    assert host.changed() == set()
    del module.xen.domains[5]
    assert host.changed() == {5}


def test_the_poll_is_the_wait(module: MadeUpModule, host: LinuxHost) -> None:
    poll = unikraft.Poll(module)
    module.raised = [21]
    assert poll.poll(0) == []
    poll.register(host.fileno(), select.EPOLLIN)
    poll.register(3, select.EPOLLIN)  # another one changes nothing
    poll.unregister(3)
    assert poll.poll(0.5) == [(host.fileno(), select.EPOLLIN)]
    module.raised = []
    assert poll.poll() == []
    assert module.waits == [0, 0.5, -1]
    poll.unregister(host.fileno())
    module.raised = [21]
    assert poll.poll(0) == []
    poll.close()


def test_elsewhere_there_is_no_such_host() -> None:
    with pytest.raises(ModuleNotFoundError):
        unikraft.host()
