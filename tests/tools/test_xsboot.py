# SPDX-License-Identifier: Apache-2.0
"""xsboot, as far as it needs no Xen: layouts beside Xen's headers, memory of a domain that is a
file here, what is refused, processes that are ended and started.

Cannot show: whether Xen does what it is asked to (tests/xen, scenario rescue)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from persist import layout
from tests.crash.world import ArrayMedium, Life
from tools.boot import (
    build,
    consoles,
    foreign,
    frames,
    libxen,
    process,
    region,
    rescue,
)
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.libxen import (
    DOMINF_HVM,
    DOMINF_SHUTDOWN,
    DOMINF_XS_DOMAIN,
    Domain,
)
from tools.boot.place import MAGIC, NOTE, Place, parse_place, place_in, place_of_image
from tools.xsboot import main as xsboot_main

ROOT = Path(__file__).resolve().parents[2]
XSBOOT = str(ROOT / "tools" / "xsboot")
TIMEOUT_S = 30
MIB = 1 << 20
PLACE = Place(layout.REGION_SIZE_MIN, 16 * MIB)
HANDLE = bytes(range(16))
PORT = 14


def xsboot(*words: str) -> tuple[int, str]:
    """Run the command; exit code and all that it said."""
    done = subprocess.run([XSBOOT, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout


def some_region() -> bytes:
    """The region of a life that has just stopped."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((11, 0, b"/a\0value"))
    return bytes(life.medium.bytes)


# -- the words


def test_help_has_examples() -> None:
    code, text = xsboot("--help")
    assert code == 0 and "examples:" in text and "exit codes:" in text


@pytest.mark.parametrize("words", [
    (), ("dance",), ("read", "1"), ("read", "0", "f"), ("read", "x", "f"),
    ("read", "1", "f", "--region", "4K"), ("rescue", "--memory", "much"),
    ("watch", "--domid", "-1"), ("core", "1"), ("core", "0", "f"),
])
def test_wrong_words(words: tuple[str, ...]) -> None:
    code, text = xsboot(*words)
    assert code == 2 and "usage: xsboot" in text


@pytest.mark.skipif(os.path.exists("/dev/xen/privcmd"), reason="this is a domain of Xen")
@pytest.mark.parametrize("words", [("read", "1", "/nonexistent"), ("core", "1", "/nonexistent"),
                                   ("rescue",), ("watch",)])
def test_without_xen_it_says_so(words: tuple[str, ...]) -> None:
    code, text = xsboot(*words)
    assert code == 1 and "xsboot: " in text and "Traceback" not in text


@pytest.mark.parametrize("text, place", [
    ("16M@16M", Place()), ("1M", Place(MIB)), ("0x100000@0x2000000", Place(MIB, 32 * MIB)),
    ("1G@1G", Place(1 << 30, 1 << 30)),
])
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place == parse_place(str(place))


@pytest.mark.parametrize("text", ["", "@", "16M@", "1M@1", "4097@0", "1K", "4G@1M", "M", "-1M",
                                  "1T"])
def test_no_places(text: str) -> None:
    with pytest.raises(BootError):
        parse_place(text)


def test_the_place_on_a_command_line() -> None:
    assert place_in("") == place_in("log=debug -- region=1M") == Place()
    assert place_in("region=1M --drill region=2M@32M -- --x") == Place(2 * MIB, 32 * MIB)


def test_the_place_in_a_kernel(tmp_path: Path) -> None:
    kernel, place = tmp_path / "kernel", Place(2 * MIB, 0x901000)
    kernel.write_bytes(b"\x7fELF " + NOTE.pack(MAGIC, place.size, place.address) + b"more")
    assert parse_place(str(kernel)) == place == place_of_image(str(kernel), "region=1M")
    kernel.write_bytes(b"\x7fELF" + MAGIC)
    assert place_of_image(str(kernel), "region=1M") == Place(MIB)
    assert place_of_image(None, "region=1M") == Place(MIB)
    with pytest.raises(BootError, match="does not say where"):
        parse_place(str(kernel))
    kernel.write_bytes(NOTE.pack(MAGIC, 2 * MIB, 7))
    with pytest.raises(BootError, match="whole pages"):
        place_of_image(str(kernel), "")
    with pytest.raises(BootError, match="cannot be read"):
        parse_place(str(tmp_path / "none"))


# -- structures


def test_layouts_are_those_of_the_headers(tmp_path: Path) -> None:
    """Offsets in structures, beside Debian's headers of the same version."""
    image = "\n".join(f'SHOW(struct xc_dom_image, {name}, {offset}, {ctypes.sizeof(kind)});'
                      for name, (offset, kind) in build.FIELDS.items())
    (tmp_path / "check.c").write_text(f"""
#include <stddef.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenguest.h>
#define SHOW(type, field, at, size) _Static_assert(offsetof(type, field) == at && \\
    sizeof(((type *)0)->field) == size, #field)
{image}
_Static_assert(XEN_DOMCTL_INTERFACE_VERSION == 0x15, "4.17");
_Static_assert(sizeof(xc_domaininfo_t) == {libxen.INFO_SIZE}, "info");
_Static_assert(sizeof(struct xen_domctl_createdomain) == {build.CREATE.size}, "create");
SHOW(struct xen_domctl_createdomain, flags, 20, 4);
SHOW(struct xen_domctl_createdomain, max_grant_frames, 36, 4);
SHOW(struct xen_domctl_createdomain, arch.emulation_flags, 56, 4);
SHOW(struct evtchn_status, status, 8, 4);
_Static_assert(XC_DOM_PV_CONTAINER == {build.CONTAINER_PV}, "PV");
SHOW(struct xen_domctl_sched_credit2, cap, 2, 2);
_Static_assert(sizeof(struct evtchn_status) == {libxen.EVTCHN_STATUS.size} &&
    EVTCHNSTAT_interdomain == {libxen.EVTCHNSTAT_INTERDOMAIN}, "port");
_Static_assert(sizeof(struct e820entry) == {build.E820.size}, "e820");
_Static_assert(XEN_DOMINF_dying == {libxen.DOMINF_DYING} && XEN_DOMINF_shutdown ==
    {libxen.DOMINF_SHUTDOWN} && XEN_DOMINF_paused == {libxen.DOMINF_PAUSED} &&
    XEN_DOMINF_hvm_guest == {libxen.DOMINF_HVM} &&
    XEN_DOMINF_xs_domain == {libxen.DOMINF_XS_DOMAIN}, "flags");
_Static_assert(XEN_DOMCTL_CDF_xs_domain == {build.CDF_XS_DOMAIN} && XEN_DOMCTL_CDF_hvm ==
    {build.CDF_HVM} && XEN_DOMCTL_CDF_hap == {build.CDF_HAP} && XEN_X86_EMU_LAPIC ==
    {build.EMU_LAPIC}, "creation");
_Static_assert(X86_HVM_NR_SPECIAL_PAGES == {build.SPECIAL_PAGES} &&
    X86_HVM_END_SPECIAL_REGION == {build.SPECIAL_END:#x}, "special");
_Static_assert(offsetof(struct shared_info, arch.pfn_to_mfn_frame_list_list) ==
    {frames.FRAME_LIST_LIST.size - 8}, "shared_info");
_Static_assert(offsetof(struct vcpu_guest_context, user_regs.rsi) ==
    {frames.START_INFO_VA.size - 8} && offsetof(struct vcpu_guest_context, ctrlreg[3]) ==
    {frames.PAGE_TABLES.size - 8} && sizeof(vcpu_guest_context_any_t) <= {frames.CONTEXT_MAX} &&
    offsetof(struct start_info, mfn_list) == {frames.START_INFO.size - 8} &&
    offsetof(struct start_info, nr_pages) == 32, "start");
_Static_assert(XC_DOM_HVM_CONTAINER == {build.CONTAINER_HVM}, "container");
""")
    done = subprocess.run(["gcc", "-fsyntax-only", "-D__XEN_TOOLS__", "check.c"], cwd=tmp_path,
                          stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def test_an_entry_is_read() -> None:
    entry = libxen.DOMAININFO.pack(7, DOMINF_XS_DOMAIN | DOMINF_SHUTDOWN | 3 << 16, 16392, 16392, 0,
                                   0, 0, 99, 5, 1, 0, 12, HANDLE)
    found = libxen.parse_domain(entry.ljust(libxen.INFO_SIZE, b"\0"))
    assert found == Domain(7, found.flags, 16392, 12, HANDLE, 5, 99)
    assert found.is_xenstore and found.has_ended and not found.is_dying and found.has_run
    assert found.reason == "crash"


# -- memory of a domain


class OnePvhDomain:
    """Domain 7 is all that there is."""

    def domain(self, domid: int) -> Domain | None:
        """What Xen says of it."""
        return Domain(7, DOMINF_HVM, 0, 0, HANDLE, 0, 99) if domid == 7 else None


@pytest.fixture
def memory_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is mapped where a domain's memory would be. Frame 0x1080 does not exist."""
    path = tmp_path / "privcmd"
    path.write_bytes(some_region())

    def ioctl(fd: int, request: int, argument: bytes) -> int:
        assert request == 0x205004
        count, domid, address, frames, errors = foreign.MMAPBATCH_V2.unpack(argument)
        assert domid == 7 and address % foreign.PAGE_SIZE == 0
        for index, frame in enumerate((ctypes.c_uint64 * count).from_address(frames)):
            if frame == 0x1100:
                ctypes.c_int.from_address(errors + 4 * index).value = -22
        return 0
    monkeypatch.setattr(foreign, "PRIVCMD", str(path))
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(frames, "Xen", OnePvhDomain)
    return path


def test_a_region_is_taken_and_put(memory_file: Path) -> None:
    data = region.take(7, PLACE, None)
    assert data == some_region() and region.describe(data) == "clean, 3 records"
    other = data[:-8] + b"changed!"
    region.put(7, PLACE, other)
    assert memory_file.read_bytes() == other
    with pytest.raises(BootError, match="does not fit"):
        region.put(7, PLACE, other[:-8])


def test_what_is_no_region_is_not_taken(memory_file: Path) -> None:
    memory_file.write_bytes(bytes(PLACE.size))
    with pytest.raises(BootError, match="no region"):
        region.take(7, PLACE, None)


def test_a_frame_that_is_not_there(memory_file: Path) -> None:
    with pytest.raises(BootError, match="0x1100000 cannot be mapped: Invalid argument"):
        ForeignMemory(7, PLACE._replace(address=0x1010000))


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    region.save(str(path), some_region())
    assert region.load(str(path)) == some_region() and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BootError):
        region.save(str(tmp_path / "no" / "saved"), b"")
    assert os.listdir(tmp_path) == ["saved"]
    region.prepare(str(path), 2 * MIB)  # more than is needed
    assert region.load(str(path)) == some_region()
    region.save(str(path), some_region())
    assert region.load(str(path)) == some_region() and os.listdir(tmp_path) == ["saved"]


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "saved", tmp_path / "other"
    assert region.load_own(str(path)) is None
    other.write_bytes(b"theirs")
    for make in (os.symlink, os.link):
        make(other, f"{path}.unfinished")
        region.save(str(path), b"ours")
        assert other.read_bytes() == b"theirs" and region.load_own(str(path)) == b"ours"
        path.unlink()
        make(other, path)
        assert region.load_own(str(path)) is None
        path.unlink()
    os.mkfifo(f"{path}.unfinished")
    region.save(str(path), b"ours")
    assert path.is_file()
    made = path.stat().st_ino
    os.close(region.create(str(path)))
    assert path.stat().st_ino == made
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert region.load_own(str(path)) is None
    os.close(region.create(str(path)))
    assert path.read_bytes() == b""


@pytest.mark.parametrize("fails", [False, True])
def test_a_core_dump_is_whole_or_not_there(fails: bool, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    class Dumping:
        """Xen."""

        def dump_core(self, domid: int, path: str) -> None:
            """Begins, at least."""
            Path(path).write_bytes(b"core of %d" % domid)
            if fails:
                raise BootError("no more")
    monkeypatch.setattr("tools.xsboot.Xen", Dumping)
    path = tmp_path / "core"
    assert xsboot_main(["core", "7", str(path)]) == fails
    assert os.listdir(tmp_path) == ([] if fails else ["core"])
    assert fails or path.read_bytes() == b"core of 7"


@pytest.mark.parametrize("words", [("back", "7", "file"), ("rescue",), ("watch",)])
def test_beside_a_watcher(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                          capsys: pytest.CaptureFixture[str]) -> None:
    saved = str(tmp_path / "saved")
    monkeypatch.setattr("tools.xsboot.Xen", OnePvhDomain)
    monkeypatch.setattr("tools.xsboot.SAVED", saved)
    with rescue.alone(saved):
        assert xsboot_main([*words]) == 1
    assert "another xsboot watches or rescues already" in capsys.readouterr().err


# -- processes


def test_a_process_is_ended_and_started_with_its_own_words(monkeypatch: pytest.MonkeyPatch,
                                                           tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "1000.5"], env={**os.environ, "MARK": "x=y"}, cwd=tmp_path)
    while process.describe(child.pid) is None:  # exec is under way
        assert child.poll() is None
    monkeypatch.setattr(consoles, "_pids", lambda: [child.pid])
    said: list[str] = []
    [daemon] = consoles.end_all(said.append)
    assert child.wait(TIMEOUT_S) < 0 and len(said) == 1
    assert daemon.arguments == [b"sleep", b"1000.5"] and daemon.environment[b"MARK"] == b"x=y"
    assert daemon.directory == str(tmp_path)
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text("ascii")
    own.write_text("100", "ascii")
    try:
        again = process.start(daemon)
    finally:
        own.write_text(before, "ascii")
    assert Path(f"/proc/{again.pid}/oom_score_adj").read_text("ascii") == "0\n"
    assert again.poll() is None
    again.kill()
    again.wait(TIMEOUT_S)


def test_a_program_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    consoles.start(process.Daemon([os.fsencode(tmp_path / "none")], {}), said.append)
    assert "cannot be started again" in said[0]
