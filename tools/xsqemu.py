# SPDX-License-Identifier: Apache-2.0
"""xsqemu: the image in QEMU, and a unix socket on which its clients are served.

V1. The machine's memory is a file. It stays when QEMU ends, however it ends; the next start finds
    the region in it, at the same place. One QEMU at a time: the file is locked.
V2. QEMU ends with this program; what the machine writes to its console goes to stdout.
The multiplexer of xsmux.py runs in here."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from app.sockets import SocketError
from tools.xsmux import Mux

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
EXIT_MACHINE_ENDED = 3
IMAGE = Path(__file__).resolve().parent.parent / "build" / "image"
REGION_ADDRESS = 16 << 20  # image/README.md
MEMORY_MIN, MEMORY_MAX = 64 << 20, 3 << 30  # above 3 GiB there is a gap
PAGE_SIZE = 4096
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

EXAMPLES = """examples:
  tools/xsqemu                                   socket ./run/socket, memory in /dev/shm
  tools/xsqemu --memory 256M --region-size 64M --socket /tmp/xs/socket
  tools/xsqemu --drill                           tools/xsdrill may crash it then
  tools/xsqemu --kernel log=debug -- --quota nodes=5000 --log-level debug
  tools/xsdump /dev/shm/tardigrade-....memory log --follow      beside the running machine

A client finds the server by XENSTORED_PATH:
  XENSTORED_PATH=run/socket xenstore-ls -f

exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, 2 wrong arguments, 3 the machine ended
"""


class StartError(Exception):
    """The machine cannot be started; the text says why."""


def main(arguments: list[str]) -> int:
    """Run until a signal, or until the machine ends; returns the exit code."""
    options = parse(arguments)
    try:
        memory, region = parse_size(options.memory), parse_size(options.region_size)
        if not MEMORY_MIN <= memory <= MEMORY_MAX or region < 1 << 20 or (
                REGION_ADDRESS + region > memory // 2 or (memory | region) % PAGE_SIZE):
            raise ValueError(f"--memory {options.memory} --region-size {options.region_size}: "
                             "expected 64M to 3G of memory, and a region of 1M up to half of the "
                             "memory less 16M, both in pages of 4K")
    except ValueError as error:
        print(f"xsqemu: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return run(options, memory, region)
    except (StartError, SocketError) as error:
        print(f"xsqemu: {error}", file=sys.stderr)
        return EXIT_CANNOT_START


def run(options: argparse.Namespace, memory: int, region: int) -> int:
    """Start, serve, end. Raises StartError or SocketError."""
    directory = os.path.dirname(options.socket) or "."
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise StartError(f"{directory}: cannot make the directory: {error.strerror}") from error
    channel = options.socket + ".channel"
    memory_file = options.memory_file or default_memory_file(options.socket)
    machine_command = command(options, memory, region, memory_file, channel)
    lock = lock_memory(memory_file, memory)
    mux = Mux(options.socket, channel, tell=tell if options.verbose else lambda text: None)
    wakeup = catch_signals()
    try:
        machine = start(machine_command, lock)
        tell(f"region: {memory_file}, {region >> 20} MiB at {REGION_ADDRESS:#x}")
        tell(f"try: XENSTORED_PATH={os.path.abspath(options.socket)} xenstore-ls -f")
        try:
            return serve(machine, mux, wakeup)
        finally:
            machine.kill()
            machine.wait()
    finally:
        mux.close()
        os.close(lock)


def serve(machine: subprocess.Popen[bytes], mux: Mux, wakeup: int) -> int:
    """Carry bytes until a signal comes, or the machine has ended."""
    pid_fd = os.pidfd_open(machine.pid)
    poll = select.poll()
    for fd in (mux.fileno(), wakeup, pid_fd):
        poll.register(fd, select.POLLIN)
    try:
        while True:
            wait_s = mux.wait_s()
            ready = dict(poll.poll(None if wait_s is None else wait_s * 1000 + 1))
            if wakeup in ready:
                return 0
            if pid_fd in ready:
                tell(f"the machine has ended: exit code {machine.wait()}")
                return EXIT_MACHINE_ENDED
            mux.turn(0)
    finally:
        os.close(pid_fd)


def catch_signals() -> int:
    """A descriptor that is readable once SIGTERM or SIGINT has come."""
    wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup[1], warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    return wakeup[0]


def lock_memory(path: str, size: int) -> int:
    """Open or make the memory's file; the descriptor holds the lock. Raises StartError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"{path}: cannot open the memory's file: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        present = os.fstat(fd).st_size
        if present == 0:
            os.posix_fallocate(fd, 0, size)
        elif present != size:
            raise StartError(f"{path}: holds {present >> 20} MiB, not the {size >> 20} asked for; "
                             "remove it, or name another")
    except BlockingIOError as error:
        os.close(fd)
        raise StartError(f"{path}: another machine uses this memory") from error
    except OSError as error:
        os.ftruncate(fd, 0)
        os.unlink(path)
        os.close(fd)
        raise StartError(f"{path}: cannot reserve {size >> 20} MiB: {error.strerror}") from error
    return fd


def command(options: argparse.Namespace, memory: int, region: int, memory_file: str,
            channel: str) -> list[str]:
    """QEMU's command line. Raises StartError."""
    qemu = shutil.which(options.qemu)
    if qemu is None:
        raise StartError(f"{options.qemu} is not installed: sudo apt-get install qemu-system-x86")
    kernel, initrd = (os.path.join(options.image, name) for name in ("kernel.elf", "initrd.cpio"))
    for path in (kernel, initrd):
        if not os.path.exists(path):
            raise StartError(f"{path} is not there: build it with `make image`")
    drill = (["drill=on"], ["--drill"]) if options.drill else ([], [])
    words = [f"region={region >> 10}K@{REGION_ADDRESS:#x}", *drill[0], *options.kernel, "--",
             *drill[1], *options.arguments]
    return [
        qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "microvm,acpi=off,isa-serial=on,rtc=on,pit=on,memory-backend=memory",
        "-accel", "tcg", "-cpu", "qemu64,+rdrand,+smep", "-m", f"{memory >> 10}K",
        "-object", f"memory-backend-file,id=memory,size={memory},share=on,"
        f"mem-path={quoted(memory_file)}",
        "-kernel", kernel, "-initrd", initrd,
        "-append", " ".join(f'"{word}"' if " " in word else word for word in words),
        "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device",
        "-chardev", f"socket,id=channel,path={quoted(channel)},reconnect=1",
        "-device", "virtserialport,nr=1,chardev=channel", *options.qemu_option,
    ]


def quoted(path: str) -> str:
    """A value in one of QEMU's options, where a comma ends it."""
    return path.replace(",", ",,")


def start(arguments: list[str], lock: int) -> subprocess.Popen[bytes]:
    """Start QEMU so that it ends when we do, also if we are killed. Raises StartError."""
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    try:
        return subprocess.Popen([*prefix, *arguments], stdin=subprocess.DEVNULL, pass_fds=(lock,))
    except OSError as error:
        raise StartError(f"{arguments[0]}: {error.strerror}") from error


def default_memory_file(socket_path: str) -> str:
    """A file on tmpfs, another one for every socket path."""
    mark = hashlib.sha256(os.fsencode(os.path.abspath(socket_path))).hexdigest()[:8]
    return f"/dev/shm/tardigrade-{mark}.memory"


def parse_size(text: str) -> int:
    """A size such as 64M, in bytes. Raises ValueError."""
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not digits.isdecimal() or unit not in UNITS:
        raise ValueError(f"{text}: expected a size: a number, or one with K, M or G")
    return int(digits) * UNITS[unit]


def tell(text: str) -> None:
    """A line for people."""
    print(f"xsqemu: {text}", file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; what follows "--" is the server's."""
    parser = argparse.ArgumentParser(
        prog="xsqemu", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="xsqemu [options] [-- SERVER_ARGUMENT ...]",
        description="Run the image in QEMU (software emulation), and serve its clients.")
    parser.add_argument("--socket", metavar="PATH", help="where clients connect (default: "
                        "$XENSTORED_PATH, else ./run/socket)",
                        default=os.environ.get("XENSTORED_PATH") or os.path.join("run", "socket"))
    parser.add_argument("--memory", metavar="SIZE", default="64M",
                        help="the machine's memory (default %(default)s)")
    parser.add_argument("--memory-file", metavar="FILE", help="what holds it, region included "
                        "(default: a file in /dev/shm named after the socket)")
    parser.add_argument("--region-size", metavar="SIZE", default="16M",
                        help="of the persistent memory (default %(default)s)")
    parser.add_argument("--drill", action="store_true", help="let tools/xsdrill crash it, kernel "
                        "and server, in every way")
    parser.add_argument("--kernel", metavar="WORD", action="append", default=[],
                        help="a word of the kernel's command line, such as log=debug")
    parser.add_argument("--image", metavar="DIR", default=str(IMAGE),
                        help="where kernel.elf and initrd.cpio are (default %(default)s)")
    parser.add_argument("--qemu", metavar="PROGRAM", default="qemu-system-x86_64",
                        help="(default %(default)s)")
    parser.add_argument("--qemu-option", metavar="OPTION", action="append", default=[],
                        help="one more argument for QEMU; write --qemu-option=-OPTION")
    parser.add_argument("--verbose", action="store_true", help="say what the multiplexer does")
    own, server = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        own, server = arguments[:at], arguments[at + 1:]
    options = parser.parse_args(own)
    options.arguments = server
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
