# SPDX-License-Identifier: Apache-2.0
"""The order of a handover, and what is left when one of its steps fails. Method: fakes that note
what they are asked, and fail where they are told to.

Cannot show: whether Xen does what it is asked to (tests/xen, scenario handover)."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.tools.test_xsboot import MIB, PLACE, PORT, some_region
from tools.boot import consoles, dom0, frames, handover, process, region
from tools.boot.failure import BootError
from tools.boot.libxen import Xen
from tools.boot.place import MAGIC, NOTE, Place


def test_a_configuration_must_let_the_kernel_find_its_port(tmp_path: Path) -> None:
    path = tmp_path / "cfg"
    for text in ("", 'name = "x"\n', 'name = "x"\ncmdline = "log=debug"\n'):
        path.write_text(text)
        with pytest.raises(BootError):
            handover.read_config(str(path))
    path.write_text("name='x'\nextra='--event find region=2M'\n")
    assert handover.read_config(str(path)) == handover.Config(str(path), "x", Place(2 * MIB))
    kernel = tmp_path / "kernel"
    kernel.write_bytes(NOTE.pack(MAGIC, MIB, 3 * MIB))
    path.write_text(f"name='x'\nkernel = \"{kernel}\"\nextra='--event find'\n")
    assert handover.read_config(str(path)).place == Place(MIB, 3 * MIB)


@pytest.mark.parametrize("step", ["stop", "put", "set_up", "wait_until_served", ""])
def test_a_handover_that_fails_leaves_the_daemon(step: str, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails: the daemon is started again, unless the domain has answered."""
    done: list[str] = []

    def fake(name: str, result: object = None) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            done.append(name)
            if name == step:
                raise BootError(name)
            return result
        return call
    console = process.Daemon([b"console"], {})
    for owner, name, result in [
            (handover, "make_domain", 7),
            (dom0, "set_up", PORT), (handover, "wait_until_served", None), (dom0, "write", None),
            (consoles, "end_all", [console]), (process, "start", None), (handover, "_xl", "")]:
        monkeypatch.setattr(owner, name, fake(name, result))

    def fake_stop(server: handover.Server) -> None:
        path.write_bytes(some_region())  # what the daemon has done until its end
        fake("stop")()

    def fake_put(domid: int, place: Place, data: bytes, numbers: list[int]) -> None:
        assert (data, numbers) == (some_region(), [3])
        fake("put")()
    monkeypatch.setattr(handover, "stop", fake_stop)
    monkeypatch.setattr(region, "put", fake_put)
    monkeypatch.setattr(frames, "of_new", lambda xen, domid: [3])
    xen = SimpleNamespace(pause=fake("pause"), unpause=fake("unpause"),
                          tell_of_deaths=fake("virq"))
    monkeypatch.setattr(handover, "END_S", 0.0)
    path = tmp_path / "region"
    path.write_bytes(bytes(PLACE.size))
    server = handover.Server(1, process.Daemon([b"daemon"], {}), str(tmp_path / "s"), str(path))
    config = handover.Config("cfg", "stub", PLACE)
    if step:
        with pytest.raises(BootError, match=step):
            handover.hand_over(cast(Xen, xen), config, server, lambda text: None)
        assert done[-4:] == ["pause", "start", "start", "_xl"]
    else:
        assert handover.hand_over(cast(Xen, xen), config, server, lambda text: None) == 7
        assert done == ["make_domain", "end_all", "stop", "put", "set_up", "virq", "unpause",
                        "wait_until_served", "start", "write"]
    assert path.read_bytes() == some_region()


def test_a_daemon_that_has_not_ended_is_not_started_twice(tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "region"
    path.write_bytes(some_region())
    started: list[process.Daemon] = []
    monkeypatch.setattr(process, "start", started.append)
    monkeypatch.setattr(handover, "_xl", lambda server, *words: "")
    monkeypatch.setattr(handover, "END_S", 0.0)
    server = handover.Server(1, process.Daemon([b"daemon"], {}), str(tmp_path / "s"), str(path))
    xen = cast(Xen, SimpleNamespace(pause=lambda domid: None))
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        handover.go_back(xen, 7, server, [], lambda text: None)
        assert not started
    handover.go_back(xen, 7, server, [], lambda text: None)
    assert started == [server.daemon]
