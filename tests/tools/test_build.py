# SPDX-License-Identifier: Apache-2.0
"""How a domain is built, and where a PV domain's memory is. Method: Debian's libraries as a fake
that notes each call, and keeps a structure as libxenguest does; page tables that are made up.

Cannot show: whether Xen takes it (tests/xen, scenario rescue)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

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


class Tables:
    """Page tables in frames 1000 and up: `mapped` is what the direct map leads to."""

    def __init__(self, mapped: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: dict[int, dict[int, int]] = {1000: {}}
        self.reads = 0
        for address, frame in mapped.items():
            table = 1000
            for shift in (39, 30, 21):
                table = self._below(table, (frames.DIRECT_BASE + address) >> shift & 511)
            self.frames[table][address >> 12 & 511] = frame << 12 | 1 << 63 | 0x61
        monkeypatch.setattr(frames, "ForeignMemory", self.open)

    def _below(self, table: int, index: int) -> int:
        entry = self.frames[table].get(index)
        if entry is None:
            new = 1000 + len(self.frames)
            self.frames[new] = {}
            entry = self.frames[table][index] = new << 12 | 0x67
        return entry >> 12

    def open(self, domid: int, place: Place) -> Tables:
        """ForeignMemory."""
        assert place.size == PAGE_SIZE
        self._open = self.frames[place.address >> 12]
        self.reads += 1
        return self

    def read(self, offset: int, size: int) -> bytes:
        """A table."""
        return struct.pack("=512Q", *[self._open.get(index, 0) for index in range(512)])

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, name: str, domid: int, vcpu: int, context: ctypes.Array[ctypes.c_char],
             who: str) -> int:
        """Of libxenctrl: the top table is in frame 1000."""
        assert (name, domid, vcpu) == ("xc_vcpu_getcontext", 7, 0)
        struct.pack_into("=Q", context, frames.CONTEXT_CR3, 1000 << 12)
        return 0


DEAD = Domain(7, 0, FRAMES, 0, HANDLE, 1)


def test_frames_of_a_pv_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(3 * MIB, 15 * MIB)  # over the end of a table, not from its beginning
    mapped = {address: address * 7 // PAGE_SIZE + 1
              for address in range(place.address, place.address + place.size, PAGE_SIZE)}
    tables = Tables(mapped, monkeypatch)
    assert frames.of_domain(cast(Xen, tables), DEAD, place) == list(mapped.values())
    assert tables.reads == 5
    single = [17 * MIB, 15 * MIB]
    assert frames.of_pages(cast(Xen, tables), DEAD, single) == [mapped[page] for page in single]


def test_what_is_not_mapped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(2 * MIB, 16 * MIB)
    mapped = dict.fromkeys(range(16 * MIB, 18 * MIB, PAGE_SIZE), 5)
    del mapped[17 * MIB]
    for known in (mapped, {}):
        with pytest.raises(BootError, match="nothing mapped"):
            frames.of_domain(cast(Xen, Tables(known, monkeypatch)), DEAD, place)


def test_a_pvh_domain_has_its_own_numbers() -> None:
    domain = DEAD._replace(flags=DOMINF_HVM)
    assert frames.of_domain(cast(Xen, None), domain, Place()) is None
    assert frames.of_pages(cast(Xen, None), domain, [0x5000, 0x1000]) == [5, 1]


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
