# SPDX-License-Identifier: Apache-2.0
"""From a domain back to a daemon: the order, what is left when a step fails, and dom0's port, which
must be dom0's kernel's own again under its number. Method: fakes of Xen that keep to its rules.

Cannot show: that dom0's kernel does not notice (tests/xen, scenario handover)."""

from __future__ import annotations

import ctypes
import fcntl
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ring.linux import PRIVCMD_HYPERCALL
from tests.tools.test_xsboot import PLACE, PORT, some_region
from tools.boot import dom0, evtchn, frames, handover, region
from tools.boot.failure import BootError
from tools.boot.libxen import DOMID_SELF, Xen


class Ports:
    """Dom0's: the lowest that is free is given out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.used = {1, 2, PORT, PORT + 1}
        self.made: list[int] = []
        self.closed: list[int] = []
        self.made_before: list[int] = []  # how many were made before each that was closed
        self.taken_by_another = False
        self.is_served = False
        (tmp_path / "privcmd").touch()
        monkeypatch.setattr(evtchn, "PRIVCMD", str(tmp_path / "privcmd"))
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd: int, request: int, argument: bytes) -> int:
        """EVTCHNOP_close."""
        op, command, address, *_ = PRIVCMD_HYPERCALL.unpack(argument)
        assert (op, command) == (32, 3)
        port = ctypes.c_uint32.from_address(address).value
        self.used.remove(port)
        self.closed.append(port)
        self.made_before.append(len(self.made))
        if port == PORT and self.taken_by_another:
            self.used.add(PORT)
        return 0

    def call(self, name: str, domid: int, remote: int) -> int:
        """Of libxenctrl."""
        assert (name, domid, remote) == ("xc_evtchn_alloc_unbound", DOMID_SELF, DOMID_SELF)
        port = next(port for port in range(1, 10000) if port not in self.used)
        self.used.add(port)
        self.made.append(port)
        return port

    def is_connected(self, port: int) -> bool:
        """Whether somebody has bound its other end."""
        assert port == PORT
        return self.is_served


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ports:
    """Some are used, between them are free ones."""
    return Ports(monkeypatch, tmp_path)


def test_the_port_is_made_again_and_no_other_is_left(ports: Ports) -> None:
    evtchn.take(cast(Xen, ports), PORT)
    assert ports.used == {1, 2, PORT, PORT + 1} and ports.made[-1] == PORT
    assert ports.closed[0] == PORT and ports.made_before[0] == len(ports.made) - 1


def test_a_port_that_is_served_is_left_alone(ports: Ports) -> None:
    ports.is_served = True
    with pytest.raises(BootError, match="served by somebody"):
        evtchn.take(cast(Xen, ports), PORT)
    assert not ports.made and PORT in ports.used


def test_what_cannot_succeed_changes_nothing(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evtchn, "PORTS_MAX", 5)
    with pytest.raises(BootError, match="5 ports below"):
        evtchn.take(cast(Xen, ports), PORT)
    assert ports.used == {1, 2, PORT, PORT + 1} and PORT not in ports.closed


def test_a_number_that_somebody_else_gets(ports: Ports) -> None:
    ports.taken_by_another = True
    with pytest.raises(BootError, match="does not give"):
        evtchn.take(cast(Xen, ports), PORT)
    assert ports.used == {1, 2, PORT, PORT + 1} and ports.closed.count(PORT) == 1


@pytest.mark.parametrize("step", ["take", "save", ""])
def test_the_way_back(step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless the region is in the file, the domain runs on."""
    done: list[object] = []

    def note(name: str) -> None:
        done.append(name)
        if name == step:
            raise BootError(name)

    def fake_take(domid: int, place: object, numbers: Sequence[int]) -> bytes:
        assert (domid, place, numbers) == (7, PLACE, [3])
        note("take")
        return some_region()

    def fake_save(path: str, data: bytes) -> None:
        assert data == some_region()
        note("save")
    monkeypatch.setattr(frames, "of_domid", lambda domid, place: [3])
    monkeypatch.setattr(region, "take", fake_take)
    monkeypatch.setattr(region, "save", fake_save)
    monkeypatch.setattr(dom0, "port_of_ring", lambda: PORT)
    monkeypatch.setattr(evtchn, "take", lambda xen, port: note(f"port {port}"))
    xen = cast(Xen, SimpleNamespace(
        pause=lambda domid: note("pause"), unpause=lambda domid: note("unpause"),
        destroy=lambda domid: note("destroy")))
    if step:
        with pytest.raises(BootError, match=step):
            handover.take_back(xen, 7, PLACE, str(tmp_path / "file"))
        assert done[-1] == "unpause" and "destroy" not in done
    else:
        assert handover.take_back(xen, 7, PLACE, str(tmp_path / "file")) == PLACE.size
        assert done == ["pause", "take", "save", "destroy", f"port {PORT}"]
