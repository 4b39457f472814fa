# SPDX-License-Identifier: Apache-2.0
"""How a domain is built, and where a PV domain's memory is. Method: Debian's libraries as a fake
that notes each call, and keeps a structure as libxenguest does; a tree of frames that is made up.

Cannot show: whether Xen takes it (tests/xen, scenario rescue)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from tests.tools.test_xsboot import HANDLE, MIB
from tools.boot import build, frames, region
from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE
from tools.boot.libxen import DOMINF_HVM, Domain, Xen
from tools.boot.place import Place

PVH = build.Plan(7, HANDLE, 12, True, 96, "/kernel", "/ramdisk", "--event 14")
PV = PVH._replace(is_pvh=False)
FILES = build.Files(b"kernel", b"the ramdisk")
FRAMES = 96 * 256


class Library:
    """libxenctrl and libxenguest."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.failing = ""
        self.made = 7  # the domid that Xen gives
        self.image = ctypes.create_string_buffer(2048)
        self.p2m = (ctypes.c_uint64 * FRAMES)(*range(1000, 1000 + FRAMES))
        self._set("pv_p2m", ctypes.addressof(self.p2m))
        self.guest = SimpleNamespace(
            xc_dom_allocate=lambda *_: ctypes.addressof(self.image),
            xc_dom_strdup=lambda image, text: self.note("strdup", text) or 77,
            xc_dom_release=lambda image: self.note("release"))
        self.handle = 1

    def note(self, *words: object) -> None:
        """One call."""
        self.calls.append(words)
        if words[0] == self.failing:
            raise BootError(self.failing)

    def call(self, name: str, *arguments: object, who: str = "") -> int:
        """libxenctrl."""
        if name == "xc_domain_create":
            cast(ctypes.c_uint32, arguments[0]._obj).value = self.made  # type: ignore[attr-defined]
            self.note(name, *build.CREATE.unpack(arguments[1].raw))  # type: ignore[attr-defined]
        else:
            self.note(name, *arguments)
        return 5

    def guest_call(self, name: str, image: int, *arguments: object, who: str = "") -> int:
        """libxenguest."""
        self.note(name, *arguments)
        return 0

    def destroy(self, domid: int) -> None:
        """Of a domain."""
        self.note("destroy", domid)

    def get(self, name: str) -> int:
        """A field of the image."""
        offset, kind = build.FIELDS[name]
        return int(kind.from_buffer(self.image, offset).value)

    def _set(self, name: str, value: int) -> None:
        offset, kind = build.FIELDS[name]
        kind.from_buffer(self.image, offset).value = value

    def names(self) -> list[object]:
        """What was called."""
        return [words[0] for words in self.calls]


def built(plan: build.Plan) -> tuple[Library, Sequence[int] | None]:
    """A domain, and how it came about."""
    library = Library()
    return library, build.build(cast(Xen, library), plan, FILES)


def created(library: Library) -> tuple[int, int]:
    """Flags, and the emulated devices."""
    words = next(words for words in library.calls if words[0] == "xc_domain_create")
    return cast(int, words[3]), cast(int, words[-2])


def test_a_pvh_domain() -> None:
    library, numbers = built(PVH)
    assert numbers is None and library.names()[-1] == "release"
    assert created(library) == (build.CDF_HVM | build.CDF_HAP | build.CDF_XS_DOMAIN, 1)
    assert "xc_domain_set_memory_map" in library.names()
    assert "xc_domain_set_memmap_limit" not in library.names()
    assert ("xc_domain_setmaxmem", 7, 96 * 1024 + 32) in library.calls
    assert library.get("container_type") == build.CONTAINER_HVM
    assert library.get("target_pages") == FRAMES and library.get("lowmem_end") == 96 * MIB
    assert library.get("console_evtchn") == 5 and library.get("max_vcpus") == 1
    assert ("xc_dom_kernel_mem", b"kernel", 6) in library.calls
    assert ("xc_dom_module_mem", b"the ramdisk", 11, None) in library.calls
    assert library.get("xenstore_domid") == library.get("guest_domid") == 7


def test_a_pv_domain() -> None:
    library, numbers = built(PV)
    assert numbers == list(range(1000, 1000 + FRAMES))
    assert created(library) == (build.CDF_XS_DOMAIN, 0)
    assert "xc_domain_set_memory_map" not in library.names()
    assert ("xc_domain_set_memmap_limit", 7, 96 * 1024) in library.calls
    assert ("xc_domain_setmaxmem", 7, 96 * 1024) in library.calls
    assert library.get("container_type") == build.CONTAINER_PV and not library.get("target_pages")


def test_without_the_privilege() -> None:
    library, _ = built(PVH._replace(is_xenstore=False))
    assert not created(library)[0] & build.CDF_XS_DOMAIN


def test_what_is_built_halfway_is_destroyed() -> None:
    for failing in ("xc_dom_build_image", "xc_dom_gnttab_init", "xc_domain_setmaxmem"):
        library = Library()
        library.failing = failing
        with pytest.raises(BootError, match=failing):
            build.build(cast(Xen, library), PVH, FILES)
        assert library.calls[-2:] == [("destroy", 7), ("release",)]


def test_a_bad_kernel_makes_no_domain() -> None:
    library = Library()
    library.failing = "xc_dom_parse_image"
    with pytest.raises(BootError):
        build.build(cast(Xen, library), PVH, FILES)
    assert "xc_domain_create" not in library.names() and "destroy" not in library.names()


def test_another_domid_is_given_back() -> None:
    library = Library()
    library.made = 9
    with pytest.raises(BootError, match="domain 9 instead of 7"):
        build.build(cast(Xen, library), PVH, FILES)
    assert ("destroy", 9) in library.calls and ("destroy", 7) not in library.calls


# -- a PV domain's memory


DEAD = Domain(7, 0, FRAMES, 0, HANDLE, 1, 99)


class MachineFrames:
    """Memory of a PV domain by the machine's frames. Stands for ForeignMemory."""

    pages: ClassVar[dict[int, bytes]] = {}

    def __init__(self, domid: int, place: Place, frames: Sequence[int]) -> None:
        self.size = place.size
        self._data = b"".join(self.pages[frame] for frame in frames)
        assert len(self._data) == place.size

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes."""
        return self._data[offset:offset + size]

    def __enter__(self) -> MachineFrames:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("first, count", [(0, 256), (511, 2), (4096, 4096), (262143, 2),
                                          (262144, 256), (523776, 512)])
def test_the_frames_of_a_pv_domain(monkeypatch: pytest.MonkeyPatch, first: int, count: int) -> None:
    """A domain of 2 GiB, whose page n is frame 3n + 10**6: the tree is followed, across its pages'
    ends, to what is asked for and no further than that needs."""
    def page(words: Sequence[int]) -> bytes:
        return struct.pack(f"<{len(words)}Q", *words).ljust(PAGE_SIZE, b"\0")

    pages = {99: bytes(3096) + struct.pack("<Q", 100) + bytes(992), 100: page([200, 201])}
    for index in range(2):
        pages[200 + index] = page(range(1000 + 512 * index, 1512 + 512 * index))
    for index in range(first // 512, (first + count - 1) // 512 + 1):
        pages[1000 + index] = page([3 * (512 * index + at) + 10**6 for at in range(512)])
    monkeypatch.setattr(MachineFrames, "pages", pages)
    monkeypatch.setattr(frames, "ForeignMemory", MachineFrames)
    domain = Domain(7, 0, 0, 0, HANDLE, 0, 99)
    place = Place(count * PAGE_SIZE, first * PAGE_SIZE)
    assert frames.of_domain(domain, place) == [3 * (first + at) + 10**6 for at in range(count)]
    pages[99] = bytes(PAGE_SIZE)
    with pytest.raises(BootError, match="does not tell where"):
        frames.of_domain(domain, place)


class NewDomain:
    """A PV domain of PAGES_NEW pages as its builder leaves it. Stands for Xen."""

    flags = 0

    def domain(self, domid: int) -> Domain | None:
        """As Xen.domain()."""
        return Domain(7, self.flags, PAGES_NEW, 0, HANDLE, 0, 99) if domid == 7 else None

    def call(self, name: str, domid: int, vcpu: int, context: Any, who: str) -> int:
        """xc_vcpu_getcontext."""
        assert (name, domid, vcpu) == ("xc_vcpu_getcontext", 7, 0)
        frames.START_INFO_VA.pack_into(context, 0, START_VA)
        context[frames.PAGE_TABLES.size - 8:frames.PAGE_TABLES.size] = struct.pack("<Q", 50 << 12)
        return 0


PAGES_NEW = 1000
START_VA, LIST_VA = 0xFFFFFFFF80200040, 0xFFFFFFFF803FF000  # the list: across a page table's end


def new_memory() -> dict[int, bytes]:
    """Its page tables in 50 to 54, start_info in 60, the list in 70 and 80."""
    def page(entries: dict[int, int]) -> bytes:
        words = [entries.get(index, 0) for index in range(512)]
        return struct.pack("<512Q", *words)
    flags = 0x8000000000000067  # not executable, dirty, accessed, user, writable, present
    numbers = [2 * index + 7 for index in range(PAGES_NEW)] + [0] * 24
    start = frames.START_INFO.pack(b"xen-3.0-x86_64", PAGES_NEW, LIST_VA)
    return {50: page({511: 51 << 12 | flags}), 51: page({510: 52 << 12 | flags}),
            52: page({1: 53 << 12 | flags, 2: 54 << 12 | flags}),
            53: page({0: 60 << 12 | flags, 511: 70 << 12 | flags}), 54: page({0: 80 << 12 | flags}),
            60: bytes(0x40) + start + bytes(PAGE_SIZE - 0x40 - len(start)),
            70: struct.pack("<512Q", *numbers[:512]), 80: struct.pack("<512Q", *numbers[512:])}


def test_the_frames_of_a_pv_domain_that_has_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = new_memory()
    monkeypatch.setattr(MachineFrames, "pages", pages)
    monkeypatch.setattr(frames, "ForeignMemory", MachineFrames)
    xen = cast(Xen, NewDomain())
    assert frames.of_new(xen, 7) == [2 * index + 7 for index in range(PAGES_NEW)]
    pages[54] = bytes(PAGE_SIZE)
    with pytest.raises(BootError, match="nothing at 0xffffffff80400000"):
        frames.of_new(xen, 7)
    for start in (b"yen-3.0", b"xen-3.0"):
        info = frames.START_INFO.pack(start, PAGES_NEW + (start[:1] == b"x"), LIST_VA)
        pages[60] = bytes(0x40) + info.ljust(PAGE_SIZE - 0x40, b"\0")
        with pytest.raises(BootError, match="not as a PV domain starts"):
            frames.of_new(xen, 7)
    with pytest.raises(BootError, match="no domain 8"):
        frames.of_new(xen, 8)
    monkeypatch.setattr(NewDomain, "flags", DOMINF_HVM)
    assert frames.of_new(xen, 7) is None


def test_a_pvh_domain_has_its_own_numbers() -> None:
    domain = DEAD._replace(flags=DOMINF_HVM)
    assert frames.of_domain(domain, Place()) is None
    assert frames.of_pages(domain, [0x5000, 0x1000]) == [5, 1]


def test_a_region_is_put_where_its_frames_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    class Fake:
        """ForeignMemory."""

        def __init__(self, domid: int, place: Place, may_write: bool,
                     frames: Sequence[int] | None) -> None:
            seen.append(frames)

        def write(self, offset: int, data: bytes) -> None:
            """All of it."""
            assert offset == 0

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            pass
    monkeypatch.setattr(region, "ForeignMemory", Fake)
    region.put(7, Place(2 * PAGE_SIZE, 3 * PAGE_SIZE), bytes(2 * PAGE_SIZE), range(100, 200))
    region.put(7, Place(PAGE_SIZE, 0), bytes(PAGE_SIZE))
    assert seen == [range(103, 105), None]
    with pytest.raises(BootError, match="does not lie in its memory"):
        region.put(7, Place(2 * PAGE_SIZE, 99 * PAGE_SIZE), bytes(2 * PAGE_SIZE), range(100))
