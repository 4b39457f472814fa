# SPDX-License-Identifier: Apache-2.0
"""The kernel's files that need no machine, as programs of this host: with the kernel's own flags,
and the address and undefined-behaviour sanitizers. Method: string.c and printf.c against libc,
checksum.c against zlib and XXH64's definition, over random cases; the command line by a table of
lines; the command line and the initrd fed with rubbish; physical memory and the program's memory
against a plain model; the devices of /dev/xen on a made-up hypervisor.

TARDIGRADE_SEED=N draws other cases; what fails prints the command that replays it.
Cannot show: that the same C does the same with the kernel's code model and page tables; tests/qemu
boots it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.oracle import packages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KERNEL = ROOT / "image" / "kernel"
SEED = os.environ.get("TARDIGRADE_SEED", "1")
MAKEFILE = (KERNEL / "Makefile").read_text("utf-8").replace("\\\n", "")
FLAGS = [flag for flag in re.findall(r"(?m)^CFLAGS := (.*)", MAKEFILE)[0].split()
         if not flag.startswith("-ffile-prefix-map")]
ON_HOST = [flag for flag in FLAGS if flag not in ("-mcmodel=kernel", "-fno-pic", "-fno-pie")]
SANITIZED = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FILES = ["string", "checksum", "printf", "cmdline", "initrd"]
# What each test program needs besides string.c.
NEEDS = {"string": [], "checksum": ["checksum"], "printf": ["printf"],
         "cmdline": ["cmdline", "printf"], "initrd": ["initrd"], "page": ["page"],
         "startinfo": ["startinfo", "keep", "checksum"], "memory": ["memory"],
         "carried": ["carried", "keep", "checksum"], "slot": ["checksum"],
         "pv": ["pvboot", "pvpage", "pvtrap", "pvdump", "keep", "checksum"],
         "xen": ["evtchn", "grant", "xenbus", "privcmd", "keep", "checksum"]}
# Addresses that this host lets programs have, also under the sanitizer; small tables are soon full.
LAYOUT = {"DIRECT_BASE": "0x200000000000", "SHARED_INFO_VA": "0x280000000000", "AREAS_MAX": "24",
          "GRANT_SLOTS": "12", "KERNEL_BASE": "0x2c0000000000",
          "MACHINE_TO_PHYSICAL_VA": "0x2e0000000000"}
# Here the direct map lies where the program's half would be, which is made small.
PV_LAYOUT = {"USER_END": "0x10000000000"}

Program = Callable[..., bytes]


def copy_kernel(directory: Path, names: list[str]) -> None:
    """Some of the kernel's files and all headers, with LAYOUT's numbers in layout.h."""
    layout = LAYOUT | (PV_LAYOUT if "pvpage" in names else {})
    for source in [*KERNEL.glob("*.h"), *(KERNEL / f"{name}.c" for name in names)]:
        text = source.read_text("utf-8")
        if source.name == "layout.h":
            for name, value in layout.items():
                text, count = re.subn(rf"(?m)^#define {name} \S+", f"#define {name} {value}", text)
                assert count == 1, name
        (directory / source.name).write_text(text, "utf-8")


def compile_program(directory: Path, name: str) -> Path:
    """NAME_test.c with the kernel's files it is about."""
    packages.need_tools("gcc")
    needed = ["string", *NEEDS[name]]
    copy_kernel(directory, needed)
    for one in needed:
        packages.run_checked(["gcc", *ON_HOST, *SANITIZED, "-include",
                              str(HERE / "names.h"), "-c", str(directory / f"{one}.c"), "-o",
                              str(directory / f"{one}.o")])
    program = directory / f"{name}_test"
    objects = [str(directory / f"{one}.o") for one in needed]
    packages.run_checked(["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZED,
                          "-I", str(directory), "-o", str(program), str(HERE / f"{name}_test.c"),
                          str(HERE / "machine.c"), *objects])
    return program


def run(program: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What it prints. A failure says how to see it again."""
    command = [str(program), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False,
                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    if done.returncode != 0:
        kept = program.with_name("input")
        kept.write_bytes(given)
        pytest.fail(f"{done.stderr.decode(errors='replace')}\n"
                    f"replay: {shlex.join(command)} < {kept}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Program:
    """The test program of the file that the test names as its parameter, compiled."""
    name = request.param
    return partial(run, compile_program(tmp_path_factory.mktemp(name), name))


def of(name: str) -> pytest.MarkDecorator:
    """The program of one file."""
    return pytest.mark.parametrize("program", [name], indirect=True, scope="module")


@of("pv")
def test_a_pv_domain_on_a_made_up_xen(program: Program) -> None:
    program()


@of("string")
def test_string_is_as_libc_and_touches_nothing_else(program: Program) -> None:
    program(SEED)


@of("printf")
def test_printf_is_as_libc(program: Program) -> None:
    program(SEED)


@of("slot")
def test_the_crash_slot_holds_what_was_said(program: Program) -> None:
    program(SEED)


# -- checksums

MASK = 2**64 - 1
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
          0x27D4EB2F165667C5)


def rotate(value: int, bits: int) -> int:
    """To the left, within 64 bits."""
    return (value << bits | value >> (64 - bits)) & MASK


def take(lane: int, word: int) -> int:
    """XXH64's round."""
    return rotate((lane + word * PRIMES[1]) & MASK, 31) * PRIMES[0] & MASK


def xxh64(seed: int, data: bytes) -> int:
    """XXH64 of whole words, from its specification."""
    words = [int.from_bytes(data[at:at + 8], "little") for at in range(0, len(data), 8)]
    total = seed + PRIMES[4]
    if len(words) >= 4:
        lanes = [(seed + PRIMES[0] + PRIMES[1]) & MASK, (seed + PRIMES[1]) & MASK, seed,
                 (seed - PRIMES[0]) & MASK]
        while len(words) >= 4:
            lanes = [take(lane, word) for lane, word in zip(lanes, words, strict=False)]
            words = words[4:]
        total = sum(map(rotate, lanes, (1, 7, 12, 18)))
        for lane in lanes:
            total = ((total & MASK) ^ take(0, lane)) * PRIMES[0] + PRIMES[3]
    total = (total + len(data)) & MASK
    for word in words:
        total = (rotate(total ^ take(0, word), 27) * PRIMES[0] + PRIMES[3]) & MASK
    total = (total ^ total >> 33) * PRIMES[1] & MASK
    total = (total ^ total >> 29) * PRIMES[2] & MASK
    return total ^ total >> 32


def test_xxh64_here_is_the_known_one() -> None:
    """By sums of the xxhash package."""
    assert xxh64(0, b"") == 0xEF46DB3751D8E999
    assert xxh64(0, bytes(range(8))) == 0x884A173614B81B8D
    assert xxh64(1, bytes(range(32))) == 0xD74E6766CE9DBA94
    assert xxh64(0x6B656570, bytes(range(72))) == 0x33BDEEC81B657A29
    assert xxh64(MASK, bytes(range(256))) == 0x9FD2BFCEE8985E7F


@of("checksum")
@pytest.mark.parametrize("seed", [0, 1, 0x6B656570, MASK])
@pytest.mark.parametrize("size", [0, 8, 24, 32, 40, 64, 4064, 4096, 65536 + 24])
def test_checksums(program: Program, size: int, seed: int) -> None:
    data = b"".join(xxh64(seed + at, b"").to_bytes(8, "little") for at in range(size // 8))
    whole, in_two, words = map(int, program(str(seed), str(size // 3), given=data).split())
    assert whole == in_two == zlib.crc32(data)
    assert words == xxh64(seed, data)


@of("checksum")
def test_sums_of_parts_depend_on_their_order(program: Program) -> None:
    def chain(*parts: bytes) -> int:
        total = 0
        for part in parts:
            total = int(program(str(total), "0", given=part).split()[2])
        return total

    one, two = b"1" * 4096, b"2" * 4096
    assert len({chain(one, two), chain(two, one), chain(one), chain(two), chain(one, one)}) == 5


def test_no_format_is_used_that_printf_lacks() -> None:
    """printf.c F2, in all calls of functions that take a format."""
    call = re.compile(r"\b(?:v?format|log_(?:error|info|debug)|panic|crash_\w+|machine_off|"
                      r"console_\w+)\(([^;]*);", re.DOTALL)
    found = []
    for file in sorted(KERNEL.glob("*.[ch]")):
        for match in call.finditer(file.read_text("utf-8")):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[1]))
            left = re.sub(r"%(?:%|[sc]|[1-9]\d*[sc]|p|0?(?:[1-9]\d*)?(?:ll?|z)?[dux])", "", text)
            if "%" in left:
                found.append(f"{file.name}: {text}")
    assert not found


# -- the command line

DEFAULTS = {"region": "0x1000000@0x1000000", "watchdog": "30", "console": "unsaid", "log": "info",
            "snapshot": "1", "drill": "0", "xen-watchdog": "0", "event": "0", "virtio": [],
            "argument": [], "error": ""}
DEVICE = "virtio_mmio.device=512@0xfeb00e00:12"
FOUND = "0x200@0xfeb00e00:12"


def region(size: int, address: int = 0x1000000) -> dict[str, str]:
    """As the program prints it."""
    return {"region": f"{size:#x}@{address:#x}"}


def arguments(*words: str) -> dict[str, list[str]]:
    """Of the server."""
    return {"argument": list(words)}


LINES: list[tuple[str, dict[str, str | list[str]]]] = [
    ("", {}),
    ("  \t \n", {}),
    # region=
    ("region=32M", region(32 << 20)),
    ("region=1M", region(1 << 20)),
    ("region=1024K@64M", region(1 << 20, 64 << 20)),
    ("region=0x200000@0x3000000", region(2 << 20, 0x3000000)),
    ("region=2097152@1G", region(2 << 20, 1 << 30)),
    ("region=0x2M@0xABcM", region(2 << 20, 0xABC << 20)),
    ("region=1G@3G", region(1 << 30, 3 << 30)),
    ("region=4G@0", region(4 << 30, 0)),
    ("region=32M region=64M", region(64 << 20)),
    ("region=1G@3145729K", {"error": "the region is not page-aligned: region=1G@3145729K"}),
    ("region=1G@3145732K", {"error": "the region ends above 4 GiB: region=1G@3145732K"}),
    ("region=5G@0", {"error": "the region ends above 4 GiB: region=5G@0"}),
    ("region=1M@0xfffffffffffff000",
     {"error": "the region ends above 4 GiB: region=1M@0xfffffffffffff000"}),
    ("region=1023K", {"error": "the region is too small: region=1023K"}),
    ("region=0", {"error": "the region is too small: region=0"}),
    ("region=1025K", {"error": "the region is not page-aligned: region=1025K"}),
    ("region=", {"error": "not SIZE[@ADDRESS]: region="}),
    ("region=M", {"error": "not SIZE[@ADDRESS]: region=M"}),
    ("region=0xM", {"error": "not SIZE[@ADDRESS]: region=0xM"}),
    ("region=16m", {"error": "not SIZE[@ADDRESS]: region=16m"}),
    ("region=-16M", {"error": "not SIZE[@ADDRESS]: region=-16M"}),
    ("region=16MB", {"error": "not SIZE[@ADDRESS]: region=16MB"}),
    ("region=16M@", {"error": "not SIZE[@ADDRESS]: region=16M@"}),
    ("region=16M@1M@", {"error": "not SIZE[@ADDRESS]: region=16M@1M@"}),
    ("region=18446744073709551616", {"error": "not SIZE[@ADDRESS]: region=18446744073709551616"}),
    ("region=17179869185G", {"error": "not SIZE[@ADDRESS]: region=17179869185G"}),
    # one word each
    ("console=e9", {"console": "e9"}),
    ("console=none", {"console": "none"}),
    ("console=e9 console=com1", {"console": "com1"}),
    ("console=com2", {"error": "unknown word: console=com2"}),
    ("console=", {"error": "unknown word: console="}),
    ("watchdog=1", {"watchdog": "1"}),
    ("watchdog=86400", {"watchdog": "86400"}),
    ("watchdog=0", {"error": "neither one second nor a day nor between: watchdog=0"}),
    ("watchdog=86401", {"error": "neither one second nor a day nor between: watchdog=86401"}),
    ("watchdog=1K", {"error": "not SECONDS: watchdog=1K"}),
    ("xen-watchdog=60", {"xen-watchdog": "60"}),
    ("xen-watchdog=0", {"error": "neither one second nor a day nor between: xen-watchdog=0"}),
    ("snapshot=off", {"snapshot": "0"}),
    ("snapshot=off snapshot=on", {}),
    ("snapshot=1", {"error": "unknown word: snapshot=1"}),
    ("log=error", {"log": "error"}),
    ("log=debug", {"log": "debug"}),
    ("log=warn", {"error": "unknown word: log=warn"}),
    ("drill=on", {"drill": "1"}),
    ("drill=", {"error": "unknown word: drill="}),
    # what is no word; the first error is told, and everything else holds (L1)
    ("quiet", {"error": "unknown word: quiet"}),
    ("region", {"error": "unknown word: region"}),
    ("Region=1M", {"error": "unknown word: Region=1M"}),
    ("-x", {"error": "unknown word: -x"}),
    ('""', {"error": "unknown word: "}),
    ("one log=two console=e9 -- x", {"error": "unknown word: one", "console": "e9",
                                     **arguments("x")}),
    ("log=debug log=loud", {"log": "debug", "error": "unknown word: log=loud"}),
    ("x" * 200, {"error": ("unknown word: " + "x" * 200)[:127]}),
    # the server's arguments
    ("--", {}),
    ("drill=on -- drill=off", {"drill": "1", **arguments("drill=off")}),
    ("-- --region /dev/region", arguments("--region", "/dev/region")),
    ("-- -- --", arguments("--", "--")),
    ("--event 5 --internal-db", {"event": "5", **arguments("--internal-db")}),
    ("--event 14 log=debug drill=on", {"event": "14", "log": "debug", "drill": "1"}),
    ("--event 14 --drill log=debug -x y", {"event": "14", "log": "debug",
                                           **arguments("--drill", "-x", "y")}),
    ("--event 14 log=debug -- --event 5 log=info", {"event": "14", "log": "debug",
                                                    **arguments("--event", "5", "log=info")}),
    ("--quota nodes=5 --event 0xe", {"event": "14", **arguments("--quota", "nodes=5")}),
    ("--event find", {"event": "4294967295"}),
    ("--event 4294967295", {"error": "not --event PORT: 4294967295"}),
    ("--event 1 --event 2 quiet", {"event": "2", "error": "unknown word: quiet"}),
    ("--event", {"error": "no port: --event"}),
    ("--event 0", {"error": "not --event PORT: 0"}),
    ("--event -- log=debug", {"log": "debug", "error": "not --event PORT: --"}),
    ("--event 4294967296", {"error": "not --event PORT: 4294967296"}),
    ("--event=5", arguments("--event=5")),
    ('-- "a  b" c" "d "" "\t"', arguments("a  b", "c d", "", "\t")),
    ('log="debug" "drill=on"', {"log": "debug", "drill": "1"}),
    ('"--" "log=x"', arguments("log=x")),
    ('-- a "b c', {"error": "the quotes do not end: b c", **arguments("a")}),
    ('log=debug"', {"error": "the quotes do not end: log=debug"}),
    ("-- " + "a " * 63, arguments(*["a"] * 63)),
    ("-- " + "a " * 63 + "b", {"error": "too many arguments: b", **arguments(*["a"] * 63)}),
    ("-- " + "y" * 2044, arguments("y" * 2044)),
    ("-- " + "y" * 2045, {"error": "the command line is too long: more than 2047 bytes"}),
    ("quiet -- " + "y" * 2038, {"error": "unknown word: quiet", **arguments("y" * 2038)}),
    ("drill=on " * 300, {"error": "the command line is too long: more than 2047 bytes"}),
    # devices
    (DEVICE, {"virtio": [FOUND]}),
    (f"-- a {DEVICE} b {DEVICE}", {"virtio": [FOUND, FOUND], **arguments("a", "b")}),
    (f"{DEVICE} --event 5 {DEVICE}", {"virtio": [FOUND, FOUND], "event": "5"}),
    ("virtio_mmio.device=4K@0xd0000000:5", {"virtio": ["0x1000@0xd0000000:5"]}),
    ("-- " + f"{DEVICE} " * 8, {"virtio": [FOUND] * 8}),
    ("-- " + f"{DEVICE} " * 9, {"virtio": [FOUND] * 8, "error": f"too many devices: {DEVICE}"}),
    *[(f"-- virtio_mmio.device={wrong}",
       {"error": f"not SIZE@ADDRESS:IRQ: virtio_mmio.device={wrong}"})
      for wrong in ("", "512", "512@", "512@1M", "512@1M:", "512@1M:5:0", "@1M:5", "512:1M@5",
                    "512@1M:0x", "512@1M:5K")],
    *[(f"-- virtio_mmio.device={wrong}",
       {"error": f"no such device can be: virtio_mmio.device={wrong}"})
      for wrong in ("0@1M:5", "4G@0:5", "512@4G:5", "512@0xffffffffffffffff:5", "512@1M:256")],
]


@of("cmdline")
@pytest.mark.parametrize("line, expected", LINES,
                         ids=[f"{line[:30]}..." if len(line) > 33 else line for line, _ in LINES])
def test_command_line(program: Program, line: str, expected: dict[str, str | list[str]]) -> None:
    said: dict[str, str | list[str]] = {**DEFAULTS, "virtio": [], "argument": []}
    for one in program(given=line.encode() + b"\0").decode().splitlines():
        name, _, value = one.partition(" ")
        many = said[name]
        if isinstance(many, list):
            many.append(value)
        else:
            said[name] = value
    assert said == {**DEFAULTS, **expected}


@of("cmdline")
def test_any_command_line_is_parsed_or_refused(program: Program) -> None:
    program(SEED)


# -- the initrd


def load_packer() -> Callable[[str, bytes], bytes]:
    """archive() of image/python/pack.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("pack", ROOT / "image" / "python" / "pack.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[[str, bytes], bytes] = module.archive
    return made


def entry(name: bytes, data: bytes, **fields: int) -> bytes:
    """One file, as `cpio -H newc` writes it; a field may lie."""
    numbers = {"inode": 1, "mode": 0o100644, "uid": 0, "gid": 0, "links": 1, "time": 0,
               "size": len(data), "major": 0, "minor": 0, "rmajor": 0, "rminor": 0,
               "name_size": len(name), "check": 0, **fields}
    head = b"070701" + b"".join(b"%08x" % number for number in numbers.values()) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def found_in(program: Program, archive: bytes, name: str) -> bytes | None:
    """The file's bytes."""
    said = program("find", name, given=archive).split()
    if said == [b"none"]:
        return None
    offset, size = map(int, said)
    return archive[offset:offset + size]


END = entry(b"TRAILER!!!\0", b"")
SEVERAL = (entry(b"a\0", b"1") + entry(b"directory\0", b"", mode=0o40755) + entry(b"empty\0", b"")
           + entry(b"python\0\0\0\0\0", b"x" * 13) + entry(b"python3\0", b"y" * 8)
           + entry(b"a\0", b"second") + END)


@of("initrd")
@pytest.mark.parametrize("name, data", [
    ("a", b"1"), ("empty", b""), ("python", b"x" * 13), ("python3", b"y" * 8), ("pytho", None),
    ("", None), ("TRAILER!!!", None)])
def test_initrd(program: Program, name: str, data: bytes | None) -> None:
    assert found_in(program, SEVERAL, name) == data


@of("initrd")
def test_our_packer_is_understood(program: Program) -> None:
    archive = load_packer()("python", b"elf" * 5000)
    assert program("find", "python", given=archive).split() == [b"4096", b"15000"]
    assert found_in(program, archive, "pytho") is None


@of("initrd")
@pytest.mark.parametrize("archive", [
    b"", b"070701", bytes(512), END + entry(b"python\0", b"behind the end"),
    entry(b"python\0", b"x" * 16)[:-1], entry(b"python\0", b"x", size=5),
    entry(b"python\0", b"x", size=0xFFFFFFFF), entry(b"python\0", b"", name_size=0xFFFFFFFF),
    entry(b"python\0", b"", name_size=0), entry(b"python", b""), entry(b"python\0", b"")[:100],
    entry(b"python\0", b"").replace(b"070701", b"070702"),
    entry(b"a\0", b"1", size=200) + entry(b"python\0", b""),
    entry(b"a\0", b"1")[1:] + entry(b"python\0", b""),
], ids=range(14))
def test_malformed_archives(program: Program, archive: bytes) -> None:
    assert found_in(program, archive, "python") is None


@of("initrd")
def test_damage_behind_what_is_found_does_not_matter(program: Program) -> None:
    assert found_in(program, entry(b"python\0", b"good") + b"070701rubbish", "python") == b"good"


@of("initrd")
@pytest.mark.parametrize("packed", [False, True])
def test_any_archive_is_read_or_refused(program: Program, packed: bool) -> None:
    program(SEED, given=load_packer()("python", b"elf" * 30) if packed else SEVERAL)


# -- memory


@of("page")
def test_pages_are_given_once_and_zeroed(program: Program) -> None:
    program(SEED)


@of("startinfo")
def test_what_the_loader_says_is_kept(program: Program) -> None:
    program()


@of("memory")
def test_memory_of_the_program_is_as_a_table_of_pages(program: Program) -> None:
    program(SEED)


@of("xen")
def test_nothing_of_others_is_lost_kept_or_mapped_over(program: Program) -> None:
    """Event channels and grants, over restarts; in a PV domain, too."""
    program(SEED)
    program(SEED, "pv")


# -- the code that GCC makes


def disassembly(tmp_path: Path, name: str) -> str:
    """Of a file compiled as for the kernel."""
    packages.need_tools("gcc", "objdump")
    compiled = tmp_path / f"{name}.o"
    packages.run_checked(["gcc", *FLAGS, "-c", str(KERNEL / f"{name}.c"), "-o", str(compiled)])
    return packages.run(["objdump", "-dr", "--no-show-raw-insn", str(compiled)]).stdout


def test_string_functions_do_not_become_calls_of_themselves(tmp_path: Path) -> None:
    """string.c S1: strlen() may be a jump to strnlen(); no other goes anywhere."""
    leap_of = re.compile(r"\b(?:call|j\w+)\s+[0-9a-f]+ <(\w+)>|R_X86_64_\w+\s+(\w+)")
    function, leaps = "", set()
    for line in disassembly(tmp_path, "string").splitlines():
        if head := re.match(r"[0-9a-f]+ <(\w+)>:", line):
            function = head[1]
        elif leap := leap_of.search(line):
            leaps.add((function, leap[1] or leap[2]))
    assert leaps <= {("strlen", "strnlen"), ("memmove", "memcpy")}


@pytest.mark.parametrize("name", FILES)
def test_no_initialised_writable_data(tmp_path: Path, name: str) -> None:
    """kernel.h K2, file by file."""
    disassembly(tmp_path, name)
    sizes = packages.run(["size", "-A", str(tmp_path / f"{name}.o")]).stdout
    assert not re.search(r"^\.(data|bss)\S*\s+[1-9]", sizes, re.MULTILINE), sizes
