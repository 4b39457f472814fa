# SPDX-License-Identifier: Apache-2.0
"""The order of a rescue, and what is left when one of its steps fails. Method: fakes that note what
they are asked, and fail where they are told to.

Cannot show: whether Xen does what it is asked to (tests/xen, scenario rescue)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.tools.test_xsboot import HANDLE, MIB, PLACE, PORT, some_region
from tools.boot import (
    build,
    consoles,
    dom0,
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
from tools.boot.place import Place

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
        self.is_in_the_way = False
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
                if self.is_in_the_way:
                    raise BootError("not there")
                return
            assert (domid, place, data) == (7, PLACE, some_region())
            self.xen.done.append("put")
        monkeypatch.setattr(rescue, "build", fake_build)
        monkeypatch.setattr(snapshot, "take", lambda domain, known: self.snapshot)
        monkeypatch.setattr(rescue, "open_region", self.open)
        monkeypatch.setattr(region, "copy", lambda memory: some_region())
        monkeypatch.setattr(region, "put", fake_put)
        monkeypatch.setattr(dom0, "port_of_ring", lambda: PORT)
        monkeypatch.setattr(dom0, "wait_for_answer", lambda within_s, has_ended: None)
        monkeypatch.setattr(consoles, "end_all", self.end_consoles)
        monkeypatch.setattr(consoles, "start", lambda daemon, tell: self.xen.done.append("start"))
        monkeypatch.setattr(watch.time, "sleep", self.sleep)

    def open(self, domain: Domain, place: Place) -> ForeignMemory:
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


@pytest.mark.parametrize("is_silent", [False, True])
def test_what_fails_after_it_has_run_waits_ever_longer(scene: Scene, is_silent: bool,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A successor that ends before it answers; a region that cannot be taken."""
    def fail(*_: object) -> None:
        scene.xen.there = domain(DOMINF_SHUTDOWN)
        raise BootError("failed")
    owner, name = (dom0, "wait_for_answer") if is_silent else (region, "copy")
    works = getattr(owner, name)
    monkeypatch.setattr(owner, name, fail)
    watcher = scene.watcher()
    for _ in range(4):
        watcher.look()
    assert scene.slept == [0.5, 1, 2] and watcher.rescued == 0
    monkeypatch.setattr(owner, name, works)
    watcher.look()
    assert scene.slept == [0.5, 1, 2, 4] and watcher.rescued == 1
    monkeypatch.setattr(watch, "YOUNG_S", 0.0)  # it has lived
    scene.xen.there = domain(DOMINF_SHUTDOWN)
    watcher.look()
    assert scene.slept == [0.5, 1, 2, 4] and watcher.rescued == 2


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


def test_the_snapshot_is_that_of_the_newest_domain(scene: Scene) -> None:
    """One that could not use the old one, being another image's, has taken one of its own."""
    watcher = scene.watcher()
    for number in range(3):
        scene.snapshot = b"snapshot %d" % number
        watcher.get_ready()
        assert region.load_own(f"{scene.saved}.start") == scene.snapshot
        scene.xen.there = domain(DOMINF_SHUTDOWN)
        watcher.look()
        assert "put snapshot" in scene.xen.done
        scene.xen.done.clear()
    scene.xen.there = None
    with pytest.raises(BootError, match="is destroyed"):
        watcher.look()
    assert not [path for path in scene.saved.parent.iterdir() if path.name.startswith("saved")]


def test_a_snapshot_that_cannot_be_put_is_left_out(scene: Scene) -> None:
    scene.snapshot, scene.is_in_the_way = b"snapshot", True
    watcher = scene.watcher()
    watcher.get_ready()
    watcher.look()
    assert watcher.rescued == 1 and scene.xen.done[-1] == "unpause"


def test_one_at_a_time(scene: Scene) -> None:
    with rescue.alone(str(scene.saved)):
        with pytest.raises(BootError, match="already"), rescue.alone(str(scene.saved)):
            pass
        child = os.fork()
        if not child:
            os._exit(0)  # what it starts does not hold the lock, nor give it up
        os.waitpid(child, 0)
        with pytest.raises(BootError, match="already"), rescue.alone(str(scene.saved)):
            pass
    with rescue.alone(str(scene.saved)):
        pass


def test_what_somebody_else_has_left_is_not_recalled(scene: Scene,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the xenstore of this host, and its kernel."""
    scene.gather()
    (scene.saved.parent / "saved.start").write_bytes(b"snapshot")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert rescue.recall(str(scene.saved)) is None
    scene.xen.there, scene.snapshot = domain(0), None
    with pytest.raises(Looked):
        scene.watcher().run()
    assert not scene.xen.done


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
    source = str(tmp_path / "source")
    region.save(source, some_region())
    with pytest.raises(BootError, match="--domid and --memory"):
        rescue.gather_from(source, None, scene.image, None, False, str(scene.saved))
    for is_pv in (False, True):
        found = rescue.gather_from(source, None, scene.image._replace(memory_mib=96), 9, is_pv,
                                   str(scene.saved))
        assert found.plan.domid == 9 and found.plan.memory_mib == 96 and found.plan.is_xenstore
        assert found.plan.is_pvh == (not is_pv)
