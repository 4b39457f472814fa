# SPDX-License-Identifier: Apache-2.0
"""The order of a rescue and of a handover, and what is left when one of their steps fails. Method:
fakes that note what they are asked, and fail where they are told to.

Cannot show: whether Xen does what it is asked to (tests/xen, scenarios rescue and handover)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.tools.test_xsboot import HANDLE, MIB, PLACE, PORT, some_region
from tools.boot import (
    build,
    consoles,
    dom0,
    frames,
    handover,
    process,
    region,
    rescue,
    snapshot,
    watch,
)
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.libxen import (
    DOMINF_DYING,
    DOMINF_HVM,
    DOMINF_SHUTDOWN,
    DOMINF_XS_DOMAIN,
    Domain,
    Xen,
)
from tools.boot.place import MAGIC, NOTE, Place

BUILT = ["build", "put", "virq", "prefer", "unpause"]
FILES = build.Files(b"kernel", b"ramdisk")


class Looked(Exception):
    """A watcher has looked once."""


class FakeXen:
    """One domain, and what is done to it."""

    def __init__(self, saved: Path) -> None:
        self.there: Domain | None = domain(DOMINF_SHUTDOWN)
        self.done: list[str] = []
        self.holders = 0
        self.is_mapped = False
        self.saved = saved

    def domain(self, domid: int) -> Domain | None:
        """Whether it is there."""
        assert domid == 7
        return self.there

    def destroy(self, domid: int) -> None:
        """R1: not before everything is in files; and nothing of it is mapped."""
        assert not self.is_mapped
        assert rescue.recall(str(self.saved)) is not None
        self.done.append("destroy")
        self.there = domain(DOMINF_DYING) if self.holders else None

    def is_gone(self, domid: int, within_s: float) -> bool:
        """At once or never."""
        return self.there is None

    def tell_of_deaths(self, domid: int) -> None:
        """VIRQ_DOM_EXC."""
        self.done.append("virq")

    def prefer(self, domid: int) -> None:
        """The processor is its first."""
        self.done.append("prefer")

    def unpause(self, domid: int) -> None:
        """It runs."""
        assert self.done[-2:] == ["virq", "prefer"]
        self.done.append("unpause")


def domain(flags: int) -> Domain:
    """A xenstore domain of 64 MiB."""
    return Domain(7, DOMINF_XS_DOMAIN | DOMINF_HVM | flags, 64 * 256 + 8, 12, HANDLE, 1, 0)


class Scene:
    """A dead domain, and everything that a rescue uses, as fakes."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saved = directory / "saved"
        self.xen = FakeXen(self.saved)
        self.plans: list[build.Plan] = []
        self.failures: list[str] = []
        self.said: list[str] = []
        self.slept: list[float] = []
        self.snapshot: bytes | None = None
        for name in ("kernel", "ramdisk"):
            (directory / name).write_bytes(b"")
        self.image = rescue.Image(str(directory / "kernel"), str(directory / "ramdisk"),
                                  "log=debug region=1M", PLACE)

        def fake_build(xen: object, plan: build.Plan, files: build.Files) -> None:
            assert files == FILES
            if self.failures:
                raise BootError(self.failures.pop())
            self.plans.append(plan)
            self.xen.there = domain(0)
            self.xen.done.append("build")

        def fake_put(domid: int, place: Place, data: bytes, numbers: None) -> None:
            if data == self.snapshot:
                assert place == Place(len(data), PLACE.address + PLACE.size)
                self.xen.done.append("put snapshot")
                return
            assert (domid, place, data) == (7, PLACE, some_region())
            self.xen.done.append("put")
        monkeypatch.setattr(rescue, "build", fake_build)
        monkeypatch.setattr(snapshot, "take", lambda xen, domain: self.snapshot)
        monkeypatch.setattr(rescue, "open_region", self.open)
        monkeypatch.setattr(region, "copy", lambda memory: some_region())
        monkeypatch.setattr(region, "put", fake_put)
        monkeypatch.setattr(dom0, "port_of_ring", lambda: PORT)
        monkeypatch.setattr(dom0, "wait_for_answer", lambda within_s, has_ended: None)
        monkeypatch.setattr(consoles, "end_all", self.end_consoles)
        monkeypatch.setattr(consoles, "start", lambda daemon, tell: self.xen.done.append("start"))
        monkeypatch.setattr(watch.time, "sleep", self.sleep)

    def open(self, xen: object, domain: Domain, place: Place) -> ForeignMemory:
        """The region is mapped; this is the mapping, too."""
        assert place == self.image.place and self.xen.there is not None
        self.xen.is_mapped = True
        return cast(ForeignMemory, self)

    def close(self) -> None:
        """The mapping."""
        self.xen.is_mapped = False

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sleep(self, pause_s: float) -> None:
        """Between two looks there is nothing to see here."""
        if pause_s == watch.POLL_S:
            raise Looked
        self.slept.append(pause_s)

    def end_consoles(self, tell: Callable[[str], None]) -> list[process.Daemon]:
        """One xenconsoled, which holds on to a page."""
        self.xen.done.append("end consoles")
        self.xen.holders -= 1
        if not self.xen.holders:
            self.xen.there = None
        return [process.Daemon([b"xenconsoled"], {})]

    def gather(self) -> rescue.Remains:
        """The first half of a rescue."""
        return rescue.gather(cast(ForeignMemory, self), domain(DOMINF_SHUTDOWN), self.image,
                             str(self.saved))

    def watcher(self) -> watch.Watcher:
        """A watcher of the domain."""
        return watch.Watcher(cast(Xen, self.xen), 7, self.image, FILES, str(self.saved),
                             self.said.append)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A dead domain."""
    return Scene(tmp_path, monkeypatch)


def test_a_dead_domain_is_rescued(scene: Scene) -> None:
    scene.watcher().look()
    assert scene.xen.done == ["destroy", *BUILT]
    assert scene.plans == [build.Plan(7, HANDLE, 12, True, 64, scene.image.kernel,
                                      scene.image.ramdisk, "--event 14 log=debug region=1M")]
    assert not scene.saved.exists() and not scene.slept


def test_a_living_domain_is_left_alone(scene: Scene) -> None:
    scene.xen.there = domain(0)
    scene.watcher().look()
    assert not scene.xen.done


@pytest.mark.parametrize("there", [None, domain(DOMINF_DYING | DOMINF_SHUTDOWN)])
def test_a_domain_that_is_destroyed_ends_the_watch(scene: Scene, there: Domain | None) -> None:
    watcher = scene.watcher()
    watcher.get_ready()
    assert scene.xen.is_mapped
    scene.xen.there = there
    with pytest.raises(BootError, match="is destroyed"):
        watcher.look()
    assert not scene.xen.is_mapped


def test_xenconsoled_is_ended_and_started_again(scene: Scene) -> None:
    scene.xen.holders = 1
    scene.watcher().look()
    assert scene.xen.done == ["destroy", "end consoles", *BUILT, "start"]


def test_a_domain_that_does_not_go_is_told_of_and_tried_again(scene: Scene) -> None:
    scene.xen.holders = 2
    watcher = scene.watcher()
    watcher.look()
    assert any("does not go away" in line for line in scene.said) and scene.saved.exists()
    assert scene.xen.done == ["destroy", "end consoles", "start"]
    watcher.look()
    assert scene.xen.done[-1] == "start" and not scene.saved.exists()


def test_failures_wait_ever_longer_and_lose_nothing(scene: Scene) -> None:
    scene.failures = ["no memory"] * 8
    watcher = scene.watcher()
    for _ in range(9):
        watcher.look()
    assert scene.slept == [0.5, 1, 2, 4, 8, 16, 30, 30] and watcher.rescued == 1


def test_domains_that_die_young_wait_ever_longer(scene: Scene) -> None:
    watcher = scene.watcher()
    for _ in range(watch.YOUNG_FREE + 4):
        scene.xen.there = domain(DOMINF_SHUTDOWN)
        watcher.look()
    assert scene.slept == [0.5, 1, 2]


def test_a_pv_domain_is_rescued_as_one(scene: Scene) -> None:
    scene.xen.there = domain(DOMINF_SHUTDOWN)._replace(flags=DOMINF_XS_DOMAIN | DOMINF_SHUTDOWN)
    scene.watcher().look()
    assert scene.xen.done == ["destroy", *BUILT] and not scene.plans[0].is_pvh
    for flags, kernel in [(DOMINF_HVM, "kernel.elf"), (0, "kernel-pv.elf")]:
        plan = rescue.plan_of(domain(0)._replace(flags=flags), scene.image._replace(kernel=None),
                              PORT)
        assert os.path.basename(plan.kernel) == kernel


@pytest.mark.parametrize("flags", [0, DOMINF_SHUTDOWN])
def test_a_successor_that_has_run_is_not_replaced_by_the_file(scene: Scene, flags: int) -> None:
    """It may have served already: what it has in memory is newer."""
    scene.gather()
    for there, is_taken_up in [(None, True), (domain(flags)._replace(cpu_time_ns=0), True),
                               (domain(DOMINF_DYING), True), (domain(flags), False)]:
        scene.xen.there = there
        found = rescue.interrupted(cast(Xen, scene.xen), str(scene.saved))
        assert (found is not None) == is_taken_up == scene.saved.exists()


def test_a_successor_that_does_not_answer_is_left_alone(scene: Scene,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(within_s: float, has_ended: Callable[[], bool]) -> None:
        raise BootError("no answer in time")
    monkeypatch.setattr(dom0, "wait_for_answer", silence)
    watcher = scene.watcher()
    watcher.look()
    assert scene.xen.done[-1] == "unpause" and not scene.saved.exists()
    watcher.look()
    assert scene.xen.done.count("destroy") == 1


def test_a_successor_starts_from_a_snapshot(scene: Scene) -> None:
    """The first domain's, unless a rescue with it has failed; a later watcher has it, too."""
    scene.snapshot = b"snapshot"
    watcher = scene.watcher()
    watcher.get_ready()
    watcher.look()
    assert scene.xen.done == ["destroy", "build", "put", "put snapshot", *BUILT[2:]]
    scene.xen.done.clear()
    scene.gather()
    scene.xen.there = None
    later = scene.watcher()
    with pytest.raises(Looked):
        later.run()
    assert scene.xen.done == ["build", "put", "put snapshot", *BUILT[2:]]
    scene.xen.there, scene.failures = domain(DOMINF_SHUTDOWN), ["it has ended at once"]
    scene.xen.done.clear()
    watcher.look()
    watcher.look()
    assert scene.xen.done == ["destroy", *BUILT]


def test_a_snapshot_that_has_no_room_is_left_out(scene: Scene) -> None:
    scene.snapshot = bytes(64 * MIB - PLACE.address - PLACE.size + 1)
    watcher = scene.watcher()
    watcher.get_ready()
    watcher.look()
    assert scene.xen.done == ["destroy", *BUILT]


def test_half_a_rescue_is_recalled(scene: Scene) -> None:
    before = scene.gather()
    assert rescue.recall(str(scene.saved)) == before and before.plan.handle == HANDLE
    (scene.saved.parent / "saved.json").write_text("{}")
    with pytest.raises(BootError):
        rescue.recall(str(scene.saved))


def test_a_death_between_the_files_is_no_rescue(scene: Scene,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Until both are there, the dead domain is what counts."""
    save = region.save

    def save_once(path: str, data: bytes) -> None:
        save(path, data)
        raise Looked
    monkeypatch.setattr(region, "save", save_once)
    with pytest.raises(Looked):
        scene.gather()
    assert rescue.recall(str(scene.saved)) is None


def test_the_successor_is_as_large_as_the_dead_one(scene: Scene) -> None:
    large = domain(0)._replace(pages=96 * 256 + 8)
    assert rescue.plan_of(large, scene.image, PORT).memory_mib == 96
    assert rescue.plan_of(large, scene.image._replace(memory_mib=80), PORT).memory_mib == 80


def test_what_cannot_be_built_is_refused_before_the_domain_is_given_up(scene: Scene) -> None:
    scene.image = scene.image._replace(place=Place(PLACE.size, 64 * MIB))
    scene.watcher().look()
    assert not scene.xen.done and "does not lie in 64 MiB" in scene.said[-1]
    with pytest.raises(BootError, match="cannot be read"):
        build.load(rescue.plan_of(domain(0), scene.image._replace(ramdisk="/nowhere"), PORT))


def test_a_region_from_a_file_without_a_domain(scene: Scene, tmp_path: Path) -> None:
    source, xen = str(tmp_path / "source"), cast(Xen, scene.xen)
    region.save(source, some_region())
    with pytest.raises(BootError, match="--domid and --memory"):
        rescue.gather_from(xen, source, None, scene.image, None, False, str(scene.saved))
    for is_pv in (False, True):
        found = rescue.gather_from(xen, source, None, scene.image._replace(memory_mib=96), 9,
                                   is_pv, str(scene.saved))
        assert found.plan.domid == 9 and found.plan.memory_mib == 96 and found.plan.is_xenstore
        assert found.plan.is_pvh == (not is_pv)


# -- handover


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
