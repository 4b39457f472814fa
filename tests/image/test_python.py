# SPDX-License-Identifier: Apache-2.0
"""The static CPython with the server in it, as a program of Linux.

Properties: it serves, dies and recovers as `python -m app` does; nothing outside changes what runs;
asserts are on; msgpack and mmh3 are compiled in; every drill is died; the same sources make the
same bytes. Method: the image itself is run; a second one, the probe, is made of the same parts, but
its app runs the code that it is given, and so answers what the first is made of.
Cannot show: anything of our own kernel, on which the same file is to run."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.ours import CHECKOUT, OurServer
from tests.oracle.xsclient import SocketConnection

SOURCE = CHECKOUT / "image/python"
BUILD = CHECKOUT / "build/image"
BUILD_TIMEOUT_S = 300
RUN_TIMEOUT_S = 30
SIZE_MAX = 12 << 20
PAGE = 4096
ROOMS = ("app", "persist", "ring")
EXEC, LOAD, INTERP, STACK, RELRO = 2, 1, 3, 0x6474E551, 0x6474E552  # of ELF
EXECUTABLE, WRITABLE = 1, 2
# What of ours cannot be in the image, and for lack of what.
ABSENT = {"ctypes": "_ctypes", "resource": "resource", "termios": "termios",
          "ring.sim": "_ctypes", "_unikraft": "_unikraft"}
PROBE = "import sys\n\nif __name__ == '__main__':\n    exec(sys.argv[1])\n"
ASSERTING = "def check(truth):\n    assert truth, 'asserts are on'\n"
DRILLS = {"page_fault": signal.SIGSEGV, "null": signal.SIGSEGV, "stack_overflow": signal.SIGSEGV,
          "general_protection": signal.SIGSEGV, "illegal_instruction": signal.SIGILL,
          "divide": signal.SIGFPE}


def make(out: Path, source: Path = SOURCE, root: Path | None = None) -> str:
    """Build into `out`, from `source`, the server of `root`; what was said."""
    command = ["make", "-C", str(source), f"OUT={out}", f"SDISTS={BUILD / 'sdists'}",
               f"PIP_PYTHON={sys.executable}", *([f"ROOT={root}"] if root else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def copy_rooms(target: Path) -> None:
    """The server's sources, without what Python leaves beside them."""
    for room in ROOMS:
        shutil.copytree(CHECKOUT / room, target / room,
                        ignore=shutil.ignore_patterns("__pycache__"))


def run(program: Path, *arguments: str,
        environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in an empty environment."""
    return subprocess.run([program, *arguments], env=environment or {}, cwd="/", text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_TIMEOUT_S,
                          check=False)


@pytest.fixture(scope="module")
def image() -> Path:
    """The image that is shipped."""
    make(BUILD)
    return BUILD / "python"


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image whose app runs the code that is its first argument."""
    directory = tmp_path_factory.mktemp("probe")
    copy_rooms(directory)
    (directory / "app/__main__.py").rename(directory / "app/server.py")  # for what it imports
    (directory / "app/__main__.py").write_text(PROBE, "utf-8")
    (directory / "app/asserting.py").write_text(ASSERTING, "utf-8")
    make(directory / "out", root=directory)
    return directory / "out/python"


def answer(probe: Path, code: str, **environment: str) -> str:
    """What the code prints in the probe."""
    done = run(probe, code, environment=environment)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# -- as the server


class Server(OurServer):
    """Our server, which can go on as another program."""

    def become(self, program: Path) -> None:
        """From the next life on the image runs."""
        module = self._command.index("-m")
        self._command[module - 1:module + 2] = [str(program)]


@pytest.mark.slow
def test_it_serves_and_survives(image: Path, time_limit: None) -> None:
    server = Server()
    with server:
        with SocketConnection(server.socket_path) as connection:
            connection.write("/before", "an ordinary life")
        server.stop()
        server.become(image)
        server.start()
        for life in range(3):
            with SocketConnection(server.socket_path) as connection:
                connection.write(f"/l/{life}", f"value {life}")
                tx_id = connection.transaction_start()
                connection.write("/t", f"{life}", tx_id)
                connection.transaction_end(tx_id)
            server.kill9()
            server.restart()
            with SocketConnection(server.socket_path) as connection:
                assert connection.directory("/l") == [f"{one}" for one in range(life + 1)]
                assert connection.read(f"/l/{life}") == f"value {life}".encode()
                assert connection.read("/t") == f"{life}".encode()
                assert connection.read("/before") == b"an ordinary life"
                assert connection.control("check") == "OK"
        assert server.log.count("after a crash") == 3
        server.restart()
        assert "after a clean end" in server.log and "DAMAGED" not in server.log


@pytest.mark.slow
def test_arguments_and_exit_codes(image: Path) -> None:
    for arguments in (["--help"], ["--version-that-is-none"], ["--region-size", "x"]):
        ordinary = subprocess.run([sys.executable, "-m", "app", *arguments], cwd=CHECKOUT,
                                  text=True, capture_output=True, timeout=RUN_TIMEOUT_S,
                                  check=False)
        done = run(image, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (
            ordinary.returncode, ordinary.stdout, ordinary.stderr)


# -- the file


def headers_of(program: Path) -> tuple[int, list[tuple[int, int, int]]]:
    """An ELF file's type, and type, flags and address of its segments."""
    data = program.read_bytes()
    assert data[:6] == b"\x7fELF\2\1"
    offset, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    fields = [struct.unpack_from("<IIQQ", data, offset + size * index) for index in range(count)]
    return struct.unpack_from("<H", data, 16)[0], [(kind, flags, address)
                                                   for kind, flags, _, address in fields]


@pytest.mark.slow
def test_the_file(image: Path) -> None:
    assert image.stat().st_size < SIZE_MAX
    kind, segments = headers_of(image)
    assert kind == EXEC
    assert min(address for kind, _, address in segments if kind == LOAD) == 0x400000
    assert not any(flags & EXECUTABLE and flags & WRITABLE for _, flags, _ in segments)
    assert [flags & EXECUTABLE for kind, flags, _ in segments if kind == STACK] == [0]
    assert not {INTERP, RELRO} & {kind for kind, _, _ in segments}


@pytest.mark.slow
def test_the_initrd_holds_it_on_a_page(image: Path) -> None:
    check_archive((BUILD / "initrd.cpio").read_bytes(), b"python", image.read_bytes())


def test_any_file_is_packed(tmp_path: Path) -> None:
    for size in (0, 1, PAGE - 1, PAGE, PAGE + 3):
        (tmp_path / "file").write_bytes(bytes(range(1, 256)) * 17)
        os.truncate(tmp_path / "file", size)
        subprocess.run([sys.executable, SOURCE / "pack.py", tmp_path / "file", "name",
                        tmp_path / "archive"], check=True, timeout=RUN_TIMEOUT_S)
        check_archive((tmp_path / "archive").read_bytes(), b"name",
                      (tmp_path / "file").read_bytes())


def check_archive(archive: bytes, name: bytes, data: bytes) -> None:
    """It holds that file, at a page, and then the end."""
    assert archive[:6] == b"070701"
    fields = [int(archive[6 + 8 * index:14 + 8 * index], 16) for index in range(13)]
    assert fields == [1, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, PAGE - 110, 0]
    assert archive[110:PAGE].rstrip(b"\0") == name and archive[PAGE - 1] == 0
    assert archive[PAGE:PAGE + len(data)] == data
    end = PAGE + len(data) + -len(data) % 4
    assert archive[end:end + 6] == b"070701" and archive[end + 110:end + 121] == b"TRAILER!!!\0"
    assert len(archive) % 512 == 0 and not archive[end + 121:].strip(b"\0")


# -- what it is made of


@pytest.mark.slow
def test_asserts_are_on(probe: Path) -> None:
    done = run(probe, "from app.asserting import check; print(__debug__); check(False)")
    assert (done.returncode, done.stdout) == (1, "True\n")
    assert done.stderr.endswith("AssertionError: asserts are on\n")
    assert 'File "<frozen app.asserting>", line 2, in check' in done.stderr


@pytest.mark.slow
def test_what_is_in_c(probe: Path) -> None:
    assert answer(probe, """
import sys, mmh3, msgpack
print(mmh3.__spec__.origin, msgpack._cmsgpack.__spec__.origin, msgpack.Packer.__module__)
print(msgpack.unpackb(msgpack.packb([1, b'a', None])), mmh3.mmh3_x64_128_digest(b'').hex())
try:
    msgpack.unpackb(b'\\1\\2')
except msgpack.ExtraData as error:  # its class comes by the relative import of a built-in module
    print(error)
print('msgpack.fallback' in sys.modules)
""") == ("built-in built-in msgpack._cmsgpack\n"
         f"[1, b'a', None] {'00' * 16}\n"
         "unpack(b) received extra data.\nFalse\n")


@pytest.mark.slow
def test_nothing_outside_decides_what_runs(probe: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "os.py").write_text("raise SystemExit('from outside')")
    code = ("import sys; print(sys.path, sys.flags.isolated, sys.flags.optimize,"
            " sys.flags.utf8_mode, len(sys.argv), sys.flags.dev_mode)")
    expected = "[] 1 0 1 2 False\n"
    assert answer(probe, code) == expected
    outside = str(tmp_path)
    assert answer(probe, code, PYTHONPATH=outside, PYTHONHOME=outside, PYTHONOPTIMIZE="2",
                  PYTHONDEVMODE="1", PYTHONVERBOSE="1", PYTHONINSPECT="1", LC_ALL="C") == expected
    done = run(probe, "import resource")
    assert done.returncode == 1 and "No module named 'resource'" in done.stderr
    done = run(probe, "import _imp; from importlib.machinery import ModuleSpec\n"
               "_imp.create_dynamic(ModuleSpec('x', None, origin='/x.so'))")
    assert done.returncode == 1 and "ImportError: no module can be loaded" in done.stderr


@pytest.mark.slow
def test_hashes_differ_from_life_to_life(probe: Path) -> None:
    assert len({answer(probe, "print(hash('a'))") for _ in range(3)}) > 1


@pytest.mark.slow
def test_a_console_that_is_gone_ends_nothing(probe: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [probe, "import sys\ntry: sys.stderr.write('x\\n')\nexcept OSError: print('told')"],
            env={}, stdout=subprocess.PIPE, stderr=write, timeout=RUN_TIMEOUT_S, check=False)
    finally:
        os.close(write)
    assert done.stdout == b"told\n"


@pytest.mark.slow
def test_what_may_be_needed_late_is_there(probe: Path) -> None:
    """Codecs by name, a warning, a traceback, argparse in a language."""
    assert answer(probe, """
import argparse, io, traceback, warnings
print(b'a\\xe4'.decode('latin-1').encode('utf-8').decode('ascii', 'replace'))
with warnings.catch_warnings(record=True) as found:
    warnings.warn('w')
print(found[0].message, warnings.formatwarning('w', UserWarning, 'f', 1), end='')
try:
    1 / 0
except ZeroDivisionError as error:
    print(traceback.format_exception(error)[-1], end='')
print(argparse.ArgumentParser(prog='p').format_usage(), end='')
""", LANG="de_DE.UTF-8") == ("a\ufffd\ufffd\nw f:1: UserWarning: w\n"
                            "ZeroDivisionError: division by zero\nusage: p [-h]\n")


@pytest.mark.slow
def test_what_is_absent_is_known(image: Path) -> None:
    lines = (BUILD / "python.work/closure").read_text("utf-8").splitlines()
    assert {line for line in lines if line.startswith("absent")} == {
        f"absent {name}: no module {lacking}" for name, lacking in ABSENT.items()}


@pytest.mark.slow
def test_mappings(probe: Path, tmp_path: Path) -> None:
    """mmap.c: P1 to P3, and what is refused."""
    file = tmp_path / "file"
    file.write_bytes(bytes(2 * PAGE))
    said = answer(probe, f"""
import mmap, os
fd = os.open({str(file)!r}, os.O_RDWR)
mapped = mmap.mmap(fd, {PAGE}, offset={PAGE})
whole = memoryview(mapped)
words = whole.cast('I')
words[3] = 0x64636261
try: mapped.close()
except BufferError as error: print(error)
words.release(), whole.release()
print(len(mapped), mapped.close(), mapped.close(), len(mapped))
try: memoryview(mapped)
except ValueError as error: print(error)
print(memoryview(mmap.mmap(fd, 1, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)).readonly)
for arguments in ((fd, 0), (-1, {PAGE}), (fd, {PAGE}, mmap.MAP_SHARED, mmap.PROT_READ, 1)):
    try: mmap.mmap(*arguments)
    except (OSError, ValueError) as error: print(error)
""")
    assert said == (f"there are views of this mapping\n{PAGE} None None 0\n"
                    "the mapping is closed\nTrue\na length of at least 1 is needed\n"
                    "[Errno 9] Bad file descriptor\n[Errno 22] Invalid argument\n")
    assert file.read_bytes()[PAGE + 12:PAGE + 16] == b"abcd"


# -- drills


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRILLS))
def test_drill(probe: Path, name: str) -> None:
    done = run(probe, f"import faulthandler, _drill; faulthandler.enable(); _drill.{name}()")
    assert -done.returncode == DRILLS[name], done
    assert 'File "<string>", line 1 in <module>' in done.stderr


@pytest.mark.slow
def test_drill_corrupt_heap(probe: Path) -> None:
    """Nothing more is asked of the program than to go on."""
    done = run(probe, "import _drill; _drill.corrupt_heap(); print([str(n) for n in range(999)])")
    assert -done.returncode == signal.SIGSEGV, done


@pytest.mark.slow
def test_drill_wild_write(probe: Path) -> None:
    code = ("import _drill, array; a = array.array('B', bytes(16)); at, _ = a.buffer_info();"
            "_drill.wild_write(at + 4, 8); print(bytes(a).hex())")
    assert answer(probe, code) == "00" * 4 + "a5" * 8 + "00" * 4 + "\n"
    assert -run(probe, "import _drill; _drill.wild_write(0, 1)").returncode == signal.SIGSEGV


@pytest.mark.slow
def test_drill_loop(probe: Path) -> None:
    """No handler of Python's ends it; what the watchdog is set to does."""
    done = run(probe, "import _drill, signal; signal.signal(signal.SIGALRM, print);"
               "signal.alarm(1); signal.setitimer(signal.ITIMER_PROF, 2); _drill.loop()")
    assert (-done.returncode, done.stdout) == (signal.SIGPROF, "")


# -- how it is made


@pytest.mark.slow
def test_the_same_sources_make_the_same_bytes(image: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another"
    copy_rooms(elsewhere)
    shutil.copytree(SOURCE, elsewhere / "image/python")
    out = elsewhere / "build/image"
    make(out, source=elsewhere / "image/python")
    for name in ("python", "initrd.cpio"):
        assert (out / name).read_bytes() == (BUILD / name).read_bytes(), name


@pytest.mark.slow
def test_only_what_changed_is_made_again(probe: Path) -> None:
    root, out = probe.parents[1], probe.parent
    assert "compile" not in (said := make(out, root=root)) and "link" not in said
    (root / "app/late.py").write_text("import resource\n")
    said = make(out, root=root)
    assert "link" in said and "compile" not in said
    assert "absent app.late: no module resource" in (out / "python.work/closure").read_text("utf-8")


@pytest.mark.slow
def test_a_server_that_wants_what_is_not_there_is_no_image(image: Path, tmp_path: Path) -> None:
    copy_rooms(tmp_path)
    (tmp_path / "app/__main__.py").write_text("import termios\n")
    done = subprocess.run(["/usr/bin/python3.11", "-I", "-S", "-B", SOURCE / "closure.py", tmp_path,
                           BUILD / "python.work/extensions"], text=True, capture_output=True,
                          timeout=RUN_TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("app.__main__ cannot be imported in the image, which has no module "
                           "termios\n")


@pytest.mark.slow
def test_sources_with_another_hash_are_refused(image: Path, tmp_path: Path) -> None:
    sdists = tmp_path / "sdists"
    shutil.copytree(BUILD / "sdists", sdists)
    archive = next(sdists.glob("mmh3-*.tar.gz"))
    archive.write_bytes(archive.read_bytes() + b"\0")
    done = subprocess.run([sys.executable, SOURCE / "fetch.py", sys.executable,
                           SOURCE / "sources.txt", sdists, tmp_path / "sources"], text=True,
                          capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    assert done.returncode == 1 and f"{archive}: sha256 is " in done.stderr
    assert not (tmp_path / "sources").exists()
